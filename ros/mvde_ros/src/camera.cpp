#include <mvde_ros/camera.hpp>
#include <mvde_ros/image.hpp>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace mvde_ros {
namespace {

// x' = scale * x + shift.
struct Affine {
    double scale = 1, shift = 0;
};

Affine after(Affine outer, Affine inner) { return {outer.scale * inner.scale, outer.scale * inner.shift + outer.shift}; }

// From the calibrated image to the frame, and the frame's size.
struct Window {
    Affine x, y;
    mvde::Size size;
};

Window window_of(const CameraInfo &info) {
    const int64_t across = std::max<int64_t>(1, info.binning_x), down = std::max<int64_t>(1, info.binning_y);
    const bool is_whole = !info.roi_height || !info.roi_width;
    const auto axis = [&](int64_t binning, int64_t offset) {
        const auto scale = 1 / static_cast<double>(binning);
        return Affine{scale, is_whole ? 0 : -static_cast<double>(offset) * scale};
    };
    const int64_t height = is_whole ? info.height : info.roi_height, width = is_whole ? info.width : info.roi_width;
    return {axis(across, info.roi_x), axis(down, info.roi_y), {height / down, width / across}};
}

std::string text(mvde::Size size) { return std::to_string(size.height) + "x" + std::to_string(size.width); }

// The lens's distortion for libmvde, or the reason why it has none of that kind.
std::optional<mvde_distortion> distortion_of(const CameraInfo &info, std::string &problem) {
    struct Model {
        const char *name;
        int32_t id;
        std::size_t num_coefficients;
    };
    constexpr Model kModels[] = {{"plumb_bob", MVDE_PLUMB_BOB, 5},
                                 {"rational_polynomial", MVDE_RATIONAL_POLYNOMIAL, 8},
                                 {"equidistant", MVDE_EQUIDISTANT, 4}};
    for (const Model &model : kModels) {
        if (info.distortion_model != model.name) continue;
        const auto is_zero = [](double value) { return value == 0; };
        const std::size_t num_used = std::min(info.d.size(), model.num_coefficients);
        if (!std::all_of(info.d.begin() + static_cast<std::ptrdiff_t>(num_used), info.d.end(), is_zero)) {
            problem = info.distortion_model + " has " + std::to_string(info.d.size()) +
                      " coefficients, of which the first " + std::to_string(model.num_coefficients) +
                      " are known here: rectify the images with image_proc";
            return std::nullopt;
        }
        mvde_distortion distortion{model.id, 0, {}};
        std::copy_n(info.d.begin(), num_used, distortion.coefficients);
        return distortion;
    }
    problem = "the distortion model is \"" + info.distortion_model +
              "\", but plumb_bob, rational_polynomial or equidistant was expected: rectify the images with image_proc";
    return std::nullopt;
}

}  // namespace

bool is_rectified_topic(const std::string &topic) {
    const std::size_t slash = topic.rfind('/');
    return topic.compare(slash == std::string::npos ? 0 : slash + 1, 10, "image_rect") == 0;
}

std::optional<FrameCamera> frame_camera(const CameraInfo &info, mvde::Size size, bool is_rectified_topic) {
    const bool has_distortion = std::any_of(info.d.begin(), info.d.end(), [](double value) { return value != 0; });
    FrameCamera found;
    found.is_rectified = is_rectified_topic || !has_distortion;
    const bool is_p = found.is_rectified && info.p[0] != 0;
    const double fx = is_p ? info.p[0] : info.k[0], cx = is_p ? info.p[2] : info.k[2];
    const double fy = is_p ? info.p[5] : info.k[4], cy = is_p ? info.p[6] : info.k[5];
    if (fx == 0) return std::nullopt;
    const Window window = window_of(info);
    if (window.size.height != size.height || window.size.width != size.width)
        throw Refused("the camera_info is of images of " + text(window.size) + ", but the image is " + text(size) +
                      ": let the driver publish the camera_info of this resolution, or set binning and roi in it");
    found.camera = {
        fx * window.x.scale, fy * window.y.scale, cx * window.x.scale + window.x.shift, cy * window.y.scale + window.y.shift,
        size.height,         size.width};
    if (!(fx > 0 && fy > 0 && std::isfinite(fx * fy) && std::isfinite(cx) && std::isfinite(cy))) {
        std::ostringstream said;
        said << "the camera_info has focal lengths " << fx << " and " << fy << " and the principal point " << cx << ", "
             << cy
             << ", but positive focal lengths and finite numbers were expected: calibrate the camera (camera_calibration)";
        throw Refused(said.str());
    }
    if (!found.is_rectified) found.distortion = distortion_of(info, found.problem);
    return found;
}

CameraInfo info_of(const FrameCamera &camera) {
    CameraInfo info;
    const mvde_camera &pinhole = camera.camera;
    info.height = pinhole.height;
    info.width = pinhole.width;
    info.k = {pinhole.fx, 0, pinhole.cx, 0, pinhole.fy, pinhole.cy, 0, 0, 1};
    info.p = {pinhole.fx, 0, pinhole.cx, 0, 0, pinhole.fy, pinhole.cy, 0, 0, 0, 1, 0};
    info.distortion_model = "plumb_bob";
    info.d.assign(5, 0);
    return info;
}

CameraInfo grid_info(const CameraInfo &info, const mvde_session_info &session) {
    // Through the box of the frame that the model sees, the box of its input that it fills, and the patches.
    const auto into_grid = [&](int64_t start, int64_t end, int64_t target_start, int64_t target_end) {
        const double scale = static_cast<double>(target_end - target_start) / static_cast<double>(end - start);
        const double cell = 1.0 / session.patch_size;
        return Affine{scale * cell,
                      ((0.5 - static_cast<double>(start)) * scale + static_cast<double>(target_start)) * cell - 0.5};
    };
    const mvde_box &source = session.source_box, &target = session.target_box;
    const Window window = window_of(info);
    const Affine x = after(into_grid(source.left, source.right, target.left, target.right), window.x);
    const Affine y = after(into_grid(source.top, source.bottom, target.top, target.bottom), window.y);
    CameraInfo grid = info;
    for (std::size_t column = 0; column < 3; ++column) {
        grid.k[column] = x.scale * info.k[column] + x.shift * info.k[6 + column];
        grid.k[3 + column] = y.scale * info.k[3 + column] + y.shift * info.k[6 + column];
    }
    for (std::size_t column = 0; column < 4; ++column) {
        grid.p[column] = x.scale * info.p[column] + x.shift * info.p[8 + column];
        grid.p[4 + column] = y.scale * info.p[4 + column] + y.shift * info.p[8 + column];
    }
    grid.height = session.grid_rows;
    grid.width = session.grid_columns;
    grid.binning_x = grid.binning_y = 0;
    grid.roi_x = grid.roi_y = grid.roi_height = grid.roi_width = 0;
    return grid;
}

}  // namespace mvde_ros
