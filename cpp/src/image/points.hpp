// Points of a depth map; the same checks for the C API and for sessions.
#pragma once

#include "image/rays.hpp"

namespace mvde::internal {

// Number of points along a side of `side` pixels.
std::int64_t points_along(std::int64_t side, std::int64_t step);

// Checks a step, called `name` in messages. Returns a mvde_status, with a message.
int check_step(std::int32_t step, const char *name);

// mvde_points with rays of known validity.
int write_points(const Rays &rays, const float *depth_m, std::int64_t depth_row_stride, const mvde_points_options &options,
                 float *points, std::int64_t capacity, mvde_workers *workers);

}  // namespace mvde::internal
