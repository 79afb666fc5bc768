// Scale from the floor of a session's frames.
#include "error.hpp"
#include "floor/floor.hpp"
#include "session/frame_camera.hpp"
#include "session/refused.hpp"
#include "session/session.hpp"

#include <string>

namespace mvde::internal {

// Places the camera over the floor, for the part of the network's input that shows the frame.
void Session::place_floor(const mvde_mounting &mounting, const mvde_distortion *lens) {
    const Manifest &manifest = artifact_.manifest;
    if (!camera_)
        throw Refused(MVDE_ERROR_ARGUMENT, "options.floor needs the camera of the frames, which " + manifest.name +
                                               " does not assume: give options.camera");
    if (!own_.is_metric())
        throw Refused(MVDE_ERROR_UNSUPPORTED, "options.floor needs a map in metres, but that of " + manifest.name + " is " +
                                                  manifest.depth_kind + ", in the unit " + manifest.unit +
                                                  ": give it metres by a calibration (mvde calibrate)");
    check_mounting(mounting);
    const FrameView view{frame_height_, frame_width_, manifest.height(), manifest.width(), source_box_, target_box_};
    floor_rays_.emplace(input_camera(*camera_, view), lens);
    mounting_ = mounting;
}

std::int32_t Session::mount(const mvde_mounting *mounting) {
    if (!floor_rays_)
        return fail(MVDE_ERROR_UNSUPPORTED,
                    "the session was opened without options.floor: the floor does not give its depth a scale");
    if (!mounting) {
        mounting_.reset();
        return MVDE_OK;
    }
    if (mounting->struct_size != sizeof *mounting)
        return fail(MVDE_ERROR_ARGUMENT, "mounting.struct_size is %u: start from mvde_mounting_defaults()",
                    mounting->struct_size);
    try {
        check_mounting(*mounting);
    } catch (const Refused &error) {
        return fail(error.status, "%s", error.what());
    }
    mounting_ = *mounting;
    return MVDE_OK;
}

std::int32_t Session::refuse_device_floor() const {
    return fail(MVDE_ERROR_UNSUPPORTED,
                "device memory keeps maps from the host, where the floor of options.floor is measured: use mvde_infer");
}

// Gives the last frame's view the scale of the floor in its depth.
std::int32_t Session::scale_by_floor() {
    floor_.status = MVDE_FLOOR_UNKNOWN;
    if (frame_mounting_) {
        if (const std::int32_t status = postprocess(nullptr)) return status;
        const auto row_bytes = artifact_.manifest.width() * static_cast<std::int64_t>(sizeof(float));
        floor_ = floor_of(*floor_rays_, target_box_, *frame_mounting_, depth_.get(), row_bytes);
    }
    if (stabilizer_) floor_ = steady_scale_->update(floor_, stabilizer_->num_frames() == 1);
    const double factor = view_.is_reciprocal ? 1 / floor_.scale : floor_.scale;
    view_.metres.scale *= factor;
    view_.metres.shift *= factor;
    return MVDE_OK;
}

}  // namespace mvde::internal
