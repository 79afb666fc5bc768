// Raw network output → metric depth → output format.
#pragma once

#include "device_common.cuh"
#include "postprocess_params.h"

namespace mvde_cuda {

constexpr float kLargestDepth = 1e16f;  // MVDE_LARGEST_DEPTH of mvde.h, which NVRTC cannot include

// Converts raw values to depth in metres, in place; 0 where invalid (no valid depth is 0, so one float carries both). All
// arithmetic is float32, whatever the network's precision: half precision ends at 65504 and cannot hold a sum over a patch.
//
// Multiplications and additions are kept separate: fused ones would make depth, and millimetres, differ from the CPU's in
// the last bit. Selecting the conversion outside the loops halves the code size.
template <int kCount>
__device__ __forceinline__ void depths_from_raw(const PostprocessParams &p, float (&values)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        const bool is_known = p.conversion != kInverse || values[i] > 0.0f;
        values[i] = is_known ? __fadd_rn(__fmul_rn(p.scale, values[i]), p.shift) : 0.0f;
    }
    if (p.conversion == kInverse) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) values[i] = 1.0f / values[i];
    } else if (p.conversion != kLinear) {
        if (p.conversion == kLogSigmoid) {
#pragma unroll
            for (int i = 0; i < kCount; ++i) values[i] = fmaf(p.log_span, 1.0f / (1.0f + expf(-values[i])), p.log_min);
        }
#pragma unroll
        for (int i = 0; i < kCount; ++i) values[i] = expf(values[i]);
    }
    const bool clamps = p.range == kClamp || p.conversion == kLogSigmoid;  // exp(ln(x)) may miss x by a rounding error
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        const bool has_depth = values[i] > 0.0f && values[i] <= 3.402823466e38f;  // false for NaN
        const float bounded = fminf(fmaxf(values[i], p.min_depth_m), fminf(p.max_depth_m, kLargestDepth));
        values[i] = has_depth && (clamps || bounded == values[i]) ? bounded : 0.0f;
    }
}

__device__ __forceinline__ float depth_from_raw(const PostprocessParams &p, float raw) {
    float values[1] = {raw};
    depths_from_raw(p, values);
    return values[0];
}

__device__ __forceinline__ float metres(const PostprocessParams &p, float depth_m) {
    return depth_m > 0.0f ? depth_m : p.invalid_m;
}

// Rounds to nearest, ties to even; depth past 65.535 m does not fit the encoding and becomes invalid.
__device__ __forceinline__ unsigned short millimetres(float depth_m) {
    const float rounded = rintf(__fmul_rn(depth_m, 1000.0f));
    return static_cast<unsigned short>(rounded <= 65535.0f ? static_cast<unsigned>(rounded) : 0u);
}

__device__ __forceinline__ void store_depth(const PostprocessParams &p, long long index, float depth_m) {
    if (p.depth_output == kDepthMetres) {
        static_cast<float *>(p.depth)[index] = metres(p, depth_m);
    } else if (p.depth_output == kDepthMillimetres) {
        static_cast<unsigned short *>(p.depth)[index] = millimetres(depth_m);
    }
}

// Writes eight adjacent pixels; the index is a multiple of eight from a 16-byte-aligned address.
__device__ __forceinline__ void store_depth8(const PostprocessParams &p, long long index, const float (&depth_m)[8]) {
    if (p.depth_output == kDepthMetres) {
        float4 *target = reinterpret_cast<float4 *>(static_cast<float *>(p.depth) + index);
        target[0] = make_float4(metres(p, depth_m[0]), metres(p, depth_m[1]), metres(p, depth_m[2]), metres(p, depth_m[3]));
        target[1] = make_float4(metres(p, depth_m[4]), metres(p, depth_m[5]), metres(p, depth_m[6]), metres(p, depth_m[7]));
    } else if (p.depth_output == kDepthMillimetres) {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            words[i] = millimetres(depth_m[2 * i]) | static_cast<unsigned>(millimetres(depth_m[2 * i + 1])) << 16;
        }
        *reinterpret_cast<uint4 *>(static_cast<unsigned short *>(p.depth) + index) = make_uint4(words[0], words[1], words[2],
                                                                                                words[3]);
    }
}

// Whether rows of the raw image and of its depth output start at multiples of 16 bytes.
template <class Raw>
__device__ __forceinline__ bool rows_are_aligned(const PostprocessParams &p, const Raw *image, int image_index) {
    bool aligned = aligned16(image, p.raw_row_stride * static_cast<long long>(sizeof(Raw)));
    if (p.depth_output != kNoDepth) {
        const long long size = p.depth_output == kDepthMetres ? 4 : 2;
        const char *target = static_cast<const char *>(p.depth) + image_index * p.depth_batch_stride * size;
        aligned = aligned && aligned16(target, p.depth_row_stride * size);
    }
    return aligned;
}

}  // namespace mvde_cuda
