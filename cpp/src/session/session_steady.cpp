// Steady depth of a session's frames: the network's map is made steady before depth and statistics are computed of it.
#include "error.hpp"
#include "kernel/dispatch.hpp"
#include "session/frame_camera.hpp"
#include "session/session.hpp"

namespace mvde::internal {
namespace {

// Values of rows x columns pixels times the scale plus the shift, and back; what is no value stays.
void enter_unit(float *map, std::int64_t rows, std::int64_t columns, std::int64_t stride, const Metres &unit) {
    const auto scale = static_cast<float>(unit.scale), shift = static_cast<float>(unit.shift);
    for (std::int64_t y = 0; y < rows; ++y)
        for (float *x = map + y * stride; x < map + y * stride + columns; ++x)
            if (*x > 0.0F) *x = *x * scale + shift;
}

void leave_unit(float *map, std::int64_t rows, std::int64_t columns, std::int64_t stride, const Metres &unit) {
    const auto scale = static_cast<float>(unit.scale), shift = static_cast<float>(unit.shift);
    for (std::int64_t y = 0; y < rows; ++y)
        for (float *x = map + y * stride; x < map + y * stride + columns; ++x)
            if (*x > 0.0F) *x = (*x - shift) / scale;
}

}  // namespace

void Session::place_stabilizer(const mvde_stabilization &settings) {
    stabilizer_ = std::make_shared<Stabilizer>(depth_kind_of(artifact_.manifest), settings);
    reserve_stabilizer();
}

void Session::go_on_with(const Session &other) {
    check_calibrated_as(other);
    if (calibration_ && calibration_->scale) {
        const double first = *other.calibration_->scale;
        map_unit_ = {*calibration_->scale / first, (calibration_->shift - other.calibration_->shift) / first};
    }
    stabilizer_ = other.stabilizer_;
    steady_scale_ = other.steady_scale_;
    reserve_stabilizer();
}

void Session::reserve_stabilizer() {
    const std::int64_t height = target_box_.bottom - target_box_.top, width = target_box_.right - target_box_.left;
    if (stabilizer_) stabilizer_->reserve(height, width, width);
}

std::int32_t Session::check_time(double time_s) const { return stabilizer_ ? stabilizer_->check_time(time_s) : MVDE_OK; }

// The picture is the frame's part of the network's input, as it was resized.
std::int32_t Session::stabilize() {
    if (!stabilizer_) return MVDE_OK;
    const Kernel *const kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    const std::int64_t width = artifact_.manifest.width(), first = target_box_.top * width + target_box_.left;
    const std::int64_t rows = target_box_.bottom - target_box_.top, columns = target_box_.right - target_box_.left;
    float *const map = engine_.maps[0] + first;
    const Picture picture{engine_.images + 3 * first, rows, columns, 3 * width};
    const bool is_in_own_unit = map_unit_.scale == 1.0 && map_unit_.shift == 0.0;
    if (!is_in_own_unit) enter_unit(map, rows, columns, width, map_unit_);
    stabilizer_->update(*kernel, picture, {map, rows, columns, width}, 0, time_s_, map, width);
    if (!is_in_own_unit) leave_unit(map, rows, columns, width, map_unit_);
    return MVDE_OK;
}

std::int32_t Session::reset() {
    if (const std::int32_t status = check_idle()) return status;
    if (stabilizer_) stabilizer_->reset();
    return MVDE_OK;
}

}  // namespace mvde::internal
