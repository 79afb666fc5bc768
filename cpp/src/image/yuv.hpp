// Y'CbCr to RGB in fixed point, shared by the CPU and the GPU for bit-identical results.
#pragma once

#include "mvde/mvde.h"

namespace mvde::internal {

constexpr int kYuvBits = 20;

// Coefficients in units of 2^-20; luma below the offset is clamped to it.
struct YuvToRgb {
    int luma_offset, luma_gain;
    int red_of_v, green_of_u, green_of_v, blue_of_u;
};

// BT.601, limited range: 1.164 for luma and 1.596, 0.813, 0.391, 2.018 for chroma, as in OpenCV. The others follow from the
// weights of red and blue, 0.299 and 0.114 (BT.601) or 0.2126 and 0.0722 (BT.709).
constexpr YuvToRgb yuv_to_rgb(int matrix, bool full_range) {
    constexpr YuvToRgb kBt601{16, 1220542, 1673527, -409993, -852492, 2116026};
    constexpr YuvToRgb kBt601Full{0, 1048576, 1470104, -360853, -748826, 1858077};
    constexpr YuvToRgb kBt709{16, 1220945, 1879825, -223607, -558796, 2215016};
    constexpr YuvToRgb kBt709Full{0, 1048576, 1651297, -196424, -490864, 1945738};
    if (matrix == MVDE_BT709) return full_range ? kBt709Full : kBt709;
    return full_range ? kBt601Full : kBt601;
}

}  // namespace mvde::internal
