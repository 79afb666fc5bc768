// Distances by bearing of a session's frames, from depth at the network's resolution.
#include "error.hpp"
#include "kernel/dispatch.hpp"
#include "scan/settings.hpp"
#include "session/frame_camera.hpp"
#include "session/refused.hpp"
#include "session/session.hpp"

namespace mvde::internal {

// Computes the table of the mounting, for the part of the network's input that shows the frame.
void Session::place_scan(const mvde_scan_settings &settings, const mvde_distortion *lens) {
    if (!camera_)
        throw Refused(MVDE_ERROR_ARGUMENT, "options.scan needs the camera of the frames, which " + artifact_.manifest.name +
                                               " does not assume: give options.camera");
    check_settings(settings);
    const std::int64_t height = artifact_.manifest.height(), width = artifact_.manifest.width();
    const FrameView view{frame_height_, frame_width_, height, width, source_box_, target_box_};
    scanner_.emplace(Rays(input_camera(*camera_, view), lens), target_box_, settings);
}

std::int32_t Session::check_ranges(bool has_anchors) const {
    if (!scanner_)
        return fail(
            MVDE_ERROR_UNSUPPORTED,
            "outputs.ranges needs a session that knows how the camera is mounted: give it to mvde_open (options.scan)");
    return check_metres("ranges", has_anchors);
}

std::int32_t Session::write_ranges(float *ranges) {
    const Kernel *const kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    const auto row_bytes = scanner_->width() * static_cast<std::int64_t>(sizeof(float));
    scanner_->scan(*kernel, depth_.get(), row_bytes, ranges);
    return MVDE_OK;
}

std::int32_t Session::describe_scan(mvde_scan_info &info) const {
    if (!scanner_)
        return fail(MVDE_ERROR_UNSUPPORTED, "the session was opened without options.scan: it has no distances by bearing");
    scanner_->describe(info);
    return MVDE_OK;
}

}  // namespace mvde::internal
