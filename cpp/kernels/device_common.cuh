// Shared by both kernels. No CUDA header is included, so that NVRTC needs no toolkit and the host shim
// (tests/kernels/host_shim/cuda_shim.h) can stand in for the device.
#pragma once

namespace mvde_cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

#ifndef MVDE_HOST_SHIM
// Shared memory is accessed only through this type, so that the host shim can check every access.
template <class T>
using SharedPointer = T *;

template <class T>
__device__ __forceinline__ SharedPointer<T> dynamic_shared(unsigned byte_offset) {
    extern __shared__ uint4 dynamic_shared_memory[];
    return reinterpret_cast<T *>(reinterpret_cast<unsigned char *>(dynamic_shared_memory) + byte_offset);
}

__device__ __forceinline__ void store_shared4(float *target, float a, float b, float c, float d) {
    *reinterpret_cast<float4 *>(target) = make_float4(a, b, c, d);
}

__device__ __forceinline__ float float_from_half_bits(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
#endif

struct Half {
    unsigned short bits;
};
struct BFloat16 {
    unsigned short bits;
};

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(Half value) { return float_from_half_bits(value.bits); }
__device__ __forceinline__ float widen(BFloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

// Eight consecutive values from a 16-byte-aligned address, in 16-byte loads.
__device__ __forceinline__ void load8(const float *source, float (&values)[8]) {
    const float4 low = reinterpret_cast<const float4 *>(source)[0];
    const float4 high = reinterpret_cast<const float4 *>(source)[1];
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

template <class Raw16>
__device__ __forceinline__ void load8(const Raw16 *source, float (&values)[8]) {
    const uint4 packed = *reinterpret_cast<const uint4 *>(source);
    const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        values[2 * i] = widen(Raw16{static_cast<unsigned short>(words[i] & 0xffffu)});
        values[2 * i + 1] = widen(Raw16{static_cast<unsigned short>(words[i] >> 16)});
    }
}

__device__ __forceinline__ bool aligned16(const void *base, long long stride_bytes) {
    return ((reinterpret_cast<unsigned long long>(base) | static_cast<unsigned long long>(stride_bytes)) & 15u) == 0;
}

__device__ __forceinline__ int clamp_index(int index, int count) {
    return index < 0 ? 0 : (index < count ? index : count - 1);
}

}  // namespace mvde_cuda
