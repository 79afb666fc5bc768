// The floor's scale over the frames of a session whose depth is steady; bit-identical to SteadyScale in Python.
#pragma once

#include "mvde/mvde.h"

#include <algorithm>
#include <cstdint>

namespace mvde::internal {

class SteadyFloor {
public:
    // Takes the place of a frame's own scale in `floor`; `is_anew` drops the frames before it.
    void update(mvde_floor &floor, bool is_anew) {
        if (is_anew) *this = {};
        if (floor.status == MVDE_FLOOR_USED) {
            ++num_frames_;
            // A mean over the frames there are until the gain is smaller: a bad first frame would stay else.
            scale_ += std::max(kGain, 1.0 / static_cast<double>(num_frames_)) * (floor.scale - scale_);
        } else if (num_frames_) {
            floor.status = MVDE_FLOOR_HELD;
        }
        if (num_frames_) floor.scale = scale_;
    }

private:
    static constexpr double kGain = 0.1;  // STEADY_GAIN of mvde/runtime/frame_floor.py
    double scale_ = 1.0;
    std::int64_t num_frames_ = 0;
};

}  // namespace mvde::internal
