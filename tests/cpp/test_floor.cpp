// Scale from the floor: sessions give depth the scale that mvde_floor_scale finds in it, and refuse what they cannot.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace {

constexpr mvde_camera kCamera{44, 44, 23.5, 15.5, 32, 48};

mvde_mounting mounting_of(double height_m = 0.6, double pitch_deg = 15) {
    mvde_mounting mounting;
    mvde_mounting_defaults(&mounting);
    mounting.height_m = height_m;
    mounting.pitch_deg = pitch_deg;
    return mounting;
}

struct Metric : engine_folder::Folder {
    explicit Metric(const char *kind = R"("depth_kind": "metric", "unit": "m")") {
        write("engine.json",
              engine_folder::with(engine_folder::manifest(content), R"("depth_kind": "metric", "unit": "m")", kind));
    }
};

// A picture of which the fake backend says the depth of a floor `height_m` below a camera that looks down by `pitch_deg`.
void show_floor(Frame &frame, double height_m, double pitch_deg) {
    const double pitch = pitch_deg * 3.14159265358979323846 / 180;
    for (int y = 0; y < 32; ++y) {
        const double fall = std::sin(pitch) + std::cos(pitch) * (y - 15.5) / 44;
        const double depth = fall > 0 ? std::min(height_m / fall, 3.0) : 3.0;
        const int total = static_cast<int>(std::lround((depth - 0.5) * 192));
        for (int x = 0; x < 48; ++x)
            for (int channel = 0; channel < 3; ++channel)
                frame.bytes[static_cast<std::size_t>((y * 48 + x) * 3 + channel)] = static_cast<std::uint8_t>(
                    (total + channel) / 3);
    }
}

bool says(const std::string &message, const char *words) { return message.find(words) != std::string::npos; }

}  // namespace

TEST(a_session_gives_depth_the_scale_of_the_floor_and_allocates_nothing) {
    const Metric folder;
    mvde::SessionOptions options;
    options.camera = kCamera;
    auto plain = mvde::Session::open(folder.path.string(), options);
    options.floor = mounting_of();
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(plain && session, "%s", mvde_last_error());
    if (!plain || !session) return;
    Frame frame({32, 48});
    show_floor(frame, 0.5, 15);  // the camera is 0.6 m high: depth is a sixth too small
    std::vector<float> before(32 * 48), after(before), stats(plain->num_stats()), scaled(stats);
    mvde::Outputs outputs, own;
    own.depth_m = before;
    own.stats = stats;
    outputs.depth_m = after;
    outputs.stats = scaled;
    CHECK(plain->infer(frame.view, own), "%s", mvde_last_error());
    CHECK(own.floor.status == MVDE_FLOOR_OFF && own.floor.scale == 1.0);
    const long allocations = num_allocations;
    CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
    CHECK(num_allocations == allocations, "%ld allocations", num_allocations - allocations);
    CHECK(outputs.floor.status == MVDE_FLOOR_USED && std::abs(outputs.floor.scale / 1.2 - 1) < 0.01, "%d %g",
          outputs.floor.status, outputs.floor.scale);
    auto rays = mvde::Rays::create(kCamera);
    mvde_floor floor{};
    floor.struct_size = sizeof floor;
    const mvde_mounting mounting = mounting_of();
    CHECK(mvde_floor_scale(rays->get(), nullptr, &mounting, before.data(), 0, &floor) == MVDE_OK, "%s", mvde_last_error());
    CHECK(floor.scale == outputs.floor.scale && floor.share == outputs.floor.share &&
          floor.residual == outputs.floor.residual);
    for (std::size_t i = 0; i < before.size(); ++i)
        CHECK(after[i] == before[i] * static_cast<float>(floor.scale), "%g of %g", static_cast<double>(after[i]),
              static_cast<double>(before[i]));
    CHECK(std::abs(scaled[0] / stats[0] / static_cast<float>(floor.scale) - 1) < 1e-5F);  // the first mean
}

TEST(the_mounting_of_the_next_frames_can_be_changed) {
    const Metric folder;
    mvde::SessionOptions options;
    options.camera = kCamera;
    options.floor = mounting_of(0.6, 60);
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", mvde_last_error());
    if (!session) return;
    Frame frame({32, 48});
    show_floor(frame, 0.5, 15);
    std::vector<float> depth(32 * 48);
    mvde::Outputs outputs;
    outputs.depth_m = depth;
    const mvde_mounting level = mounting_of();
    CHECK(session->mount(&level) && session->infer_async(frame.view), "%s", mvde_last_error());
    CHECK(session->mount(nullptr) && session->wait(outputs), "%s", mvde_last_error());
    CHECK(outputs.floor.status == MVDE_FLOOR_USED && std::abs(outputs.floor.scale / 1.2 - 1) < 0.01, "%g",
          outputs.floor.scale);  // that of the call that took the frame
    CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
    CHECK(outputs.floor.status == MVDE_FLOOR_UNKNOWN && outputs.floor.scale == 1.0);
    mvde_mounting wrong = mounting_of(0.0);
    CHECK(says(session->mount(&wrong).error().message, "height_m of a mounting lies between 0.01 and 100, but got 0"));
    wrong.struct_size = 4;
    CHECK(says(session->mount(&wrong).error().message, "mounting.struct_size is 4: start from mvde_mounting_defaults()"));
    frame.fill(40);
    CHECK(session->mount(&level) && session->infer(frame.view, outputs), "%s", mvde_last_error());
    CHECK(outputs.floor.status == MVDE_FLOOR_UNSEEN && outputs.floor.scale == 1.0);
    CHECK(depth[0] == 0.5F + 120.0F / 192.0F);  // as it was
    const mvde_anchor anchor{10, 10, 2.0};
    frame.view.anchors = &anchor;
    frame.view.num_anchors = 1;
    CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
    CHECK(outputs.floor.status == MVDE_FLOOR_OFF && outputs.calibrated == MVDE_ANCHORS);
}

TEST(frames_that_share_a_scale_share_the_floors) {
    const Metric folder;
    mvde::SessionOptions options;
    options.camera = kCamera;
    options.floor = mounting_of();
    options.stabilization = mvde::default_stabilization();
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", mvde_last_error());
    if (!session) return;
    Frame frame({32, 48});
    show_floor(frame, 0.5, 15);
    std::vector<float> depth(32 * 48);
    mvde::Outputs outputs;
    outputs.depth_m = depth;
    const auto scale = [&](const mvde_mounting *mounting) {
        CHECK(session->mount(mounting) && session->infer(frame.view, outputs), "%s", mvde_last_error());
        return outputs.floor.scale;
    };
    const mvde_mounting lower = mounting_of(), higher = mounting_of(0.66);
    const double first = scale(&lower), second = scale(&higher);
    CHECK(std::abs(first / 1.2 - 1) < 0.01 && std::abs(second / (1.05 * first) - 1) < 0.003, "%g %g", first, second);
    CHECK(scale(nullptr) == second && outputs.floor.status == MVDE_FLOOR_HELD && outputs.num_steady == 3);
    CHECK(session->reset(), "%s", mvde_last_error());
    CHECK(scale(nullptr) == 1.0 && outputs.floor.status == MVDE_FLOOR_UNKNOWN && outputs.num_steady == 1, "%d %d",
          outputs.floor.status, outputs.num_steady);
}

TEST(a_session_refuses_a_floor_that_it_cannot_use) {
    const Metric folder, relative(R"("depth_kind": "inverse_relative", "unit": "1/u")");
    mvde::SessionOptions options;
    options.floor = mounting_of();
    auto refused = mvde::Session::open(folder.path.string(), options);
    CHECK(!refused && says(refused.error().message, "options.floor needs the camera of the frames, which tiny does not"),
          "%s", refused.error().message.c_str());
    options.camera = kCamera;
    refused = mvde::Session::open(relative.path.string(), options);
    CHECK(!refused && says(refused.error().message, "options.floor needs a map in metres, but that of tiny is inverse_rel"),
          "%s", refused.error().message.c_str());
    options.floor->pitch_deg = 85;
    refused = mvde::Session::open(folder.path.string(), options);
    CHECK(!refused && says(refused.error().message, "pitch_deg of a mounting lies between -80 and 80, but got 85"));
    options.floor->struct_size = 4;
    refused = mvde::Session::open(folder.path.string(), options);
    CHECK(!refused && says(refused.error().message, "options.floor->struct_size is 4: start from mvde_mounting_defaults()"));
    options.floor.reset();
    auto without = mvde::Session::open(folder.path.string(), options);
    const mvde_mounting mounting = mounting_of();
    CHECK(without->mount(&mounting).error().status == MVDE_ERROR_UNSUPPORTED);
}

TEST(bad_arguments_are_refused) {
    auto rays = mvde::Rays::create(kCamera);
    const mvde_mounting mounting = mounting_of();
    const std::vector<float> depth(32 * 48, 2.0F);
    mvde_floor floor{};
    const auto measure = [&](const mvde_rays *of, const mvde_mounting *mounted, const float *map, std::int64_t stride) {
        return mvde_floor_scale(of, nullptr, mounted, map, stride, &floor);
    };
    CHECK(measure(rays->get(), &mounting, depth.data(), 0) == MVDE_ERROR_ARGUMENT);  // struct_size is 0
    floor.struct_size = sizeof floor;
    CHECK(measure(rays->get(), &mounting, depth.data(), 0) == MVDE_OK);
    CHECK(measure(nullptr, &mounting, depth.data(), 0) == MVDE_ERROR_ARGUMENT);
    CHECK(measure(rays->get(), nullptr, depth.data(), 0) == MVDE_ERROR_ARGUMENT);
    CHECK(measure(rays->get(), &mounting, nullptr, 0) == MVDE_ERROR_ARGUMENT);
    CHECK(measure(rays->get(), &mounting, depth.data(), 47 * 4) == MVDE_ERROR_SHAPE);
    CHECK(measure(rays->get(), &mounting, depth.data(), 193) == MVDE_ERROR_ALIGNMENT);
    const mvde_box outside{0, 0, 33, 48};
    CHECK(mvde_floor_scale(rays->get(), &outside, &mounting, depth.data(), 0, &floor) == MVDE_ERROR_SHAPE);
    CHECK(mvde_floor_scale(rays->get(), nullptr, &mounting, depth.data(), 0, nullptr) == MVDE_ERROR_ARGUMENT);
}

int main() { return harness::run_all_and_in_german(); }
