// Parameters of the pre-processing kernel. One layout for nvcc, NVRTC, host C++ and Python's ctypes: plain C types, no
// headers (NVRTC has none). Every pointer is a device pointer; pitches are in bytes.
#pragma once

namespace mvde_cuda {

// Values of mvde_pixel_format in mvde.h.
enum PixelFormat { kRgb = 0, kBgr = 1, kGrey = 2, kNv12 = 3, kYuyv = 4 };

// Filter taps along one axis: target pixel i is the sum over k < counts[i] of weights[i * most + k] times source pixel
// firsts[i] + k. Weights are fixed-point with kWeightBits fractional bits, may be negative, and sum to one, up to rounding.
struct Taps {
    const int *firsts;
    const int *counts;
    const int *weights;
    int most;
};

// YCbCr to RGB coefficients, with 20 fractional bits. Luma below its offset is clamped to it.
struct YuvMatrix {
    int luma_offset, luma_gain;
    int red_of_v, green_of_u, green_of_v, blue_of_u;
};

struct PreprocessParams {
    const unsigned char *source;  // first pixel of the frame; of NV12, of its Y plane
    const unsigned char *chroma;  // the interleaved UV plane of NV12, else unused
    unsigned char *target;        // [height, width, 3] RGB
    long long source_pitch, chroma_pitch, target_pitch;
    Taps columns, rows;           // filter taps of the target box
    int source_top, source_left;  // corner of the resized part of the frame; taps are relative to it
    int height, width;            // of the target, pixels
    int box_top, box_left, box_height, box_width;  // the part of the target that the frame fills; `fill` elsewhere
    int pixel_format;             // PixelFormat
    YuvMatrix yuv;
    unsigned char fill[4];        // RGB and one padding byte
};

constexpr int kWeightBits = 22;
constexpr int kYuvBits = 20;
constexpr int kTileColumns = 32;
constexpr int kTileRows = 16;
constexpr int kBandRows = 32;  // source rows staged at a time
constexpr int kPreprocessThreads = 256;
constexpr unsigned kPreprocessSharedBytes = kBandRows * kTileColumns * 4;

}  // namespace mvde_cuda
