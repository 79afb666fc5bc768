// Metres of a frame from known depths in it, with the arithmetic and words of mvde/calibration/solve.py and
// mvde/runtime/view.py.
#pragma once

#include "mvde/mvde.h"

#include <cstdint>
#include <vector>

namespace mvde::internal {

// Where a frame is in the network's map.
struct MapView {
    const float *raw;  // [height, width], dense
    std::int64_t width;
    mvde_box source, target;
};

// Depth is scale * x, or 1 / (scale * x + shift) of an inverse map.
struct Metres {
    double scale = 1.0, shift = 0.0;
};

// The anchors of one frame. Allocates when constructed only.
class Anchors {
public:
    Anchors();

    // Takes the anchors of a frame of height x width, or none. Returns a mvde_status and sets mvde_last_error().
    std::int32_t take(const mvde_frame &frame, std::int64_t height, std::int64_t width);
    bool empty() const { return anchors_.empty(); }

    // Computes the metres of a map of `kind` that the camera multiplies by `map_scale`. Anchors where the network has no value
    // are left out.
    std::int32_t solve(mvde_depth_kind kind, double map_scale, const MapView &view, Metres &metres);

private:
    std::int32_t solve_inverse(Metres &metres);

    std::vector<mvde_anchor> anchors_;
    std::vector<double> values_, depths_m_, weights_;
};

}  // namespace mvde::internal
