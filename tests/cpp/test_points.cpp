// Points: every implementation against a plain loop, rays of lenses, sessions, and arguments that do not fit.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "harness.hpp"
#include "kernels.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
constexpr mvde::Size kSize{21, 1043};  // a row has two parts of 512 pixels, a whole sixteen and three more
constexpr mvde_camera kCamera{700.5, 690.25, 500.5, 9.75, kSize.height, kSize.width};
constexpr mvde_distortion kLens{MVDE_PLUMB_BOB, 0, {-0.28, 0.074, 0.0004, -0.0013, 0.01}};

std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

std::vector<float> depth_with_holes() {
    const float holes[] = {kNan, kInfinity, -kInfinity, 0.0F, -0.0F, -2.5F, 1e-45F, 3.4e38F};
    std::vector<float> depth(static_cast<std::size_t>(kSize.height * kSize.width));
    for (std::size_t i = 0; i < depth.size(); ++i)
        depth[i] = i % 11 == 3 ? holes[i / 11 % 8] : 0.25F + static_cast<float>(i * 7919 % 30011) / 997.0F;
    return depth;
}

struct Bytes {
    explicit Bytes(mvde::PixelFormat format, std::size_t count) : values(count) {
        for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<std::uint8_t>(i * 31 % 251);
        view = mvde::frame(values.data(), format, kSize);
    }
    std::vector<std::uint8_t> values;
    mvde_frame view;
};

// The point of a pixel of an undistorted camera, and its colour.
std::vector<float> plain_points(const std::vector<float> &depth, std::int64_t step, const std::uint8_t *rgb) {
    std::vector<float> points;
    for (std::int64_t y = 0; y < kSize.height; y += step)
        for (std::int64_t x = 0; x < kSize.width; x += step) {
            const std::size_t i = static_cast<std::size_t>(y * kSize.width + x);
            const bool has_depth = depth[i] > 0.0F && depth[i] <= MVDE_LARGEST_DEPTH;
            const auto ray_x = static_cast<float>((static_cast<double>(x) - kCamera.cx) / kCamera.fx);
            const auto ray_y = static_cast<float>((static_cast<double>(y) - kCamera.cy) / kCamera.fy);
            for (const float value : {depth[i] * ray_x, depth[i] * ray_y, depth[i]})
                points.push_back(has_depth ? value : kNan);
            if (!rgb) continue;
            const std::uint32_t packed = rgb[3 * i] * 65536U + rgb[3 * i + 1] * 256U + rgb[3 * i + 2];
            float colour;
            std::memcpy(&colour, &packed, sizeof colour);
            points.push_back(colour);
        }
    return points;
}

int num_different(const std::vector<float> &found, const std::vector<float> &expected) {
    int num = found.size() != expected.size();
    for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i)
        num += bits_of(found[i]) != bits_of(expected[i]);
    return num;
}

void expect(int32_t got, int32_t status, const char *words, int line) {
    const std::string message = mvde_last_error();
    CHECK(got == status, "line %d: got %d, expected %d: %s", line, got, status, message.c_str());
    CHECK(message.find(words) != std::string::npos, "line %d: '%s' is not in '%s'", line, words, message.c_str());
}

#define EXPECT(call, status, words) expect(call, status, words, __LINE__)

struct Metric : engine_folder::Folder {
    explicit Metric(const char *kind = R"("depth_kind": "metric", "unit": "m")") {
        write("engine.json",
              engine_folder::with(engine_folder::manifest(content), R"("depth_kind": "metric", "unit": "m")", kind));
    }
};

}  // namespace

TEST(every_implementation_and_thread_count_gives_the_points_of_a_plain_loop) {
    const std::vector<float> depth = depth_with_holes();
    const Bytes rgb(mvde::PixelFormat::rgb, depth.size() * 3);
    auto rays = mvde::Rays::create(kCamera);
    auto workers = mvde::Workers::create(3);
    CHECK(rays && workers, "%s", mvde_last_error());
    for (const mvde::internal::Kernel *kernel : testable_kernels()) {
        mvde::internal::force_kernel(kernel);
        for (const std::int32_t step : {1, 2, 7, 65536})
            for (const bool coloured : {false, true}) {
                const std::vector<float> expected = plain_points(depth, step, coloured ? rgb.values.data() : nullptr);
                CHECK(rays->num_values(step, coloured) == expected.size());
                for (mvde_workers *pool : {static_cast<mvde_workers *>(nullptr), workers->get()}) {
                    std::vector<float> found(expected.size(), -7.0F);
                    const long before = num_allocations;
                    const auto done = rays->points(depth, found, step, coloured ? &rgb.view : nullptr, pool);
                    CHECK(num_allocations == before);
                    CHECK(done, "%s", mvde_last_error());
                    CHECK(num_different(found, expected) == 0, "%s, step %d, coloured %d: %d values", kernel->name, step,
                          coloured, num_different(found, expected));
                }
            }
    }
    mvde::internal::force_kernel(nullptr);
}

TEST(lenses_have_the_same_bits_everywhere_and_bend_rays_to_their_pixels) {
    const std::vector<float> ones(static_cast<std::size_t>(kSize.height * kSize.width), 1.0F);
    auto rays = mvde::Rays::create(kCamera, &kLens);
    CHECK(rays, "%s", mvde_last_error());
    std::vector<float> expected;
    for (const mvde::internal::Kernel *kernel : testable_kernels()) {
        mvde::internal::force_kernel(kernel);
        std::vector<float> found(rays->num_values());
        CHECK(rays->points(ones, found), "%s", mvde_last_error());
        if (expected.empty()) expected = found;
        CHECK(num_different(found, expected) == 0, "%s", kernel->name);
    }
    mvde::internal::force_kernel(nullptr);
    const double *k = kLens.coefficients;
    for (std::size_t i = 0; i < ones.size(); i += 101) {  // OpenCV's model, forwards
        const double x = expected[3 * i], y = expected[3 * i + 1], r2 = x * x + y * y;
        const double radial = 1 + k[0] * r2 + k[1] * r2 * r2 + k[4] * r2 * r2 * r2;
        const double u = x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x);
        const double v = y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y;
        CHECK(std::fabs(u * kCamera.fx + kCamera.cx - static_cast<double>(i % 1043)) < 1e-3, "pixel %zu", i);
        CHECK(std::fabs(v * kCamera.fy + kCamera.cy - static_cast<double>(i / 1043)) < 1e-3, "pixel %zu", i);
    }
}

TEST(colours_come_from_frames_of_any_format) {
    constexpr mvde::Size even{20, 1042};
    const std::size_t num_pixels = 20 * 1042;
    auto rays = mvde::Rays::create({700, 700, 500, 10, even.height, even.width});
    const std::vector<float> ones(num_pixels, 1.0F);
    for (const auto format :
         {mvde::PixelFormat::bgr, mvde::PixelFormat::grey, mvde::PixelFormat::nv12, mvde::PixelFormat::yuyv}) {
        Bytes given(format, num_pixels * 3);
        given.view.height = even.height;
        given.view.width = even.width;
        // Resizing to the same size converts the format and nothing else.
        auto resizer = mvde::Resizer::create(format, even, even);
        std::vector<std::uint8_t> rgb(num_pixels * 3);
        CHECK(resizer && resizer->resize(given.view, rgb), "%s", mvde_last_error());
        for (const std::int32_t step : {1, 3}) {
            std::vector<float> points(rays->num_values(step, true));
            CHECK(rays->points(ones, points, step, &given.view), "%s", mvde_last_error());
            int num_wrong = 0;
            for (std::size_t i = 0, y = 0; y < 20; y += static_cast<std::size_t>(step))
                for (std::size_t x = 0; x < 1042; x += static_cast<std::size_t>(step), ++i) {
                    const std::uint8_t *pixel = &rgb[3 * (y * 1042 + x)];
                    num_wrong += bits_of(points[4 * i + 3]) != pixel[0] * 65536U + pixel[1] * 256U + pixel[2];
                }
            CHECK(num_wrong == 0, "format %d, step %d: %d", static_cast<int>(format), step, num_wrong);
        }
    }
}

TEST(a_session_gives_points_of_its_depth_and_allocates_nothing) {
    const Metric folder;
    mvde::SessionOptions options;
    options.frame = {40, 60};
    options.camera = mvde_camera{50, 51, 30, 20, 40, 60};
    for (const bool distorted : {false, true}) {
        if (distorted) options.distortion = kLens;
        auto session = mvde::Session::open(folder.path.string(), options);
        auto rays = mvde::Rays::create(*options.camera, distorted ? &kLens : nullptr);
        CHECK(session && rays, "%s", mvde_last_error());
        if (!session) return;
        CHECK(session->info().camera.fy == 51 && session->info().camera.width == 60);
        Frame frame({40, 60});
        std::vector<float> depth(session->num_depths()), points(session->num_point_values(2, true)), alone(points.size());
        mvde::Outputs outputs;
        outputs.depth_m = depth;
        outputs.points = points;
        outputs.points_step = 2;
        outputs.points_colours = &frame.view;
        CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
        std::vector<float> expected(rays->num_values(2, true));
        CHECK(rays->points(depth, expected, 2, &frame.view), "%s", mvde_last_error());
        CHECK(num_different(points, expected) == 0);
        outputs.depth_m = {};
        outputs.points = alone;
        const long before = num_allocations;
        CHECK(session->infer_async(frame.view) && session->wait(outputs), "%s", mvde_last_error());
        CHECK(num_allocations == before, "%ld allocations", num_allocations - before);
        CHECK(num_different(alone, expected) == 0);
    }
}

TEST(a_session_without_a_camera_has_points_only_if_its_kind_assumes_one) {
    const Metric folder;
    auto session = mvde::Session::open(folder.path.string());
    CHECK(session && session->info().camera.fx == 0, "%s", mvde_last_error());
    Frame frame({32, 48});
    std::vector<float> points(32 * 48 * 4);
    mvde::Outputs outputs;
    outputs.points = points;
    auto refused = session->infer(frame.view, outputs);
    CHECK(refused.error().status == MVDE_ERROR_UNSUPPORTED);
    CHECK(refused.error().message.find("needs the camera of the frames, which tiny does not assume") != std::string::npos,
          "%s", refused.error().message.c_str());
    const Metric focal(
        R"("depth_kind": "metric_focal", "unit": "m", "canonical_focal": 0.9, "focal_convention": "geometric")");
    auto assumed = mvde::Session::open(focal.path.string());
    CHECK(assumed && assumed->info().camera_assumed, "%s", mvde_last_error());
    const double focal_pixels = 0.9 * std::sqrt(32.0 * 48.0);
    const mvde_camera camera = assumed->info().camera;
    CHECK(camera.fx == focal_pixels && camera.fy == focal_pixels && camera.cx == 23.5 && camera.cy == 15.5);
    CHECK(assumed->infer(frame.view, outputs), "%s", mvde_last_error());
    const Metric relative(R"("depth_kind": "inverse_relative", "unit": "1/u")");
    mvde::SessionOptions options;
    options.camera = mvde_camera{50, 51, 24, 16, 32, 48};
    auto unscaled = mvde::Session::open(relative.path.string(), options);
    CHECK(unscaled, "%s", mvde_last_error());
    refused = unscaled->infer(frame.view, outputs);
    CHECK(refused.error().message.find("outputs.points needs a map in metres") != std::string::npos, "%s",
          refused.error().message.c_str());
    const mvde_anchor anchors[] = {{10, 10, 1.0F}, {40, 30, 2.5F}};
    frame.view.anchors = anchors;
    frame.view.num_anchors = 2;
    frame.fill(10);
    for (std::size_t i = 0; i < frame.bytes.size() / 2; ++i) frame.bytes[i] = 240;
    CHECK(unscaled->infer(frame.view, outputs), "%s", mvde_last_error());
}

TEST(arguments_that_do_not_fit_are_refused) {
    auto rays = mvde::Rays::create(kCamera);
    const std::vector<float> depth = depth_with_holes();
    std::vector<float> points(depth.size() * 4);
    const auto capacity = static_cast<std::int64_t>(points.size());
    mvde_points_options options;
    mvde_points_defaults(&options);
    const auto call = [&](const mvde_points_options &given, std::int64_t stride = 0, std::int64_t values = -1) {
        return mvde_points(rays->get(), depth.data(), stride, &given, points.data(), values < 0 ? capacity : values,
                           nullptr);
    };
    EXPECT(mvde_points(nullptr, depth.data(), 0, nullptr, points.data(), capacity, nullptr), MVDE_ERROR_ARGUMENT,
           "rays is NULL");
    EXPECT(mvde_points(rays->get(), nullptr, 0, nullptr, points.data(), capacity, nullptr), MVDE_ERROR_ARGUMENT,
           "depth_m is NULL");
    EXPECT(mvde_points(rays->get(), depth.data(), 0, nullptr, nullptr, capacity, nullptr), MVDE_ERROR_ARGUMENT,
           "points is NULL");
    EXPECT(call(options, 8), MVDE_ERROR_SHAPE, "the row stride is 8 bytes, but a row has 4172");
    EXPECT(call(options, 4174), MVDE_ERROR_ALIGNMENT, "multiples of 4 bytes");
    EXPECT(call(options, 0, 3 * 21 * 1043 - 1), MVDE_ERROR_CAPACITY, "points holds 65708 floats: expected 65709");
    mvde_points_options changed = options;
    changed.struct_size = 4;
    EXPECT(call(changed), MVDE_ERROR_ARGUMENT, "start from mvde_points_defaults()");
    changed = options;
    changed.step = 0;
    EXPECT(call(changed), MVDE_ERROR_ARGUMENT, "options.step is 0: expected 1 (every pixel) to 65536");
    Frame other({20, 1043});
    changed = options;
    changed.colours = &other.view;
    EXPECT(call(changed), MVDE_ERROR_SHAPE,
           "the frame of the colours is 20x1043 (HxW), but the camera's frames are 21x1043");
    EXPECT(mvde_points(rays->get(), points.data() + 8, 0, nullptr, points.data(), capacity, nullptr), MVDE_ERROR_OVERLAP,
           "points overlaps depth_m");
    mvde_rays *handle = nullptr;
    mvde_camera camera = kCamera;
    camera.fx = 0;
    EXPECT(mvde_rays_create(&camera, nullptr, &handle), MVDE_ERROR_ARGUMENT, "fx of a camera lies between 0 and 1e+09");
    camera = kCamera;
    camera.width = 1 << 20;
    EXPECT(mvde_rays_create(&camera, nullptr, &handle), MVDE_ERROR_SHAPE, "expected at most 65536 pixels a side");
    EXPECT(mvde_rays_create(nullptr, nullptr, &handle), MVDE_ERROR_ARGUMENT, "camera is NULL");
    mvde_distortion lens = kLens;
    lens.model = 4;
    EXPECT(mvde_rays_create(&kCamera, &lens, &handle), MVDE_ERROR_ARGUMENT, "distortion.model is 4");
    lens = kLens;
    lens.coefficients[6] = 0.5;
    EXPECT(mvde_rays_create(&kCamera, &lens, &handle), MVDE_ERROR_ARGUMENT, "the model has 5, expected 0 after them");
    lens.coefficients[6] = std::numeric_limits<double>::quiet_NaN();
    EXPECT(mvde_rays_create(&kCamera, &lens, &handle), MVDE_ERROR_ARGUMENT, "expected a number below 1e9");
    CHECK(mvde_rays_create(&kCamera, nullptr, &handle) == MVDE_OK);
    mvde_rays_destroy(handle);
    mvde_rays_destroy(handle);
    EXPECT(mvde_points(handle, depth.data(), 0, nullptr, points.data(), capacity, nullptr), MVDE_ERROR_CLOSED,
           "the rays were destroyed");
    CHECK(mvde_num_point_values(0, 4, 1, 0) == MVDE_ERROR_SHAPE && mvde_num_point_values(5, 4, 3, 1) == 2 * 2 * 4);
}

TEST(a_sessions_points_and_lens_are_checked_before_a_frame_runs) {
    const Metric folder;
    mvde::SessionOptions options;
    options.distortion = kLens;
    auto refused = mvde::Session::open(folder.path.string(), options);
    CHECK(!refused && refused.error().message.find("options.distortion is of no camera") != std::string::npos, "%s",
          refused.error().message.c_str());
    options.camera = mvde_camera{50, 51, 24, 16, 32, 48};
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", mvde_last_error());
    Frame frame({32, 48}), small({16, 48});
    std::vector<float> points(32 * 48 * 3);
    mvde_outputs outputs;
    mvde_outputs_defaults(&outputs);
    outputs.points = points.data();
    outputs.points_capacity = static_cast<std::int64_t>(points.size());
    const auto infer = [&] { return mvde_infer(session->get(), &frame.view, &outputs); };
    CHECK(infer() == MVDE_OK, "%s", mvde_last_error());
    outputs.points_step = 0;
    EXPECT(infer(), MVDE_ERROR_ARGUMENT, "outputs.points_step is 0");
    outputs.points_step = 1;
    outputs.points_colours = &frame.view;
    EXPECT(infer(), MVDE_ERROR_CAPACITY, "outputs.points_capacity is 4608, but points takes 6144 values");
    outputs.points_step = 2;
    outputs.points_colours = &small.view;
    EXPECT(infer(), MVDE_ERROR_SHAPE, "the frame is 16x48 (HxW) RGB, but the session was opened for 32x48");
    outputs.points_colours = nullptr;
    outputs.depth_m = points.data();
    outputs.depth_capacity = static_cast<std::int64_t>(points.size());
    EXPECT(infer(), MVDE_ERROR_OVERLAP, "the buffers of outputs overlap");
}

int main() { return harness::run_all(); }
