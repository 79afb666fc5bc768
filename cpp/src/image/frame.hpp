// Camera frames: validation, and access to rows of any format as RGB.
#pragma once

#include "kernel/interface.hpp"
#include "kernel/map.hpp"

namespace mvde::internal {

// Checks the frame and fills in dense strides and the chroma plane. The second extent is empty if there is no chroma.
int check_frame(const mvde_frame &frame, mvde_frame &complete, Extent &luma, Extent &chroma);

// Checks format and size only, which are known before the first frame.
int check_frame_size(std::int32_t format, std::int64_t height, std::int64_t width);

// Pixels [left, left + width) of row `y` as RGB: in place if the frame is RGB, otherwise converted into `buffer`.
const std::uint8_t *rgb_row(const Kernel &kernel, const mvde_frame &frame, std::int64_t y, std::int64_t left,
                            std::int64_t width, std::uint8_t *buffer);

}  // namespace mvde::internal
