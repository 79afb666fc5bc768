// Sessions with a stabilization, with the fake backend, whose depth is 0.5 + (red + green + blue) / 192, and stabilizers of
// the caller's maps. That their bits are those of the specification in Python: tests/runtime/test_stabilize_native.py.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session/session.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace {

using engine_folder::Folder;

constexpr std::size_t kPixels = 32 * 48;
constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();

enum class Scene { waves, blocks };

double brightness(Scene scene, int64_t y, int64_t x) {
    if (scene == Scene::blocks) return 40 + static_cast<double>((x / 6 * 7 + y / 6 * 11) * 9973 % 151);
    return 110 + 40 * (std::sin(0.3 * static_cast<double>(x)) +
                       std::sin(0.21 * static_cast<double>(y) - 0.13 * static_cast<double>(x)));
}

// A picture that moves by a pixel a frame, with an exposure that flickers.
Frame moving_frame(int number, mvde::Size size = {32, 48}, Scene scene = Scene::waves) {
    Frame one(size);
    const double exposure = 1 + 0.04 * (number % 3 - 1);
    for (int64_t y = 0; y < size.height; ++y)
        for (int64_t x = 0; x < size.width; ++x)
            for (int64_t c = 0; c < 3; ++c)
                one.bytes[static_cast<std::size_t>((y * size.width + x) * 3 + c)] = static_cast<uint8_t>(
                    exposure * brightness(scene, y, x + number));
    return one;
}

std::vector<float> map_of(const Frame &frame, std::size_t num_pixels = kPixels) {
    std::vector<float> map(num_pixels);
    for (std::size_t i = 0; i < num_pixels; ++i)
        map[i] = 0.5F + static_cast<float>(frame.bytes[3 * i] + frame.bytes[3 * i + 1] + frame.bytes[3 * i + 2]) / 192.0F;
    return map;
}

mvde::SessionOptions steady_options() {
    mvde::SessionOptions options;
    options.stabilization = mvde::default_stabilization();
    return options;
}

bool are_equal(const std::vector<float> &one, const std::vector<float> &other) {
    return one.size() == other.size() && !std::memcmp(one.data(), other.data(), one.size() * sizeof(float));
}

struct RelativeFolder : Folder {
    RelativeFolder() {
        write("engine.json", engine_folder::with(engine_folder::manifest(content), R"("depth_kind": "metric", "unit": "m")",
                                                 R"("depth_kind": "inverse_relative", "unit": "1/u")"));
    }
};

void expect(int32_t got, int32_t status, const char *words, int line) {
    CHECK(got == status, "line %d: got %d (%s)", line, got, mvde_last_error());
    CHECK(std::string(mvde_last_error()).find(words) != std::string::npos, "line %d: %s", line, mvde_last_error());
}

#define EXPECT(got, status, words) expect(got, status, words, __LINE__)

}  // namespace

TEST(depth_of_a_session_is_that_of_a_stabilizer_and_statistics_are_of_that_depth) {
    const Folder metric;
    const RelativeFolder relative;
    for (const bool is_relative : {false, true}) {
        const Folder &folder = is_relative ? static_cast<const Folder &>(relative) : metric;
        auto session = mvde::Session::open(folder.path.string(), steady_options());
        CHECK(session, "%s", session.error().message.c_str());
        auto alone = mvde::Stabilizer::create(is_relative ? MVDE_INVERSE_RELATIVE : MVDE_METRIC);
        CHECK(alone, "%s", alone.error().message.c_str());
        if (!session || !alone) return;
        std::vector<float> depth(kPixels), stats(session->num_stats()), expected(kPixels), expected_stats(18);
        bool has_changed = false;
        for (int i = 0; i < 6; ++i) {
            Frame frame = moving_frame(i);
            frame.view.time_s = 0.1 * i;
            mvde::Outputs outputs{depth, stats, {}, {}};
            CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
            const std::vector<float> map = map_of(frame);
            const auto back = alone->update(mvde::steady_frame(frame.bytes.data(), {32, 48}, map.data(), {32, 48}),
                                            expected);
            CHECK(back, "%s", mvde_last_error());
            CHECK(outputs.num_steady == i + 1, "frame %d: %d", i, outputs.num_steady);
            CHECK(are_equal(depth, expected), "frame %d", i);
            CHECK(i > 0 || are_equal(depth, map), "the first frame is its own");
            has_changed = has_changed || !are_equal(depth, map);
            CHECK(mvde::patch_stats(mvde::depth_map(expected.data(), {32, 48}), 16, {MVDE_MEAN, MVDE_VAR, MVDE_GRAD},
                                    expected_stats));
            CHECK(are_equal(stats, expected_stats), "frame %d", i);
        }
        CHECK(has_changed, "nothing was stabilized");
    }
}

TEST(steady_frames_allocate_nothing_and_come_out_of_flight_too) {
    const Folder folder;
    auto session = mvde::Session::open(folder.path.string(), steady_options());
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    std::vector<Frame> frames;
    for (int i = 0; i < 8; ++i) frames.push_back(moving_frame(i));
    std::vector<float> depth(kPixels), stats(session->num_stats());
    mvde_outputs outputs = outputs_of(depth, stats);
    const long before = num_allocations.load();
    for (int i = 0; i < 8; ++i) {
        if (i % 2) CHECK(mvde_infer(session->get(), &frames[static_cast<std::size_t>(i)].view, &outputs) == MVDE_OK);
        else {
            CHECK(mvde_infer_async(session->get(), &frames[static_cast<std::size_t>(i)].view) == MVDE_OK);
            CHECK(mvde_wait(session->get(), -1, &outputs) == MVDE_OK);
        }
        CHECK(outputs.num_steady == i + 1);
    }
    CHECK(num_allocations.load() == before, "%ld allocations", num_allocations.load() - before);
}

TEST(a_cut_and_a_long_gap_begin_anew_and_times_must_increase) {
    const Folder folder;
    auto session = mvde::Session::open(folder.path.string(), steady_options());
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    std::vector<float> depth(kPixels);
    const auto steady = [&](Frame frame, double time_s) {
        frame.view.time_s = time_s;
        mvde::Outputs outputs{depth, {}, {}, {}};
        CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
        return outputs.num_steady;
    };
    CHECK(steady(moving_frame(0), 5.0) == 1);
    CHECK(steady(moving_frame(1), 5.1) == 2);
    CHECK(steady(moving_frame(1, {32, 48}, Scene::blocks), 5.2) == 1, "a cut");
    CHECK(are_equal(depth, map_of(moving_frame(1, {32, 48}, Scene::blocks))));
    CHECK(steady(moving_frame(2, {32, 48}, Scene::blocks), 6.5) == 1, "a gap");
    CHECK(steady(moving_frame(3, {32, 48}, Scene::blocks), 6.6) == 2);

    Frame late = moving_frame(4, {32, 48}, Scene::blocks);
    late.view.time_s = 6.6;
    mvde_outputs outputs = outputs_of(depth, {});
    EXPECT(mvde_infer(session->get(), &late.view, &outputs), MVDE_ERROR_ARGUMENT,
           "the frame at 6.600000 s comes after the one at 6.600000 s; give each frame once");
    EXPECT(mvde_infer_async(session->get(), &late.view), MVDE_ERROR_ARGUMENT, "reset the stabilizer where another");
    late.view.time_s = std::numeric_limits<double>::infinity();
    EXPECT(mvde_infer(session->get(), &late.view, &outputs), MVDE_ERROR_ARGUMENT, "has the time inf; expected seconds");
    CHECK(steady(late, 6.7) == 3, "a frame that was refused is no part of the past");
    CHECK(steady(late, kNotKnown) == 4);
    CHECK(session->reset());
    CHECK(steady(late, 0.0) == 1);
    const Frame last = moving_frame(5);
    CHECK(mvde_infer_async(session->get(), &last.view) == MVDE_OK);
    EXPECT(mvde_session_reset(session->get()), MVDE_ERROR_BUSY, "a frame is in flight");
    CHECK(mvde_wait(session->get(), -1, &outputs) == MVDE_OK);
}

TEST(sessions_without_a_stabilization_look_at_each_frame_for_itself) {
    const Folder folder;
    auto session = mvde::Session::open(folder.path.string());
    std::vector<float> depth(kPixels);
    for (int i = 0; i < 3; ++i) {
        Frame frame = moving_frame(i);
        frame.view.time_s = 1.0;  // not looked at
        mvde::Outputs outputs{depth, {}, {}, {}};
        CHECK(session && session->infer(frame.view, outputs), "%s", mvde_last_error());
        CHECK(outputs.num_steady == 0 && are_equal(depth, map_of(frame)));
    }
    CHECK(session->reset());
}

TEST(bars_of_a_letterbox_are_no_part_of_the_picture_and_statistics_of_them_are_zero) {
    const Folder folder;
    mvde::SessionOptions options = steady_options();
    options.fit = mvde::Fit::letterbox;
    options.frame = {32, 16};  // in the middle third of the input
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", session.error().message.c_str());
    auto alone = mvde::Stabilizer::create(MVDE_METRIC);
    if (!session || !alone) return;
    std::vector<float> depth(32 * 16), stats(session->num_stats()), expected(32 * 16);
    for (int i = 0; i < 4; ++i) {
        const Frame frame = moving_frame(i, {32, 16});
        mvde::Outputs outputs{depth, stats, {}, {}};
        CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
        const std::vector<float> map = map_of(frame, 32 * 16);
        CHECK(alone->update(mvde::steady_frame(frame.bytes.data(), {32, 16}, map.data(), {32, 16}), expected));
        CHECK(outputs.num_steady == i + 1 && are_equal(depth, expected), "frame %d", i);
        for (const std::size_t patch : {0U, 2U, 3U, 5U}) CHECK(stats[3 * patch] == 0);
        CHECK(stats[3] > 0);
    }
}

TEST(sessions_of_one_camera_may_share_their_steady_depth) {
    const Folder folder;
    mvde_session_options options;
    mvde_session_defaults(&options);
    const mvde_stabilization settings = mvde::default_stabilization();
    options.stabilization = &settings;
    options.fit = MVDE_LETTERBOX;
    options.frame_height = options.frame_width = 32;
    mvde::internal::Session one(folder.path.string().c_str(), options), other(folder.path.string().c_str(), options);
    other.go_on_with(one);
    std::vector<float> depth(32 * 32);
    mvde_outputs outputs = outputs_of(depth, {});
    for (int i = 0; i < 6; ++i) {
        const Frame frame = moving_frame(i, {32, 32});
        CHECK((i % 3 ? one : other).infer(frame.view, outputs) == MVDE_OK, "%s", mvde_last_error());
        CHECK(outputs.num_steady == i + 1);
    }
}

TEST(settings_and_handles_that_cannot_be_are_refused) {
    const Folder folder;
    mvde::SessionOptions options = steady_options();
    options.stabilization->gain = 0;
    const auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(!session && session.error().message.find("gain is a share of each change") != std::string::npos, "%s",
          session.error().message.c_str());
    options.stabilization->struct_size = 4;
    CHECK(!mvde::Session::open(folder.path.string(), options));
    CHECK(std::string(mvde_last_error()).find("mvde_stabilization_defaults()") != std::string::npos);

    mvde_stabilizer *stabilizer = nullptr;
    EXPECT(mvde_stabilizer_create(9, nullptr, &stabilizer), MVDE_ERROR_ARGUMENT, "depth_kind is 9");
    CHECK(mvde_stabilizer_create(MVDE_METRIC, nullptr, &stabilizer) == MVDE_OK);
    mvde_stabilizer_destroy(stabilizer);
    EXPECT(mvde_stabilizer_reset(stabilizer), MVDE_ERROR_CLOSED, "the stabilizer was destroyed");
    mvde_steady_frame frame;
    mvde_steady_frame_defaults(&frame);
    EXPECT(mvde_stabilize(stabilizer, &frame, nullptr, 0, nullptr), MVDE_ERROR_CLOSED, "the stabilizer was destroyed");
    EXPECT(mvde_stabilize(nullptr, &frame, nullptr, 0, nullptr), MVDE_ERROR_ARGUMENT, "stabilizer or frame is NULL");
}

int main() { return harness::run_all(); }
