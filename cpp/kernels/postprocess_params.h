// Parameters of the post-processing kernels. One layout for nvcc, NVRTC, host C++ and Python's ctypes: plain C types, no
// headers (NVRTC has none). Every pointer is a device pointer; strides are in elements.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define MVDE_HOST_DEVICE __host__ __device__
#else
#define MVDE_HOST_DEVICE
#endif

namespace mvde_cuda {

// Enumerators have the values of mvde_dtype, mvde_conversion, mvde_range and mvde_stat in mvde.h.
enum RawType { kRawFloat32 = 0, kRawFloat16 = 1, kRawBFloat16 = 2 };
enum DepthOutput { kNoDepth = 0, kDepthMetres = 1, kDepthMillimetres = 2 };  // float32, uint16 (ROS REP 118)

// t = scale * raw + shift, then the depth in metres:
enum Conversion {
    kLinear = 0,      // t
    kInverse = 1,     // 1 / t where raw > 0, else invalid
    kExp = 2,         // exp(t)
    kLogSigmoid = 3,  // exp(log_min + log_span * sigmoid(t))
};

// Treatment of a finite, positive depth outside the bounds: mark it invalid, or move it to the nearest bound.
enum Range { kReject = 0, kClamp = 1 };

enum Statistic { kMean = 0, kVar = 1, kGrad = 2, kMin = 3, kMax = 4, kValid = 5 };
constexpr int kMaxColumns = 8;  // four bits per column in an unsigned

struct PostprocessParams {
    const void *raw;               // [batch, height, width] of RawType, contiguous along x
    void *depth;                   // [batch, height, width] of DepthOutput, contiguous along x; unused for kNoDepth
    float *stats;                  // [batch, patches, num_columns], contiguous; unused where num_columns is 0
    long long raw_batch_stride;
    long long raw_row_stride;
    long long depth_batch_stride;
    long long depth_row_stride;
    int batch, height, width;      // pixels; multiples of patch
    int patch;                     // side of a patch in pixels
    int depth_output;              // DepthOutput
    int conversion;                // Conversion
    int range;                     // Range
    float scale, shift;
    float log_min, log_span;       // of kLogSigmoid: ln(min), ln(max / min)
    float min_depth_m, max_depth_m;  // inclusive
    float invalid_m;               // value of invalid pixels in float32 depth
    unsigned columns;              // Statistic of column i in bits 4i to 4i + 3
    int num_columns;
};

// ---------------------------------------------------------------------------------------------------------- launching

constexpr int kBlockThreads = 256;
constexpr int kLargestWarpPatch = 32;  // larger patches use a whole block
constexpr int kChunkRows = 32;         // rows of such a patch staged at a time
constexpr int kChunkColumns = 128;
constexpr int kTileMargin = 4;         // floats left of the interior in shared memory, for 16-byte alignment

struct LaunchPlan {
    unsigned grid_x, grid_y, grid_z;
    unsigned block_threads;
    unsigned shared_bytes;
    int patch_per_block;  // 1: the kernel ..._patch_per_block_..., 0: the kernel ..._patch_per_warp_...
};

// Row pitch of a tile in shared memory, in floats: 16 more than a multiple of 32, so that the two half-warps that process a
// 16-pixel patch use different banks.
MVDE_HOST_DEVICE constexpr int tile_pitch(int width) { return ((width + 2 * kTileMargin + 15) / 32) * 32 + 16; }

MVDE_HOST_DEVICE constexpr int warp_patches_per_block(int patch) { return patch <= 16 ? 8 : 4; }

MVDE_HOST_DEVICE constexpr int at_most(int value, int limit) { return value < limit ? value : limit; }

MVDE_HOST_DEVICE constexpr LaunchPlan plan_postprocess(int batch, int height, int width, int patch) {
    const unsigned rows = static_cast<unsigned>(height / patch);
    const unsigned columns = static_cast<unsigned>(width / patch);
    const unsigned images = static_cast<unsigned>(batch);
    const unsigned scratch = 32 * sizeof(float);  // one value per warp, for block-wide sums
    if (patch > kLargestWarpPatch) {
        const int pitch = tile_pitch(at_most(patch, kChunkColumns));
        const int tile_rows = at_most(patch, kChunkRows) + 2;
        return {columns, rows, images, kBlockThreads, static_cast<unsigned>(tile_rows * pitch) * 4u + scratch, 1};
    }
    const int wide = warp_patches_per_block(patch);
    const unsigned tiles = (columns + static_cast<unsigned>(wide) - 1) / static_cast<unsigned>(wide);
    const int pitch = tile_pitch(wide * patch);
    return {tiles, rows, images, static_cast<unsigned>(wide) * 32u, static_cast<unsigned>((patch + 2) * pitch) * 4u, 0};
}

// For the kernels mvde_convert_depth_...: depth alone, one thread per eight pixels of a row.
MVDE_HOST_DEVICE constexpr LaunchPlan plan_convert_depth(int batch, int height, int width) {
    const unsigned vectors = (static_cast<unsigned>(width) + 7u) / 8u;
    return {(vectors + 127u) / 128u, static_cast<unsigned>(height), static_cast<unsigned>(batch), 128u, 0u, 0};
}

}  // namespace mvde_cuda
