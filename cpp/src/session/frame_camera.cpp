#include "session/frame_camera.hpp"

#include "session/json.hpp"
#include "session/refused.hpp"

#include <cmath>
#include <string>
#include <utility>

namespace mvde::internal {
namespace {

constexpr double kMaxPixels = 1e9;  // as in mvde/camera.py: a bogus number does not scale the depth

constexpr const char *kKinds[] = {"metric", "metric_focal", "inverse_canonical", "scale_invariant", "inverse_relative"};

double real(std::int64_t value) { return static_cast<double>(value); }

void refuse(const std::string &name, const char *low, const std::string &got) {
    throw Refused(MVDE_ERROR_ARGUMENT, name + " of a camera lies between " + low + " and 1e+09, but got " + got);
}

std::string size_text(std::int64_t height, std::int64_t width) {
    return std::to_string(height) + "x" + std::to_string(width);
}

mvde_camera cropped(mvde_camera camera, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) {
    return {camera.fx, camera.fy, camera.cx - real(left), camera.cy - real(top), height, width};
}

mvde_camera scaled(mvde_camera camera, std::int64_t height, std::int64_t width) {
    const double down = real(height) / real(camera.height), across = real(width) / real(camera.width);
    return {camera.fx * across,
            camera.fy * down,
            (camera.cx + 0.5) * across - 0.5,
            (camera.cy + 0.5) * down - 0.5,
            height,
            width};
}

double focal(const mvde_camera &camera, const std::string &convention) {
    if (convention == "geometric") return std::sqrt(camera.fx * camera.fy / real(camera.height * camera.width));
    return convention == "horizontal" ? camera.fx / real(camera.width) : (camera.fx + camera.fy) / 2;
}

// f / f_canonical if the canonical camera is that of the whole frame; derived in mvde/runtime/frame_camera.py.
double assumed_factor(const std::string &convention, const FrameView &view) {
    const double down = real(view.target.bottom - view.target.top) / real(view.source.bottom - view.source.top);
    const double across = real(view.target.right - view.target.left) / real(view.source.right - view.source.left);
    const double whole_down = real(view.model_height) / real(view.frame_height);
    const double whole_across = real(view.model_width) / real(view.frame_width);
    if (convention == "geometric") return std::sqrt(across / whole_across * (down / whole_down));
    return convention == "horizontal" ? across / whole_across : (across + down) / (whole_across + whole_down);
}

}  // namespace

mvde_camera input_camera(const mvde_camera &camera, const FrameView &view) {
    const mvde_box &source = view.source, &target = view.target;
    const mvde_camera seen = cropped(camera, source.top, source.left, source.bottom - source.top,
                                     source.right - source.left);
    check_camera(seen);
    const mvde_camera inner = scaled(seen, target.bottom - target.top, target.right - target.left);
    check_camera(inner);
    return cropped(inner, -target.top, -target.left, view.model_height, view.model_width);
}

void check_camera(const mvde_camera &camera) {
    const auto check = [](const char *name, double value, double low, const char *low_text) {
        if (!(low < value && value < kMaxPixels)) refuse(name, low_text, std::isnan(value) ? "nan" : repr(value));
    };
    check("fx", camera.fx, 0.0, "0");
    check("fy", camera.fy, 0.0, "0");
    check("cx", camera.cx, -kMaxPixels, "-1e+09");
    check("cy", camera.cy, -kMaxPixels, "-1e+09");
    for (const auto &[name, side] : {std::pair{"height", camera.height}, std::pair{"width", camera.width}})
        if (side <= 0 || real(side) >= kMaxPixels) refuse(name, "0", std::to_string(side));
}

double camera_factor(const Manifest &manifest, const mvde_camera *camera, const FrameView &view) {
    if (camera && (camera->height != view.frame_height || camera->width != view.frame_width))
        throw Refused(MVDE_ERROR_ARGUMENT, "the camera is of frames of " + size_text(camera->height, camera->width) +
                                               ", but this frame is " + size_text(view.frame_height, view.frame_width) +
                                               "; give the camera of this frame (options.camera)");
    if (!manifest.canonical_focal) return 1.0;
    if (!camera) return assumed_factor(manifest.focal_convention, view);
    return focal(input_camera(*camera, view), manifest.focal_convention) / *manifest.canonical_focal;
}

std::optional<mvde_camera> assumed_camera(const Manifest &manifest, const FrameView &view) {
    if (!manifest.canonical_focal) return std::nullopt;
    const double canonical = *manifest.canonical_focal, height = real(view.frame_height), width = real(view.frame_width);
    double focal_pixels = 2 * canonical / (real(view.model_width) / width + real(view.model_height) / height);
    if (manifest.focal_convention == "geometric") focal_pixels = canonical * std::sqrt(height * width);
    if (manifest.focal_convention == "horizontal") focal_pixels = canonical * width;
    return mvde_camera{focal_pixels, focal_pixels, (width - 1) / 2, (height - 1) / 2, view.frame_height, view.frame_width};
}

bool is_inverse(mvde_depth_kind kind) { return kind == MVDE_INVERSE_CANONICAL || kind == MVDE_INVERSE_RELATIVE; }

double map_scale(mvde_depth_kind kind, double factor) { return is_inverse(kind) ? 1 / factor : factor; }

mvde_depth_kind depth_kind_of(const Manifest &manifest) {
    std::int32_t kind = 0;
    while (kind < MVDE_INVERSE_RELATIVE && manifest.depth_kind != kKinds[kind]) ++kind;
    return static_cast<mvde_depth_kind>(kind);
}

}  // namespace mvde::internal
