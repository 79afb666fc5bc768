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

}  // namespace mvde::internal
