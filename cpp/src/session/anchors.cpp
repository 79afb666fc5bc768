#include "session/anchors.hpp"

#include "error.hpp"
#include "session/frame_camera.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mvde::internal {
namespace {

constexpr std::int32_t kMaxAnchors = 4096;
constexpr int kNumRounds = 100;
constexpr double kKnee = 0.02, kMinDistanceRatio = 1.5, kSmallestDeterminant = 1e-9;

const char *name_of(mvde_depth_kind kind) {
    constexpr const char *kNames[] = {"metric", "metric_focal", "inverse_canonical", "scale_invariant", "inverse_relative"};
    return kNames[kind];
}

bool has_value(double x) { return 0 < x && x < std::numeric_limits<double>::infinity(); }

// The map at pixel (x, y) of the frame, bilinear; 0 outside the view, or where a neighbour has no value.
double sampled(const MapView &view, double x, double y) {
    const auto real = [](std::int64_t value) { return static_cast<double>(value); };
    const mvde_box &source = view.source, &target = view.target;
    if (!(real(source.left) - 0.5 <= x && x < real(source.right) - 0.5 && real(source.top) - 0.5 <= y &&
          y < real(source.bottom) - 0.5))
        return 0.0;
    const std::int64_t height = target.bottom - target.top, width = target.right - target.left;
    double across = (x - real(source.left) + 0.5) * real(width) / real(source.right - source.left) - 0.5;
    double down = (y - real(source.top) + 0.5) * real(height) / real(source.bottom - source.top) - 0.5;
    across = std::min(std::max(across, 0.0), real(width) - 1.0);
    down = std::min(std::max(down, 0.0), real(height) - 1.0);
    const auto left = static_cast<std::int64_t>(across), top = static_cast<std::int64_t>(down);
    const std::int64_t right = std::min(left + 1, width - 1), bottom = std::min(top + 1, height - 1);
    const auto at = [&](std::int64_t row, std::int64_t column) {
        return static_cast<double>(view.raw[(target.top + row) * view.width + target.left + column]);
    };
    const double taps[] = {at(top, left), at(top, right), at(bottom, left), at(bottom, right)};
    if (!std::all_of(std::begin(taps), std::end(taps), has_value)) return 0.0;
    const double u = across - real(left), v = down - real(top);
    const double upper = taps[0] + u * (taps[1] - taps[0]), lower = taps[2] + u * (taps[3] - taps[2]);
    return upper + v * (lower - upper);
}

// Sorts the values.
double median_of(std::vector<double> &values) {
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace

Anchors::Anchors() {
    anchors_.reserve(kMaxAnchors);
    values_.reserve(kMaxAnchors);
    depths_m_.reserve(kMaxAnchors);
    weights_.reserve(kMaxAnchors);
}

std::int32_t Anchors::take(const mvde_frame &frame, std::int64_t height, std::int64_t width) {
    const std::int32_t count = frame.num_anchors;
    if (count < 0 || count > kMaxAnchors)
        return fail(MVDE_ERROR_ARGUMENT, "a frame takes 1 to %d anchors, but got %d", kMaxAnchors, count);
    if (count && !frame.anchors) return fail(MVDE_ERROR_ARGUMENT, "frame.anchors is NULL, but num_anchors is %d", count);
    for (std::int32_t i = 0; i < count; ++i) {
        const double x = frame.anchors[i].x, y = frame.anchors[i].y, depth_m = frame.anchors[i].depth_m;
        if (!(-0.5 <= x && x < static_cast<double>(width) - 0.5 && -0.5 <= y && y < static_cast<double>(height) - 0.5))
            return fail(MVDE_ERROR_ARGUMENT, "anchor %d at x %g, y %g is outside the frame of %lld columns and %lld rows", i,
                        x, y, static_cast<long long>(width), static_cast<long long>(height));
        if (!has_value(depth_m))
            return fail(MVDE_ERROR_ARGUMENT, "anchor %d is at %g m, but expected a positive number", i, depth_m);
    }
    anchors_.assign(frame.anchors, frame.anchors + count);
    return MVDE_OK;
}

std::int32_t Anchors::solve(mvde_depth_kind kind, double map_scale, const MapView &view, Metres &metres) {
    values_.clear();
    depths_m_.clear();
    for (const mvde_anchor &anchor : anchors_) {
        const double value = sampled(view, anchor.x, anchor.y);
        if (!(value > 0)) continue;
        values_.push_back(value * map_scale);
        depths_m_.push_back(anchor.depth_m);
    }
    const std::size_t num_unknowns = kind == MVDE_INVERSE_RELATIVE ? 2 : 1;
    if (values_.size() < num_unknowns)
        return fail(MVDE_ERROR_ARGUMENT,
                    "a map of kind %s needs %zu points or more where it has a value, but got %zu; measure more points",
                    name_of(kind), num_unknowns, values_.size());
    metres = {};
    if (kind == MVDE_INVERSE_RELATIVE) {
        if (const std::int32_t status = solve_inverse(metres)) return status;
    } else {
        weights_.clear();
        for (std::size_t i = 0; i < values_.size(); ++i)
            weights_.push_back(is_inverse(kind) ? 1 / (values_[i] * depths_m_[i]) : depths_m_[i] / values_[i]);
        metres.scale = median_of(weights_);
    }
    metres.scale = map_scale * metres.scale;
    return MVDE_OK;
}

// Minimises the relative error |(scale * value + shift) * depth - 1|, with less weight on large errors.
std::int32_t Anchors::solve_inverse(Metres &metres) {
    const auto [nearest, farthest] = std::minmax_element(depths_m_.begin(), depths_m_.end());
    if (*farthest < kMinDistanceRatio * *nearest)
        return fail(
            MVDE_ERROR_ARGUMENT,
            "scale and shift need distances that differ, but all points are between %.3g and %.3g m; measure some at "
            "%g times the distance of the nearest, or farther",
            *nearest, *farthest, kMinDistanceRatio);
    weights_.assign(values_.size(), 1.0);
    double scale = 0.0, shift = 0.0;
    for (int round = 0; round < kNumRounds; ++round) {
        double a = 0.0, b = 0.0, c = 0.0, p = 0.0, q = 0.0;
        for (std::size_t i = 0; i < values_.size(); ++i) {
            const double first = values_[i] * depths_m_[i], second = depths_m_[i];
            const double weighted_first = weights_[i] * first, weighted_second = weights_[i] * second;
            a += weighted_first * first;
            b += weighted_first * second;
            c += weighted_second * second;
            p += weighted_first;
            q += weighted_second;
        }
        const double determinant = a * c - b * b;
        if (!(determinant > kSmallestDeterminant * (a * c)))
            return fail(MVDE_ERROR_ARGUMENT,
                        "the map has the same value at all points, so they do not determine scale and shift; check the "
                        "pixels, or measure points at other distances");
        const double previous_scale = scale, previous_shift = shift;
        scale = (p * c - q * b) / determinant;
        shift = (a * q - b * p) / determinant;
        if (scale == previous_scale && shift == previous_shift) break;
        for (std::size_t i = 0; i < values_.size(); ++i) {
            const double error = std::abs(scale * (values_[i] * depths_m_[i]) + shift * depths_m_[i] - 1);
            weights_[i] = kKnee / std::max(error, kKnee);
        }
    }
    const bool grows = std::all_of(values_.begin(), values_.end(), [&](double x) { return scale * x + shift > 0; });
    if (!(scale > 0 && grows))
        return fail(MVDE_ERROR_ARGUMENT,
                    "the points contradict the map: it does not grow where they come nearer (scale %.3g, shift %.3g); check "
                    "that pixels are x (column), y (row), and distances are in metres",
                    scale, shift);
    metres = {scale, shift};
    return MVDE_OK;
}

}  // namespace mvde::internal
