// Frames and results in device memory: what a session refuses of them, and the backend's calls.
#include "error.hpp"
#include "session/frame_camera.hpp"
#include "session/session.hpp"

namespace mvde::internal {

std::int32_t Session::bind_device(const mvde_frame &frame, const mvde_outputs &outputs) {
    if (const std::int32_t status = check_idle()) return status;
    if (!backend_->bind_device)
        return fail(MVDE_ERROR_UNSUPPORTED, "%s engines do not take device memory: use mvde_infer", backend_->title);
    if (maps_->needs_others())
        return fail(MVDE_ERROR_UNSUPPORTED, "device memory takes depth alone, but %s also has %s: use mvde_infer",
                    artifact_.manifest.name.c_str(), maps_->others().c_str());
    if (stabilizer_)
        return fail(MVDE_ERROR_UNSUPPORTED, "frames in device memory are not stabilized: open a session without "
                                            "options.stabilization, or use mvde_infer");
    if (floor_rays_)
        return fail(MVDE_ERROR_UNSUPPORTED, "device memory keeps maps from the host, where the floor of options.floor is "
                                            "measured: use mvde_infer");
    if (columns_->has_intervals())
        return fail(MVDE_ERROR_UNSUPPORTED, "device memory has no %s, which the host computes: use mvde_infer",
                    columns_->names().c_str());
    OutputExtents extents;
    const std::int64_t height = artifact_.manifest.height(), width = artifact_.manifest.width();
    if (const std::int32_t status = check_outputs(outputs, height, width, num_stats(), 0, extents)) return status;
    if (outputs.depth_mm || outputs.points || outputs.ranges)
        return fail(MVDE_ERROR_UNSUPPORTED, "outputs.%s must be NULL: device memory takes depth_m and stats",
                    outputs.points   ? "points"
                    : outputs.ranges ? "ranges"
                                     : "depth_mm");
    if (!own_.is_scaling() || frame.num_anchors)
        return fail(MVDE_ERROR_UNSUPPORTED, "device memory scales maps, but %s of %s does more: use mvde_infer",
                    frame.num_anchors ? "anchors" : "this calibration", artifact_.manifest.depth_kind.c_str());
    mvde_frame complete;
    if (const std::int32_t status = check_apart(frame, extents, complete)) return status;
    if (const std::int32_t status = check_frame_is(frame, format_, frame_height_, frame_width_)) return status;
    is_bound_ = false;
    mvde_backend_message message{};
    const std::int32_t status = backend_->bind_device(engine_.engine, &complete, &outputs, &engine_.execution, &message);
    if (status) return failed(status, message);
    is_bound_ = true;
    return MVDE_OK;
}

std::int32_t Session::infer_device(void *stream) {
    if (const std::int32_t status = check_idle()) return status;
    if (!backend_->infer_device)
        return fail(MVDE_ERROR_UNSUPPORTED, "%s engines do not take device memory: use mvde_infer", backend_->title);
    if (!is_bound_) return fail(MVDE_ERROR_IDLE, "no device memory is bound: bind it with mvde_bind_device");
    mvde_backend_message message{};
    const std::int32_t status = backend_->infer_device(engine_.engine, stream, &message);
    return status ? failed(status, message) : MVDE_OK;
}

}  // namespace mvde::internal
