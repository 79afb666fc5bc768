// Distances by bearing: a wall by every implementation, sessions, and arguments that do not fit.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "harness.hpp"
#include "kernels.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
constexpr mvde_camera kCamera{44, 44, 23.5, 15.5, 32, 48};

mvde_scan_settings settings_of(double increment_deg = 6) {
    mvde_scan_settings settings;
    mvde_scan_defaults(&settings);
    settings.height_m = 0.6;
    settings.increment_deg = increment_deg;
    settings.support_deg2 = 6;
    return settings;
}

struct Metric : engine_folder::Folder {
    explicit Metric(const char *kind = R"("depth_kind": "metric", "unit": "m")") {
        write("engine.json",
              engine_folder::with(engine_folder::manifest(content), R"("depth_kind": "metric", "unit": "m")", kind));
    }
};

long num_different(const std::vector<float> &found, const std::vector<float> &expected) {
    long count = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) count += std::memcmp(&found[i], &expected[i], sizeof(float)) != 0;
    return count;
}

bool says(const std::string &message, const char *words) { return message.find(words) != std::string::npos; }

}  // namespace

TEST(every_implementation_tells_a_wall_at_its_distance) {
    constexpr mvde_camera wide{900, 900, 520.5, 10, 21, 1043};  // a row is more than one chunk
    auto rays = mvde::Rays::create(wide);
    CHECK(rays, "%s", mvde_last_error());
    mvde_scan_settings settings = settings_of(2);
    settings.support_deg2 = 0.5;
    auto scanner = mvde::Scanner::create(*rays, settings);
    CHECK(scanner, "%s", mvde_last_error());
    if (!scanner) return;
    const mvde_scan_info info = scanner->info();
    std::vector<float> depth(21 * 1043, 2.5F), ranges(static_cast<std::size_t>(info.num_bearings));
    for (std::size_t i = 0; i < depth.size(); i += 17) depth[i] = i % 2 ? kNan : -1.0F;
    for (const mvde::internal::Kernel *kernel : testable_kernels()) {
        mvde::internal::force_kernel(kernel);
        std::fill(ranges.begin(), ranges.end(), -7.0F);
        const long before = num_allocations;
        CHECK(scanner->scan(depth, ranges), "%s", mvde_last_error());
        CHECK(num_allocations == before);
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            const double bearing = info.angle_min + static_cast<double>(i) * info.angle_increment;
            const double expected = 2.5 / std::cos(bearing);
            CHECK(std::abs(ranges[i] / expected - 1) < 0.035, "%s: %g m at %g", kernel->name, static_cast<double>(ranges[i]),
                  bearing);
        }
    }
    mvde::internal::force_kernel(nullptr);
}

TEST(sky_is_free_and_what_was_not_seen_is_not) {
    auto rays = mvde::Rays::create(kCamera);
    auto scanner = mvde::Scanner::create(*rays, settings_of());
    CHECK(scanner, "%s", mvde_last_error());
    std::vector<float> ranges(static_cast<std::size_t>(scanner->info().num_bearings));
    for (const float value : {kInfinity, kNan}) {
        const std::vector<float> depth(32 * 48, value);
        CHECK(scanner->scan(depth, ranges), "%s", mvde_last_error());
        for (const float range : ranges) CHECK(std::isnan(value) ? std::isnan(range) : range == kInfinity);
    }
}

TEST(a_session_gives_the_scan_of_its_depth_and_allocates_nothing) {
    const Metric folder;
    mvde::SessionOptions options;
    options.camera = kCamera;
    options.scan = settings_of();
    auto session = mvde::Session::open(folder.path.string(), options);
    auto rays = mvde::Rays::create(kCamera);
    auto scanner = mvde::Scanner::create(*rays, settings_of());
    CHECK(session && scanner, "%s", mvde_last_error());
    if (!session || !scanner) return;
    const mvde_scan_info info = session->scan_info();
    CHECK(info.num_bearings == scanner->info().num_bearings && info.num_bearings > 5);
    CHECK(info.angle_min == scanner->info().angle_min && info.reach_m[0] == scanner->info().reach_m[0]);
    Frame frame({32, 48});
    std::vector<float> depth(session->num_depths()), ranges(static_cast<std::size_t>(info.num_bearings)), expected(ranges);
    mvde::Outputs outputs;
    outputs.depth_m = depth;
    outputs.ranges = ranges;
    CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
    CHECK(scanner->scan(depth, expected), "%s", mvde_last_error());
    CHECK(num_different(ranges, expected) == 0);
    std::fill(ranges.begin(), ranges.end(), -7.0F);
    outputs.depth_m = {};
    const long before = num_allocations;
    CHECK(session->infer_async(frame.view) && session->wait(outputs), "%s", mvde_last_error());
    CHECK(num_allocations == before, "%ld allocations", num_allocations - before);
    CHECK(num_different(ranges, expected) == 0);
}

TEST(a_session_refuses_a_scan_that_it_cannot_give) {
    const Metric folder, relative(R"("depth_kind": "inverse_relative", "unit": "1/u")");
    mvde::SessionOptions options;
    options.scan = settings_of();
    auto refused = mvde::Session::open(folder.path.string(), options);
    CHECK(!refused && says(refused.error().message, "options.scan needs the camera of the frames, which tiny does not"),
          "%s", refused.error().message.c_str());
    options.camera = kCamera;
    options.scan->support_deg2 = 0;
    refused = mvde::Session::open(folder.path.string(), options);
    CHECK(!refused && says(refused.error().message, "support_deg2 of a scan lies between 0.001 and 100, but got 0"));
    options.scan = settings_of();
    options.scan->height_m = 3;
    options.scan->pitch_deg = -60;
    refused = mvde::Session::open(folder.path.string(), options);
    CHECK(!refused && says(refused.error().message, "no sector of 6 degrees sees heights of 0.65 to 1.6 m"));
    options.scan = settings_of();
    Frame frame({32, 48});
    std::vector<float> ranges(100);
    mvde::Outputs outputs;
    outputs.ranges = ranges;
    auto unscaled = mvde::Session::open(relative.path.string(), options);
    CHECK(unscaled, "%s", mvde_last_error());
    CHECK(says(unscaled->infer(frame.view, outputs).error().message, "outputs.ranges needs a map in metres"), "%s",
          mvde_last_error());
    options.scan.reset();
    auto without = mvde::Session::open(folder.path.string(), options);
    CHECK(without->scan_info().num_bearings == 0);
    CHECK(says(without->infer(frame.view, outputs).error().message, "(options.scan)"), "%s", mvde_last_error());
    options.scan = settings_of();
    auto session = mvde::Session::open(folder.path.string(), options);
    outputs.ranges = {ranges.data(), 2};
    CHECK(session->infer(frame.view, outputs).error().status == MVDE_ERROR_CAPACITY);
}

TEST(arguments_that_do_not_fit_are_refused) {
    auto rays = mvde::Rays::create(kCamera);
    const mvde_scan_settings settings = settings_of();
    mvde_scanner *scanner = nullptr;
    CHECK(mvde_scanner_create(nullptr, nullptr, &settings, &scanner) == MVDE_ERROR_ARGUMENT);
    CHECK(mvde_scanner_create(rays->get(), nullptr, nullptr, &scanner) == MVDE_ERROR_ARGUMENT);
    CHECK(mvde_scanner_create(rays->get(), nullptr, &settings, nullptr) == MVDE_ERROR_ARGUMENT);
    mvde_scan_settings wrong = settings;
    wrong.struct_size = 8;
    CHECK(mvde_scanner_create(rays->get(), nullptr, &wrong, &scanner) == MVDE_ERROR_ARGUMENT);
    const mvde_box outside{0, 0, 33, 48};
    CHECK(mvde_scanner_create(rays->get(), &outside, &settings, &scanner) == MVDE_ERROR_SHAPE);
    CHECK(says(mvde_last_error(), "the box is rows 0 to 33 and columns 0 to 48: expected a part of 32x48"), "%s",
          mvde_last_error());
    CHECK(mvde_scanner_create(rays->get(), nullptr, &settings, &scanner) == MVDE_OK, "%s", mvde_last_error());
    std::vector<float> depth(32 * 48, 2.0F), ranges(64);
    CHECK(mvde_scan(scanner, nullptr, 0, ranges.data(), 64) == MVDE_ERROR_ARGUMENT);
    CHECK(mvde_scan(scanner, depth.data(), 0, ranges.data(), 2) == MVDE_ERROR_CAPACITY);
    CHECK(mvde_scan(scanner, depth.data(), 47 * 4, ranges.data(), 64) == MVDE_ERROR_SHAPE);
    CHECK(mvde_scan(scanner, depth.data(), 0, depth.data() + 9, 64) == MVDE_ERROR_OVERLAP);
    mvde_scan_info info{};
    CHECK(mvde_scanner_query(scanner, &info) == MVDE_ERROR_ARGUMENT);
    mvde_scanner_destroy(scanner);
    mvde_scanner_destroy(nullptr);
    CHECK(mvde_scan(scanner, depth.data(), 0, ranges.data(), 64) == MVDE_ERROR_CLOSED);
    CHECK(mvde_scan_read("/nowhere/scan.yaml", &wrong) == MVDE_ERROR_ARGUMENT);
    CHECK(says(mvde_last_error(), "/nowhere/scan.yaml: cannot be read: No such file or directory"), "%s", mvde_last_error());
}

int main() { return harness::run_all(); }
