// How a session's frames become depth: the camera, and a calibration or anchors that give them metres.
#include "session/columns.hpp"
#include "session/frame_camera.hpp"
#include "session/session.hpp"

namespace mvde::internal {

void Session::choose_columns(const mvde_session_options &options) {
    const Intervals *intervals = calibration_ && calibration_->intervals ? &*calibration_->intervals : nullptr;
    columns_.emplace(chosen_columns(options, artifact_.manifest), intervals, calibration_.has_value(), num_patches());
    stats_ = columns_->base();
    maps_.emplace(artifact_.manifest, stats_);
}

// Places the camera, and gives the map the metres of the calibration.
void Session::calibrate(const mvde_session_options &options) {
    const mvde_camera *camera = options.camera;
    if (calibration_) {
        check_engine(*calibration_, artifact_.manifest);
        if (!camera && calibration_->camera) camera = &*calibration_->camera;
        check_frames(*calibration_, frame_height_, frame_width_, fit_, camera);
    }
    place_camera(camera, options.distortion);
    columns_->check_camera(camera != nullptr, camera_factor_, calibration_ && calibration_->is_of_any_camera());
    if (options.scan) place_scan(*options.scan, options.distortion);
    if (calibration_ && calibration_->scale) {
        const bool is_reciprocal = is_inverse(own_.kind);
        own_ = {MVDE_METRIC,
                {own_.metres.scale * *calibration_->scale, calibration_->shift},
                is_reciprocal,
                calibration_->describes()};
    }
    if (options.floor) place_floor(*options.floor, options.distortion);
}

void Session::place_camera(const mvde_camera *camera, const mvde_distortion *lens) {
    const Manifest &manifest = artifact_.manifest;
    const FrameView view{frame_height_, frame_width_, manifest.height(), manifest.width(), source_box_, target_box_};
    camera_factor_ = camera_factor(manifest, camera, view);
    camera_assumed_ = manifest.canonical_focal && !camera;
    camera_ = camera ? *camera : assumed_camera(manifest, view);
    if (camera_) rays_.emplace(*camera_, lens);
    own_.kind = depth_kind_of(manifest);
    own_.metres.scale = map_scale(own_.kind, camera_factor_);
    depth_.reset(new float[static_cast<std::size_t>(manifest.height() * manifest.width())]);
    metres_.reset(new float[static_cast<std::size_t>(frame_height_ * frame_width_)]);
}

// Chooses how the last frame's map becomes depth: by its anchors, if it has any, else by the floor, if that is known.
std::int32_t Session::view_frame() {
    view_ = own_;
    floor_ = {sizeof floor_, MVDE_FLOOR_OFF, 1.0, 0.0, 0.0};
    if (anchors_.empty()) return floor_rays_ ? scale_by_floor() : MVDE_OK;
    const mvde_depth_kind kind = depth_kind_of(artifact_.manifest);
    view_ = {MVDE_METRIC, {}, is_inverse(kind), MVDE_ANCHORS};
    const MapView map{engine_.maps[0], artifact_.manifest.width(), source_box_, target_box_};
    return anchors_.solve(kind, map_scale(kind, camera_factor_), map, view_.metres);
}

}  // namespace mvde::internal
