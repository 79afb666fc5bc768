// Steady depth of a session's frames: the network's map is made steady before depth and statistics are computed of it.
#include "error.hpp"
#include "kernel/dispatch.hpp"
#include "session/frame_camera.hpp"
#include "session/session.hpp"

namespace mvde::internal {

void Session::place_stabilizer(const mvde_stabilization &settings) {
    stabilizer_ = std::make_shared<Stabilizer>(depth_kind_of(artifact_.manifest), settings);
    reserve_stabilizer();
}

void Session::go_on_with(const Session &other) {
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
    stabilizer_->update(*kernel, picture, {map, rows, columns, width}, 0, time_s_, map, width);
    return MVDE_OK;
}

std::int32_t Session::reset() {
    if (const std::int32_t status = check_idle()) return status;
    if (stabilizer_) stabilizer_->reset();
    return MVDE_OK;
}

}  // namespace mvde::internal
