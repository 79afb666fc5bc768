// Converts raw network output to metres, one row segment at a time, into a tile with NaN for invalid pixels.
#pragma once

#include "mvde/mvde.h"
#include "kernel/interface.hpp"

#include <cstdint>
#include <cstring>

#define MVDE_INLINE inline __attribute__((always_inline))

namespace mvde::internal {
namespace {

using F = Lanes::F;
using M = Lanes::M;

constexpr int kLanes = 16;
constexpr float kNaN = __builtin_nanf("");
constexpr float kInfinity = __builtin_inff();

// exp(x) by range reduction x = k ln 2 + r and a polynomial in r (Cephes expf), within 2 ulp. Saturates at e^-87 and e^88,
// before the exponent arithmetic overflows.
MVDE_INLINE F exponential(F x) {
    const F rounder = Lanes::broadcast(12582912.0F);  // 1.5 * 2^23: adding and subtracting it rounds to an integer
    const F clamped = Lanes::min(Lanes::max(x, Lanes::broadcast(-87.0F)), Lanes::broadcast(88.0F));
    const F k = Lanes::sub(Lanes::add(Lanes::mul(clamped, Lanes::broadcast(1.44269504F)), rounder), rounder);
    // ln 2 in two parts; the first has few digits, so that k times it is exact.
    F r = Lanes::sub(clamped, Lanes::mul(k, Lanes::broadcast(0.693359375F)));
    r = Lanes::sub(r, Lanes::mul(k, Lanes::broadcast(-2.12194440e-4F)));
    constexpr float kCoefficients[] = {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 0.5F};
    F polynomial = Lanes::broadcast(1.9875691500e-4F);
    for (const float coefficient : kCoefficients)
        polynomial = Lanes::add(Lanes::mul(polynomial, r), Lanes::broadcast(coefficient));
    polynomial = Lanes::add(Lanes::mul(polynomial, Lanes::mul(r, r)), Lanes::add(r, Lanes::broadcast(1.0F)));
    return Lanes::add_exponent(polynomial, k);
}

MVDE_INLINE std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// The job's parameters for a conversion. A copy, because the compiler must assume that stores to a row of floats alias the
// job's.
struct Mapping {
    F scale, shift, log_min, log_span, lower, upper;
    std::uint32_t low, span;  // bits of the bounds: the lower one, and its distance to the upper one
    bool clamps;
};

MVDE_INLINE Mapping mapping_of(const PostprocessJob &job) {
    const std::uint32_t low = bits_of(job.lower_m);
    return {Lanes::broadcast(job.scale),
            Lanes::broadcast(job.shift),
            Lanes::broadcast(job.log_min),
            Lanes::broadcast(job.log_span),
            Lanes::broadcast(job.lower_m),
            Lanes::broadcast(job.upper_m),
            low,
            bits_of(job.upper_m) - low,
            job.clamps};
}

struct Linear {
    static MVDE_INLINE F metres(F x, const Mapping &mapping) {
        return Lanes::add(Lanes::mul(x, mapping.scale), mapping.shift);
    }
};

struct Unchanged {  // linear with scale 1 and shift 0, as exported graphs need
    static MVDE_INLINE F metres(F x, const Mapping &) { return x; }
};

struct Inverse {
    static MVDE_INLINE F metres(F x, const Mapping &mapping) {
        const F metres = Lanes::div(Lanes::broadcast(1.0F), Linear::metres(x, mapping));
        constexpr std::uint32_t kSmallest = 1, kInfinite = 0x7F800000;
        return Lanes::keep(Lanes::in_bits(x, kSmallest, kInfinite - kSmallest), metres);  // x > 0, else 0: invalid
    }
};

struct Exp {
    static MVDE_INLINE F metres(F x, const Mapping &mapping) {
        const F exponent = Linear::metres(x, mapping);
        const M in_range = Lanes::ordered(Lanes::sub(exponent, exponent));  // neither NaN nor infinite
        const F limited = Lanes::select(in_range, exponent, Lanes::broadcast(kNaN));
        return Lanes::select(in_range, exponential(limited), limited);
    }
};

struct LogSigmoid {
    static MVDE_INLINE F metres(F x, const Mapping &mapping) {
        const F one = Lanes::broadcast(1.0F);
        const F logit = Linear::metres(x, mapping);
        const F negative = Lanes::sub(Lanes::broadcast(0.0F), logit);
        const F sigmoid = Lanes::div(one, Lanes::add(one, exponential(negative)));
        const F exponent = Lanes::add(mapping.log_min, Lanes::mul(sigmoid, mapping.log_span));
        return Lanes::select(Lanes::ordered(logit), exponential(exponent), Lanes::broadcast(kNaN));
    }
};

struct Float32 {
    using Element = float;
    static MVDE_INLINE F load(const float *p) { return Lanes::load(p); }
};
struct Float16 {
    using Element = std::uint16_t;
    static MVDE_INLINE F load(const std::uint16_t *p) { return Lanes::load_f16(p); }
};
struct BFloat16 {
    using Element = std::uint16_t;
    static MVDE_INLINE F load(const std::uint16_t *p) { return Lanes::load_bf16(p); }
};

// Sixteen pixels: metres where valid, NaN elsewhere. Positive floats sort like their bit patterns, so one unsigned
// comparison tests "finite, > 0 and within the bounds", also for NaN and negative values.
template <class Conversion>
MVDE_INLINE F valid_metres(F raw, const Mapping &mapping, M &valid) {
    constexpr std::uint32_t kSmallest = 1, kLargest = 0x7F7FFFFF;
    F metres = Conversion::metres(raw, mapping);
    if (mapping.clamps) {
        valid = Lanes::in_bits(metres, kSmallest, kLargest - kSmallest);
        metres = Lanes::min(Lanes::max(metres, mapping.lower), mapping.upper);
    } else {
        valid = Lanes::in_bits(metres, mapping.low, mapping.span);
    }
    return Lanes::select(valid, metres, Lanes::broadcast(kNaN));
}

// Prefetches a later address. Computed as an integer, because it may lie outside the map, where a pointer must not point.
MVDE_INLINE void prefetch(const void *p, std::int64_t ahead_bytes) {
    __builtin_prefetch(
        reinterpret_cast<const void *>(reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(ahead_bytes)));
}

MVDE_INLINE void store_first(float *p, F x, std::int64_t count) {
    if (count >= kLanes) return Lanes::store(p, x);
    float chunk[kLanes];
    Lanes::store(chunk, x);
    std::memcpy(p, chunk, static_cast<std::size_t>(count) * sizeof(float));
}

// Converts `count` pixels into `out`, which has room for `room` floats; lanes past the end repeat the last pixel, as border
// replication requires. Returns whether all of them are valid.
template <class Source, class Conversion>
bool convert_row(const PostprocessJob &job, const unsigned char *row, std::int64_t count, float *out, std::int64_t room) {
    using Element = typename Source::Element;
    const Mapping mapping = mapping_of(job);
    const std::int64_t step = job.raw.pixel_stride;
    const bool dense = step == static_cast<std::int64_t>(sizeof(Element));
    M all = Lanes::first(kLanes);
    std::int64_t x = 0;
    for (; dense && x + kLanes <= count; x += kLanes) {
        // The same row of the next tile: the jumps between rows defeat the hardware prefetcher.
        prefetch(row + x * step, count * step);
        M valid;
        Lanes::store(out + x,
                     valid_metres<Conversion>(Source::load(reinterpret_cast<const Element *>(row) + x), mapping, valid));
        all = Lanes::both(all, valid);
    }
    for (; x < count; x += kLanes) {
        Element gathered[kLanes];
        for (std::int64_t i = 0; i < kLanes; ++i) {
            const std::int64_t column = x + i < count ? x + i : count - 1;
            std::memcpy(&gathered[i], row + column * step, sizeof(Element));
        }
        M valid;
        store_first(out + x, valid_metres<Conversion>(Source::load(gathered), mapping, valid), room - x);
        all = Lanes::both(all, valid);
    }
    return Lanes::all(all);
}

using RowConverter = bool (*)(const PostprocessJob &, const unsigned char *, std::int64_t, float *, std::int64_t);

template <class Source>
RowConverter converter_from(const PostprocessJob &job) {
    switch (job.conversion) {
        case MVDE_INVERSE: return convert_row<Source, Inverse>;
        case MVDE_EXP: return convert_row<Source, Exp>;
        case MVDE_LOG_SIGMOID: return convert_row<Source, LogSigmoid>;
        default: break;
    }
    const bool unchanged = job.scale == 1.0F && job.shift == 0.0F;
    return unchanged ? convert_row<Source, Unchanged> : convert_row<Source, Linear>;
}

inline RowConverter row_converter(const PostprocessJob &job) {
    switch (job.raw.dtype) {
        case MVDE_FLOAT16: return converter_from<Float16>(job);
        case MVDE_BFLOAT16: return converter_from<BFloat16>(job);
        default: return converter_from<Float32>(job);
    }
}

// Writes `count` pixels of the tile as float32 metres or uint16 millimetres.
inline void write_row(const PostprocessJob &job, const float *tile, std::int64_t count, unsigned char *row) {
    const F invalid = Lanes::broadcast(job.invalid_m);
    const F rounder = Lanes::broadcast(8388608.0F);  // 2^23: rounds to whole millimetres, ties to even
    for (std::int64_t x = 0; x < count; x += kLanes) {
        const F metres = Lanes::load(tile + x);
        const std::int64_t left = count - x < kLanes ? count - x : kLanes;
        if (job.depth.dtype == MVDE_UINT16) {
            F mm = Lanes::sub(Lanes::add(Lanes::mul(metres, Lanes::broadcast(1000.0F)), rounder), rounder);
            mm = Lanes::keep(Lanes::in_bits(mm, 0, 0x477FFF00U /* bits of 65535.0f */), mm);
            std::uint16_t chunk[kLanes];
            Lanes::store_u16(chunk, mm);
            std::memcpy(row + x * 2, chunk, static_cast<std::size_t>(left) * 2);
        } else {
            store_first(reinterpret_cast<float *>(row) + x, Lanes::select(Lanes::ordered(metres), metres, invalid), left);
        }
    }
}

}  // namespace
}  // namespace mvde::internal
