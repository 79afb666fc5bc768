// Runs CUDA kernels on the CPU, for tests: include this before a .cu file and compile as C++17.
//
// The threads of a block are fibers of one thread. A fiber runs until a barrier or a warp operation, and the scheduler
// selects the next one: in order, in reverse, or shuffled by a seed. In addition,
//   - every access to shared memory is checked: reading a value that was never written, an address outside the launch's
//     shared memory, and a data race (two accesses by different threads, at least one a write, without a barrier between
//     them) are errors;
//   - a barrier or a warp operation that is not reached by all of its threads is an error;
//   - misaligned 16-byte loads and stores are errors;
//   - one barrier of the source can be removed, to prove that the checks notice.
#pragma once

#include <math.h>  // for functions in the global namespace, as on the device

#include <cstddef>
#include <cstdint>
#include <cstring>

#define MVDE_HOST_SHIM 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct Dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// Misaligned dereferences trap under -fsanitize=undefined.
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace shim {

struct Site {
    const char *file;
    int line;
};

// Set for the running fiber.
extern Dim3 thread_index, block_index, block_size, grid_size;

void block_barrier(Site site);
void warp_barrier(unsigned mask, Site site);
// The value that lane (lane ^ lane_mask) passed to the same call.
std::uint32_t exchange_xor(unsigned mask, std::uint32_t value, int lane_mask, Site site);

// Checks an access to `size` bytes of shared memory at `offset` and returns its address, never null.
void *shared_read(std::size_t offset, std::size_t size);
void *shared_write(std::size_t offset, std::size_t size);

inline std::uint32_t shuffle_xor(unsigned mask, std::uint32_t value, int lane_mask, Site site) {
    return exchange_xor(mask, value, lane_mask, site);
}
inline float shuffle_xor(unsigned mask, float value, int lane_mask, Site site) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = exchange_xor(mask, bits, lane_mask, site);
    std::memcpy(&value, &bits, 4);
    return value;
}

}  // namespace shim

#define threadIdx (::shim::thread_index)
#define blockIdx (::shim::block_index)
#define blockDim (::shim::block_size)
#define gridDim (::shim::grid_size)
#define __syncthreads() ::shim::block_barrier({__FILE__, __LINE__})
#define __syncwarp() ::shim::warp_barrier(0xffffffffu, {__FILE__, __LINE__})
#define __shfl_xor_sync(mask, value, lane_mask) ::shim::shuffle_xor(mask, value, lane_mask, {__FILE__, __LINE__})

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline float __fmul_rn(float a, float b) { return a * b; }  // compile with -ffp-contract=off
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }

namespace mvde_cuda {

// A pointer into shared memory that reports accesses.
template <class T>
class SharedPointer {
public:
    class Element {
    public:
        explicit Element(std::size_t offset) : offset_(offset) {}
        Element(const Element &) = default;
        operator T() const { return *static_cast<const T *>(shim::shared_read(offset_, sizeof(T))); }
        T operator=(T value) const { return *static_cast<T *>(shim::shared_write(offset_, sizeof(T))) = value; }
        T operator=(const Element &other) const { return *this = static_cast<T>(other); }

    private:
        std::size_t offset_;
    };

    explicit SharedPointer(std::size_t offset) : offset_(offset) {}
    Element operator[](int index) const { return Element(offset_ + static_cast<std::ptrdiff_t>(index) * sizeof(T)); }
    SharedPointer operator+(int count) const {
        return SharedPointer(offset_ + static_cast<std::ptrdiff_t>(count) * sizeof(T));
    }
    std::size_t offset() const { return offset_; }

private:
    std::size_t offset_;
};

template <class T>
inline SharedPointer<T> dynamic_shared(unsigned byte_offset) {
    return SharedPointer<T>(byte_offset);
}

void store_shared4(SharedPointer<float> target, float a, float b, float c, float d);

inline float float_from_half_bits(unsigned short bits) {
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
}

}  // namespace mvde_cuda
