// Checks of a call's frame and output buffers. Functions return a mvde_status and set mvde_last_error().
#pragma once

#include "kernel/map.hpp"
#include "mvde/mvde.h"

#include <cstdint>

namespace mvde::internal {

// Address ranges of the outputs; empty where not wanted.
struct OutputExtents {
    Extent depth, depth_mm, stats, points, ranges;
};

// Checks pointers, capacities and that the outputs are apart, for depth of height x width pixels.
std::int32_t check_outputs(const mvde_outputs &outputs, std::int64_t height, std::int64_t width, std::int64_t num_stats,
                           std::int64_t num_bearings, OutputExtents &extents);

// Checks the frame, and that it is apart from the outputs. `complete` receives it with its strides and planes filled in.
std::int32_t check_apart(const mvde_frame &frame, const OutputExtents &extents, mvde_frame &complete);

// Checks that the frame has the format and size that its session was opened with.
std::int32_t check_frame_is(const mvde_frame &frame, std::int32_t format, std::int64_t height, std::int64_t width);

}  // namespace mvde::internal
