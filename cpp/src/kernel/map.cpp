#include "kernel/map.hpp"

#include "error.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace mvde::internal {
namespace {

constexpr std::int64_t kMaxSide = std::int64_t{1} << 24;

bool multiply(std::int64_t a, std::int64_t b, std::int64_t &product) { return !__builtin_mul_overflow(a, b, &product); }

// Moves one end of the extent by `count - 1` steps of `stride`. Returns false if an address would wrap around.
bool extend(Extent &extent, std::int64_t count, std::int64_t stride) {
    std::int64_t reach;
    if (!multiply(count - 1, stride, reach)) return false;
    if (reach >= 0) return !__builtin_add_overflow(extent.end, static_cast<std::uintptr_t>(reach), &extent.end);
    return !__builtin_sub_overflow(extent.begin, std::uintptr_t{0} - static_cast<std::uintptr_t>(reach), &extent.begin);
}

int dense_strides(const mvde_map &map, const char *name, std::int64_t element, Plane &plane) {
    std::int64_t row, image;
    if (!multiply(map.width, element, row) || !multiply(row, map.height, image))
        return fail(MVDE_ERROR_SHAPE, "%s: an image of %" PRId64 "x%" PRId64 " does not fit 64 bits", name, map.height,
                    map.width);
    plane.pixel_stride = map.pixel_stride ? map.pixel_stride : element;
    plane.row_stride = map.row_stride ? map.row_stride : row;
    plane.batch_stride = map.batch_stride ? map.batch_stride : image;
    return MVDE_OK;
}

// The nearest multiples: "672 or 688" for 680 and a patch of 16.
void nearest(std::int64_t size, std::int64_t patch, char *text, std::size_t capacity) {
    const std::int64_t below = size / patch * patch;
    const bool has_above = below <= INT64_MAX - patch;
    if (below == size || !has_above) std::snprintf(text, capacity, "%" PRId64, below);
    else if (below == 0) std::snprintf(text, capacity, "%" PRId64, patch);
    else std::snprintf(text, capacity, "%" PRId64 " or %" PRId64, below, below + patch);
}

}  // namespace

std::int64_t element_size(std::int32_t dtype) { return dtype == MVDE_FLOAT32 ? 4 : 2; }

int check_map(const mvde_map &map, const char *name, bool may_be_16_bit_integer, Plane &plane, Extent &extent) {
    if (!map.data) return fail(MVDE_ERROR_ARGUMENT, "%s.data is NULL", name);
    const std::int32_t last = may_be_16_bit_integer ? MVDE_UINT16 : MVDE_BFLOAT16;
    if (map.dtype < MVDE_FLOAT32 || map.dtype > last)
        return fail(MVDE_ERROR_ARGUMENT, "%s.dtype is %d: expected a mvde_dtype from 0 to %d", name, map.dtype, last);
    if (map.batch < 1 || map.height < 1 || map.width < 1 || map.batch > kMaxSide || map.height > kMaxSide ||
        map.width > kMaxSide)
        return fail(MVDE_ERROR_SHAPE,
                    "%s is %" PRId64 "x%" PRId64 "x%" PRId64 " (batch, height, width): expected 1 to %" PRId64 " each", name,
                    map.batch, map.height, map.width, kMaxSide);
    const std::int64_t element = element_size(map.dtype);
    plane.data = static_cast<unsigned char *>(map.data);
    plane.dtype = map.dtype;
    if (const int status = dense_strides(map, name, element, plane)) return status;
    const auto address = reinterpret_cast<std::uintptr_t>(map.data);
    if (address % static_cast<std::uintptr_t>(element) || plane.pixel_stride % element || plane.row_stride % element ||
        plane.batch_stride % element)
        return fail(MVDE_ERROR_ALIGNMENT, "%s: its pointer and strides must be multiples of %d bytes", name,
                    static_cast<int>(element));
    extent = {address, address};
    if (__builtin_add_overflow(address, static_cast<std::uintptr_t>(element), &extent.end) ||
        !extend(extent, map.width, plane.pixel_stride) || !extend(extent, map.height, plane.row_stride) ||
        !extend(extent, map.batch, plane.batch_stride))
        return fail(MVDE_ERROR_SHAPE, "%s: sizes times strides leave the address space", name);
    return MVDE_OK;
}

int check_grid(std::int64_t batch, std::int64_t height, std::int64_t width, std::int32_t patch_size, std::int32_t num_stats,
               std::int64_t &num_floats) {
    if (patch_size < 1) return fail(MVDE_ERROR_ARGUMENT, "patch_size is %d: expected 1 or more", patch_size);
    if (num_stats < 1 || num_stats > MVDE_MAX_STATS)
        return fail(MVDE_ERROR_ARGUMENT, "num_stats is %d: expected 1 to %d", num_stats, MVDE_MAX_STATS);
    if (batch < 1 || height < 1 || width < 1 || height % patch_size || width % patch_size) {
        char fits_height[48], fits_width[48];
        nearest(height < 1 ? 0 : height, patch_size, fits_height, sizeof fits_height);
        nearest(width < 1 ? 0 : width, patch_size, fits_width, sizeof fits_width);
        return fail(MVDE_ERROR_SHAPE,
                    "%" PRId64 "x%" PRId64 "x%" PRId64 " (batch, height, width) does not divide into patches"
                    " of %d: the nearest sizes that fit are height %s and width %s",
                    batch, height, width, patch_size, fits_height, fits_width);
    }
    std::int64_t patches;
    if (!multiply(height / patch_size, width / patch_size, patches) || !multiply(patches, batch, patches) ||
        !multiply(patches, num_stats, num_floats))
        return fail(MVDE_ERROR_SHAPE, "the number of statistics does not fit 64 bits");
    return MVDE_OK;
}

}  // namespace mvde::internal
