// Scale of a frame's depth from the floor it sees, with the bits of mvde/runtime/floor.py.
#pragma once

#include "image/rays.hpp"
#include "mvde/mvde.h"

#include <cstdint>

namespace mvde::internal {

// Throws Refused (MVDE_ERROR_ARGUMENT) for a value outside its limits.
void check_mounting(const mvde_mounting &mounting);

// Scale of the pixels of `depth` (metres, row stride in bytes) in `box`; `rays` are those of the map. Does not allocate.
mvde_floor floor_of(const Rays &rays, const mvde_box &box, const mvde_mounting &mounting, const float *depth,
                    std::int64_t row_stride);

// Scale of the frames of one stream whose depth is steady, with the bits of SteadyScale in mvde/runtime/frame_floor.py.
class SteadyScale {
public:
    // Returns the scale of the next frame from its own; `is_anew` drops those before it.
    mvde_floor update(mvde_floor found, bool is_anew);

private:
    double scale_ = 1.0;
    std::int64_t num_frames_ = 0;
};

}  // namespace mvde::internal
