// Converts raw network output to metric depth (float32 metres or uint16 millimetres) and patch statistics in one pass.
//
// A block stages a tile of depth with a one-pixel border in shared memory, converting each raw value once, writes the depth
// of its own pixels from registers, and then reduces: one warp per patch (a block holds several patches of one row, for
// long loads), or for patches above 32 pixels the whole block per patch, in chunks. There are no atomics and every sum has
// a fixed order, so results are reproducible bit for bit.
//
// The statistics follow mvde/stats.py. The variance is computed in two passes around the chunk's own mean, so that
// millimetres survive an offset of 10 km; chunks are merged by the formula of Chan, Golub and LeVeque (1983). Sums are
// float32: depth should lie in [1e-18, 1e18] m, outside of which squares leave the range of float32.
#include "depth_conversion.cuh"
#include "device_common.cuh"
#include "postprocess_params.h"

namespace mvde_cuda {

struct Tile {
    int top, left, height, width;  // pixels of the image, without the one-pixel border
};

// The threads that reduce a patch together: a warp, or the block.
struct WarpGroup {
    static constexpr bool kIsBlock = false;
};
struct BlockGroup {
    static constexpr bool kIsBlock = true;
};

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(kFullWarp, value, offset);
    return value;
}

__device__ __forceinline__ float warp_min(float value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) value = fminf(value, __shfl_xor_sync(kFullWarp, value, offset));
    return value;
}

// Sum or minimum of one value per thread, bit-identical in every thread of the group. `scratch` holds 32 floats.
template <class Group>
__device__ __forceinline__ float group_sum(float value, SharedPointer<float> scratch) {
    value = warp_sum(value);
    if (!Group::kIsBlock) return value;
    const int num_warps = blockDim.x / 32;
    __syncthreads();  // readers of the previous reduction's scratch must be done
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0.0f;
    for (int warp = 0; warp < num_warps; ++warp) total += scratch[warp];
    return total;
}

template <class Group>
__device__ __forceinline__ float group_min(float value, SharedPointer<float> scratch) {
    value = warp_min(value);
    if (!Group::kIsBlock) return value;
    const int num_warps = blockDim.x / 32;
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    float lowest = scratch[0];
    for (int warp = 1; warp < num_warps; ++warp) lowest = fminf(lowest, scratch[warp]);
    return lowest;
}

// ------------------------------------------------------------------------------------------------------------- staging

// Fills the tile in shared memory, border included, and writes the depth of the tile's own pixels.
template <class Raw>
__device__ __forceinline__ void stage_tile(const PostprocessParams &p, const Tile &tile, SharedPointer<float> staged) {
    const int pitch = tile_pitch(tile.width);
    const Raw *image = static_cast<const Raw *>(p.raw) + blockIdx.z * p.raw_batch_stride;
    const bool vectorised = rows_are_aligned(p, image, blockIdx.z) && tile.left % 8 == 0;
    const int num_vectors = vectorised ? tile.width / 8 : 0;

#pragma unroll 1
    for (int item = threadIdx.x; item < num_vectors * (tile.height + 2); item += blockDim.x) {
        const int row = item / num_vectors, column = (item - row * num_vectors) * 8;
        const int y = clamp_index(tile.top + row - 1, p.height);
        float depth_m[8];
        load8(image + y * p.raw_row_stride + tile.left + column, depth_m);
        depths_from_raw(p, depth_m);
        SharedPointer<float> target = staged + (row * pitch + kTileMargin + column);
        store_shared4(target, depth_m[0], depth_m[1], depth_m[2], depth_m[3]);
        store_shared4(target + 4, depth_m[4], depth_m[5], depth_m[6], depth_m[7]);
        if (row >= 1 && row <= tile.height) {
            store_depth8(p, blockIdx.z * p.depth_batch_stride + y * p.depth_row_stride + tile.left + column, depth_m);
        }
    }

    // The remainder after the vector loads: ends of rows, and the border pixels on either side.
    const int first = num_vectors * 8;
    const int num_columns = tile.width - first + 2;
#pragma unroll 1
    for (int item = threadIdx.x; item < num_columns * (tile.height + 2); item += blockDim.x) {
        const int row = item / num_columns, rest = item - row * num_columns;
        const int column = rest < num_columns - 1 ? first + rest : -1;  // ... width, and then -1
        const int y = clamp_index(tile.top + row - 1, p.height);
        const int x = clamp_index(tile.left + column, p.width);
        const float depth_m = depth_from_raw(p, widen(image[y * p.raw_row_stride + x]));
        staged[row * pitch + kTileMargin + column] = depth_m;
        if (row >= 1 && row <= tile.height && column >= 0 && column < tile.width) {
            store_depth(p, blockIdx.z * p.depth_batch_stride + y * p.depth_row_stride + x, depth_m);
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ reducing

// Moments of the valid pixels of a patch or a part of it. The mean is `mean` + `mean_rest`, the latter below the former's
// rounding error: the means of two parts may be closer together than that.
struct Moments {
    float num_valid, mean, mean_rest, var, grad, lowest, highest;
};

__device__ __forceinline__ Moments no_moments() {
    return {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, __uint_as_float(0x7f800000u), 0.0f};
}

// Knuth's TwoSum: the rounded sum, and its rounding error.
__device__ __forceinline__ void set_mean(Moments &m, float a, float b) {
    m.mean = __fadd_rn(a, b);
    const float b_seen = __fsub_rn(m.mean, a), a_seen = __fsub_rn(m.mean, b_seen);
    m.mean_rest = __fadd_rn(__fsub_rn(a, a_seen), __fsub_rn(b, b_seen));
}

// A thread's pixels of a chunk: one column of a strip of rows, processed downwards.
struct Strip {
    int column, first_row, last_row;  // in the staged tile, border included; empty for idle threads
};

__device__ __forceinline__ Strip strip_of_thread(int rank, int num_threads, int left, int width, int height) {
    const int num_strips = num_threads / width;
    const int strip = rank / width;
    const int rows = (height + num_strips - 1) / num_strips;
    const int first = strip * rows;
    if (strip >= num_strips || first >= height) return {kTileMargin + left, 1, 1};
    return {kTileMargin + left + rank - strip * width, 1 + first, 1 + at_most(first + rows, height)};
}

__device__ __forceinline__ float difference_or_zero(float after, float before) {
    return after > 0.0f && before > 0.0f ? after - before : 0.0f;
}

// Moments of the pixels covered by the group's strips.
template <class Group>
__device__ __forceinline__ Moments chunk_moments(SharedPointer<float> staged, int pitch, const Strip &strip,
                                                 SharedPointer<float> scratch) {
    Moments result = no_moments();
    float sum = 0.0f;
    for (int row = strip.first_row; row < strip.last_row; ++row) {
        const float depth_m = staged[row * pitch + strip.column];
        if (depth_m > 0.0f) {
            result.num_valid += 1.0f;
            sum += depth_m;
            result.lowest = fminf(result.lowest, depth_m);
            result.highest = fmaxf(result.highest, depth_m);
        }
    }
    result.num_valid = group_sum<Group>(result.num_valid, scratch);
    if (result.num_valid == 0.0f) return no_moments();  // uniform across the group
    result.lowest = group_min<Group>(result.lowest, scratch);
    result.highest = -group_min<Group>(-result.highest, scratch);
    const float shift = group_sum<Group>(sum, scratch) / result.num_valid;

    // The shift is the mean up to rounding; the second pass corrects it and computes variance and slopes.
    float deviation_sum = 0.0f, square_sum = 0.0f, slope_sum = 0.0f;
    float above = staged[(strip.first_row - 1) * pitch + strip.column];
    float here = staged[strip.first_row * pitch + strip.column];
    for (int row = strip.first_row; row < strip.last_row; ++row) {
        const float below = staged[(row + 1) * pitch + strip.column];
        if (here > 0.0f) {
            const float before = staged[row * pitch + strip.column - 1];
            const float after = staged[row * pitch + strip.column + 1];
            const float gx = difference_or_zero(after, before), gy = difference_or_zero(below, above);
            slope_sum += sqrtf(gx * gx + gy * gy);
            const float deviation = here - shift;
            deviation_sum += deviation;
            square_sum += deviation * deviation;
        }
        above = here;
        here = below;
    }
    deviation_sum = group_sum<Group>(deviation_sum, scratch);
    square_sum = group_sum<Group>(square_sum, scratch);
    slope_sum = group_sum<Group>(slope_sum, scratch);
    const float mean_deviation = deviation_sum / result.num_valid;
    set_mean(result, shift, mean_deviation);
    result.var = fmaxf(square_sum / result.num_valid - mean_deviation * mean_deviation, 0.0f);
    result.grad = 0.5f * (slope_sum / result.num_valid);
    return result;
}

__device__ __forceinline__ Moments merge(const Moments &a, const Moments &b) {
    if (a.num_valid == 0.0f) return b;
    if (b.num_valid == 0.0f) return a;
    const float num_valid = a.num_valid + b.num_valid;
    const float weight_a = a.num_valid / num_valid, weight_b = b.num_valid / num_valid;
    const float delta = (b.mean - a.mean) + (b.mean_rest - a.mean_rest);
    Moments merged = {num_valid,
                      0.0f,
                      0.0f,
                      weight_a * a.var + weight_b * b.var + weight_a * weight_b * delta * delta,
                      weight_a * a.grad + weight_b * b.grad,
                      fminf(a.lowest, b.lowest),
                      fmaxf(a.highest, b.highest)};
    set_mean(merged, a.mean, a.mean_rest + delta * weight_b);
    return merged;
}

__device__ __forceinline__ float statistic(const Moments &m, unsigned column, float area) {
    if (m.num_valid == 0.0f) return 0.0f;
    switch (column) {
        case kMean: return m.mean;
        case kVar: return m.var;
        case kGrad: return m.grad;
        case kMin: return m.lowest;
        case kMax: return m.highest;
        default: return m.num_valid / area;
    }
}

// `rank` is the thread's index in the group; the first threads write one column each.
__device__ __forceinline__ void write_statistics(const PostprocessParams &p, const Moments &m, int patch_column, int rank) {
    if (rank >= p.num_columns) return;
    const int num_columns = p.width / p.patch, num_rows = p.height / p.patch;
    const long long patch = (blockIdx.z * static_cast<long long>(num_rows) + blockIdx.y) * num_columns + patch_column;
    const float area = static_cast<float>(p.patch) * static_cast<float>(p.patch);
    p.stats[patch * p.num_columns + rank] = statistic(m, (p.columns >> (4 * rank)) & 15u, area);
}

// ------------------------------------------------------------------------------------------------------------- kernels

template <class Raw>
__device__ __forceinline__ void patch_per_warp(const PostprocessParams &p) {
    const int num_wide = blockDim.x / 32;
    const int first_column = blockIdx.x * num_wide;
    const int num_patches = at_most(num_wide, p.width / p.patch - first_column);
    const Tile tile = {static_cast<int>(blockIdx.y) * p.patch, first_column * p.patch, p.patch, num_patches * p.patch};
    SharedPointer<float> staged = dynamic_shared<float>(0);
    stage_tile<Raw>(p, tile, staged);
    __syncthreads();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp >= num_patches) return;
    const Strip strip = strip_of_thread(lane, 32, warp * p.patch, p.patch, p.patch);
    const Moments moments = chunk_moments<WarpGroup>(staged, tile_pitch(tile.width), strip, staged);
    write_statistics(p, moments, first_column + warp, lane);
}

template <class Raw>
__device__ __forceinline__ void patch_per_block(const PostprocessParams &p) {
    const int top = blockIdx.y * p.patch, left = blockIdx.x * p.patch;
    SharedPointer<float> scratch = dynamic_shared<float>(0);
    SharedPointer<float> staged = dynamic_shared<float>(32 * sizeof(float));
    Moments moments = no_moments();
    for (int y = 0; y < p.patch; y += kChunkRows) {
        for (int x = 0; x < p.patch; x += kChunkColumns) {
            const Tile tile = {top + y, left + x, at_most(kChunkRows, p.patch - y), at_most(kChunkColumns, p.patch - x)};
            stage_tile<Raw>(p, tile, staged);  // barriers in the last chunk's sums come after its readers
            __syncthreads();
            const Strip strip = strip_of_thread(threadIdx.x, blockDim.x, 0, tile.width, tile.height);
            moments = merge(moments, chunk_moments<BlockGroup>(staged, tile_pitch(tile.width), strip, scratch));
        }
    }
    write_statistics(p, moments, blockIdx.x, threadIdx.x);
}

template <class Raw>
__device__ __forceinline__ void convert_depth(const PostprocessParams &p) {
    const Raw *image = static_cast<const Raw *>(p.raw) + blockIdx.z * p.raw_batch_stride;
    const Raw *row = image + blockIdx.y * p.raw_row_stride;
    const long long target = blockIdx.z * p.depth_batch_stride + blockIdx.y * p.depth_row_stride;
    const int x = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (x + 8 <= p.width && rows_are_aligned(p, image, blockIdx.z)) {
        float depth_m[8];
        load8(row + x, depth_m);
        depths_from_raw(p, depth_m);
        store_depth8(p, target + x, depth_m);
    } else {
#pragma unroll 1
        for (int i = x; i < at_most(x + 8, p.width); ++i) store_depth(p, target + i, depth_from_raw(p, widen(row[i])));
    }
}

}  // namespace mvde_cuda

// Statistics alone use the first two kernels with depth_output = kNoDepth: only batch x patches x columns floats are
// written.
#define MVDE_POSTPROCESS_KERNELS(suffix, Raw)                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                          \
        mvde_postprocess_patch_per_warp_##suffix(const mvde_cuda::PostprocessParams params) {  \
        mvde_cuda::patch_per_warp<Raw>(params);                                                \
    }                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                          \
        mvde_postprocess_patch_per_block_##suffix(const mvde_cuda::PostprocessParams params) { \
        mvde_cuda::patch_per_block<Raw>(params);                                               \
    }                                                                                          \
    extern "C" __global__ void __launch_bounds__(128)                                          \
        mvde_convert_depth_##suffix(const mvde_cuda::PostprocessParams params) {               \
        mvde_cuda::convert_depth<Raw>(params);                                                 \
    }

MVDE_POSTPROCESS_KERNELS(f32, float)
MVDE_POSTPROCESS_KERNELS(f16, mvde_cuda::Half)
MVDE_POSTPROCESS_KERNELS(bf16, mvde_cuda::BFloat16)
