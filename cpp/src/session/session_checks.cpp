// What a session checks of the outputs that a frame is to fill, before it runs.
#include "error.hpp"
#include "session/session.hpp"

namespace mvde::internal {

std::int32_t Session::check_results(const mvde_outputs &outputs, bool has_anchors, OutputExtents &extents) const {
    const std::int64_t num_bearings = scanner_ ? scanner_->num_bearings() : 0;
    if (const std::int32_t status = check_outputs(outputs, frame_height_, frame_width_, num_stats(), num_bearings, extents))
        return status;
    if (outputs.stats && has_anchors && columns_->has_intervals())
        return fail(MVDE_ERROR_UNSUPPORTED,
                    "anchors take the place of the calibration, whose %s do not hold then; leave the anchors or these "
                    "statistics out",
                    columns_->names().c_str());
    if (outputs.depth_mm)
        if (const std::int32_t status = check_metres("depth_mm", has_anchors)) return status;
    if (outputs.ranges)
        if (const std::int32_t status = check_ranges(has_anchors)) return status;
    return outputs.points ? check_points(outputs, has_anchors, extents) : MVDE_OK;
}

// Checks that frames have metres, which an output needs.
std::int32_t Session::check_metres(const char *output, bool has_anchors) const {
    if (has_anchors || own_.is_metric()) return MVDE_OK;
    return fail(MVDE_ERROR_UNSUPPORTED,
                "outputs.%s needs a map in metres, but that of %s is %s, in the unit %s: use depth_m, or give it metres by "
                "a calibration (mvde calibrate) or anchors",
                output, artifact_.manifest.name.c_str(), artifact_.manifest.depth_kind.c_str(),
                artifact_.manifest.unit.c_str());
}

std::int32_t Session::check_points(const mvde_outputs &outputs, bool has_anchors, const OutputExtents &extents) const {
    if (const std::int32_t status = check_metres("points", has_anchors)) return status;
    if (!rays_)
        return fail(MVDE_ERROR_UNSUPPORTED,
                    "outputs.points needs the camera of the frames, which %s does not assume: give "
                    "it to mvde_open (options.camera)",
                    artifact_.manifest.name.c_str());
    if (!outputs.points_colours) return MVDE_OK;
    const mvde_frame &colours = *outputs.points_colours;
    mvde_frame complete;
    if (const std::int32_t status = check_apart(colours, extents, complete)) return status;
    return check_frame_is(colours, colours.format, frame_height_, frame_width_);
}

}  // namespace mvde::internal
