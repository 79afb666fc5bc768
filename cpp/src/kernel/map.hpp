// Validation of the caller's maps: establishes every precondition of the kernels.
#pragma once

#include "mvde/mvde.h"
#include "kernel/interface.hpp"

#include <cstddef>
#include <cstdint>

namespace mvde::internal {

// Address range of a map, [begin, end).
struct Extent {
    std::uintptr_t begin = 0, end = 0;
};

inline bool overlaps(Extent a, Extent b) { return a.begin < b.end && b.begin < a.end; }

// Whether rows of `bytes` with that stride (possibly negative) do not overlap, and addresses stay far from overflow.
inline bool is_row_stride(std::int64_t stride, std::int64_t bytes) {
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    return stride >= 0 ? stride >= bytes && stride <= kMost : stride <= -bytes && stride >= -kMost;
}

std::int64_t element_size(std::int32_t dtype);

// Checks pointer, dtype, sizes, strides and alignment of `map`, called `name` in messages; fills in dense strides.
int check_map(const mvde_map &map, const char *name, bool may_be_16_bit_integer, Plane &plane, Extent &extent);

// Checks that the sides are multiples of the patch size and computes the number of floats of the statistics.
int check_grid(std::int64_t batch, std::int64_t height, std::int64_t width, std::int32_t patch_size, std::int32_t num_stats,
               std::int64_t &num_floats);

}  // namespace mvde::internal
