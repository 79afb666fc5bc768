// Masks and confidence beside the raw map: masked pixels become invalid, sky pixels of the depth map +infinity.
#pragma once

#include "kernel/convert.hpp"

namespace mvde::internal {
namespace {

inline unsigned char *address(const Plane &plane, std::int64_t image, std::int64_t y, std::int64_t x) {
    return plane.data + image * plane.batch_stride + y * plane.row_stride + x * plane.pixel_stride;
}

template <class Source>
F read_chunk(const unsigned char *row, std::int64_t step, std::int64_t x, std::int64_t count) {
    using Element = typename Source::Element;
    if (step == static_cast<std::int64_t>(sizeof(Element)) && x + kLanes <= count)
        return Source::load(reinterpret_cast<const Element *>(row) + x);
    Element gathered[kLanes];
    for (std::int64_t i = 0; i < kLanes; ++i) {
        const std::int64_t column = x + i < count ? x + i : count - 1;
        std::memcpy(&gathered[i], row + column * step, sizeof(Element));
    }
    return Source::load(gathered);
}

// Sixteen values of a row of `count`, from `x` on; lanes past the end repeat the last one.
inline F read_chunk(const Plane &plane, const unsigned char *row, std::int64_t x, std::int64_t count) {
    switch (plane.dtype) {
        case MVDE_FLOAT16: return read_chunk<Float16>(row, plane.pixel_stride, x, count);
        case MVDE_BFLOAT16: return read_chunk<BFloat16>(row, plane.pixel_stride, x, count);
        default: return read_chunk<Float32>(row, plane.pixel_stride, x, count);
    }
}

inline F load_first(const float *p, std::int64_t count) {
    if (count >= kLanes) return Lanes::load(p);
    float chunk[kLanes] = {};
    std::memcpy(chunk, p, static_cast<std::size_t>(count) * sizeof(float));
    return Lanes::load(chunk);
}

// Sets masked pixels of a converted row to NaN. Returns whether all pixels are valid.
inline bool mask_row(const PostprocessJob &job, const unsigned char *mask, std::int64_t count, float *out,
                     std::int64_t room) {
    const F threshold = Lanes::broadcast(job.mask_threshold), invalid = Lanes::broadcast(kNaN);
    M all = Lanes::first(kLanes);
    for (std::int64_t x = 0; x < count; x += kLanes) {
        const M reached = Lanes::at_least(read_chunk(job.mask, mask, x, count), threshold);
        const F metres = load_first(out + x, room - x);
        const F kept = job.mask_is_sky ? Lanes::select(reached, invalid, metres) : Lanes::select(reached, metres, invalid);
        store_first(out + x, kept, room - x);
        all = Lanes::both(all, Lanes::ordered(kept));
    }
    return Lanes::all(all);
}

// Sets sky pixels of a row of the depth map.
inline void mark_sky(const PostprocessJob &job, const unsigned char *mask, std::int64_t count, float *depth) {
    const F threshold = Lanes::broadcast(job.mask_threshold), sky = Lanes::broadcast(kInfinity);
    for (std::int64_t x = 0; x < count; x += kLanes) {
        const M reached = Lanes::at_least(read_chunk(job.mask, mask, x, count), threshold);
        store_first(depth + x, Lanes::select(reached, sky, load_first(depth + x, count - x)), count - x);
    }
}

// Converts `count` pixels from column `x` of row `y` on, as RowConverter does; masked ones are invalid.
inline bool convert_pixels(const PostprocessJob &job, RowConverter convert, std::int64_t image, std::int64_t y,
                           std::int64_t x, std::int64_t count, float *out, std::int64_t room) {
    const bool valid = convert(job, address(job.raw, image, y, x), count, out, room);
    return job.mask.data ? mask_row(job, address(job.mask, image, y, x), count, out, room) : valid;
}

}  // namespace
}  // namespace mvde::internal
