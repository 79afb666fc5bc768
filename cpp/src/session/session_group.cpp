// What a group of sessions with a deadline needs of each: what its network takes, and one unit of gradients.
#include "session/refused.hpp"
#include "session/session.hpp"

#include <chrono>
#include <cstring>
#include <string>
#include <tuple>

namespace mvde::internal {

// What is of the frames alone, their size and fit, was checked when the sessions were opened.
void Session::check_calibrated_as(const Session &other) const {
    if (!calibration_) return;
    const auto size_text = [](const Calibration &one) {
        return std::to_string(one.height) + "x" + std::to_string(one.width);
    };
    const auto refuse_if = [&](bool differ, const char *what) {
        if (differ)
            throw Refused(MVDE_ERROR_INCOMPATIBLE, "the calibrations of " + other.calibration_->name + " " +
                                                       size_text(*other.calibration_) + " and " + size_text(*calibration_) +
                                                       " differ in " + what +
                                                       "; calibrate engines with a deadline on the same frames");
    };
    const auto numbers = [](const Calibration &one) {
        const mvde_camera camera = one.camera.value_or(mvde_camera{});
        return std::make_tuple(camera.fx, camera.fy, camera.cx, camera.cy, one.frame_height, one.frame_width);
    };
    refuse_if(numbers(*calibration_) != numbers(*other.calibration_), "the camera");
    refuse_if(calibration_->scale.has_value() != other.calibration_->scale.has_value(), "having a scale");
}

// Runs the network on its input, and notes what it took.
std::int32_t Session::run() {
    mvde_backend_message message{};
    const auto begun = std::chrono::steady_clock::now();
    if (const std::int32_t status = backend_->infer(engine_.engine, &message)) return failed(status, message);
    network_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begun).count();
    return MVDE_OK;
}

std::int32_t Session::run_blank(double &network_ms) {
    std::memset(engine_.images, 0, static_cast<std::size_t>(artifact_.manifest.height() * artifact_.manifest.width() * 3));
    const std::int32_t status = run();
    network_ms = network_ms_;
    return status;
}

void Session::scale_grad(float *stats, float factor) const {
    for (std::size_t column = 0; column < stats_.size(); ++column)
        if (stats_[column] == MVDE_GRAD)
            for (std::int64_t patch = 0; patch < num_patches(); ++patch)
                stats[static_cast<std::size_t>(patch) * stats_.size() + column] *= factor;
}

}  // namespace mvde::internal
