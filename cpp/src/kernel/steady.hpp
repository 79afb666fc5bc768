// Loops of steady depth over a row, compiled for each instruction set; the compiler vectorises them. The arithmetic is that
// of mvde/runtime/stabilize.py, exact_math.py and steady_scale.py.
#pragma once

#include "kernel/steady_job.hpp"

#include <cstdint>
#include <cstring>
#include <limits>

// Outputs that are inputs keep their place: the compiler need not look for overlaps.
#if defined(__clang__)
#define MVDE_IN_PLACE _Pragma("clang loop vectorize(assume_safety)")
#else
#define MVDE_IN_PLACE _Pragma("GCC ivdep")
#endif

namespace mvde::internal {
namespace {

constexpr float kSteadyNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kSteadyInfinity = std::numeric_limits<float>::infinity();
// ln 2 in two parts, of which the first has 9 bits.
constexpr float kLn2High = 0.693359375F, kLn2Low = static_cast<float>(-2.12194440e-4);
constexpr float kLog2E = static_cast<float>(1.44269504), kSqrtHalf = static_cast<float>(0.70710678);
constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding and subtracting it rounds to whole numbers, half to even
constexpr float kUnits = 65536.0F, kLargestValue = 16.0F;

float of_signed_bits(std::int32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

std::int32_t signed_bits(float value) {
    std::int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

float rounded(float value) { return (value + kRound) - kRound; }

// Natural logarithm; NaN of what is not above 0 and finite.
float log_of(float value) {
    const bool known = (value > 0.0F) & (value < kSteadyInfinity);
    const float given = known ? value : 1.0F;
    const bool is_tiny = given < std::numeric_limits<float>::min();
    const float normal = given * (is_tiny ? 16777216.0F : 1.0F);
    const std::int32_t bits = signed_bits(normal);
    const float half = of_signed_bits((bits & 0x7FFFFF) | 0x3F000000);
    const bool below = half < kSqrtHalf;
    const float mantissa = half + (below ? half : 0.0F);
    const auto power = static_cast<float>((bits >> 23) - 126 - (below ? 1 : 0) - (is_tiny ? 24 : 0));
    const float offset = mantissa - 1.0F, s = offset / (2.0F + offset), z = s * s;
    float series = static_cast<float>(1.0 / 9) * z;
    series = (series + static_cast<float>(1.0 / 7)) * z;
    series = (series + static_cast<float>(1.0 / 5)) * z;
    series = (series + static_cast<float>(1.0 / 3)) * z;
    const float twice = s + s, logs = (power * kLn2Low + twice * series) + twice;
    const float found = logs + power * kLn2High;
    return known ? found : kSteadyNan;
}

// Exponential of a number that is bounded to 80 either way.
float exp_of(float value) {
    const float low = value > -80.0F ? value : -80.0F, bounded = low < 80.0F ? low : 80.0F;
    const float power = rounded(bounded * kLog2E), rest = (bounded - power * kLn2High) - power * kLn2Low;
    float series = static_cast<float>(1.0 / 5040) * rest;
    series = (series + static_cast<float>(1.0 / 720)) * rest;
    series = (series + static_cast<float>(1.0 / 120)) * rest;
    series = (series + static_cast<float>(1.0 / 24)) * rest;
    series = (series + static_cast<float>(1.0 / 6)) * rest;
    series = (series + 0.5F) * rest;
    series = (series + 1.0F) * rest;
    // The product with 2^power is normal: its exponent is added.
    return of_signed_bits(signed_bits(series + 1.0F) + (static_cast<std::int32_t>(power) << 23));
}

void steady_log(const float *values, std::int64_t count, float *out) {
    MVDE_IN_PLACE
    for (std::int64_t i = 0; i < count; ++i) out[i] = log_of(values[i]);
}

void steady_affine(const float *values, std::int64_t count, float origin, float factor, float *out) {
    MVDE_IN_PLACE
    for (std::int64_t i = 0; i < count; ++i) {
        const bool known = (values[i] > 0.0F) & (values[i] < kSteadyInfinity);
        out[i] = ((known ? values[i] : kSteadyNan) - origin) * factor;
    }
}

void steady_subtract(float *values, std::int64_t count, float change) {
    for (std::int64_t i = 0; i < count; ++i) values[i] = values[i] - change;
}

void steady_line(float *values, std::int64_t count, float scale, float shift, float kept) {
    for (std::int64_t i = 0; i < count; ++i) values[i] = values[i] + kept * ((values[i] * scale + shift) - values[i]);
}

// Places of pixels in the past: the neighbour above and to the left, and the shares of those below and to the right.
struct Places {
    static constexpr std::int64_t kCount = 256;
    std::int32_t at[kCount];
    float below[kCount], right[kCount];
    float added[kCount];  // to what is found there: NaN outside the map
};

void find_places(const FollowRow &row, std::int64_t first, std::int64_t count, Places &places) {
    const float bottom = static_cast<float>(row.height) - 0.5F, right = static_cast<float>(row.width) - 0.5F;
    const auto last_row = static_cast<float>(row.height - 1), last_column = static_cast<float>(row.width - 1);
    const auto lowest_top = static_cast<std::int32_t>(row.height - 2), last_left = static_cast<std::int32_t>(row.width - 2);
    const auto stride = static_cast<std::int32_t>(row.width);
    const float *const columns = row.columns + first, *const cross_rows = row.cross_rows + first;
    const float base = row.row, cross_column = row.cross_column, nearer = row.nearer;
    for (std::int64_t i = 0; i < count; ++i) {
        const float at_row = base + cross_rows[i], at_column = columns[i] - cross_column;
        const bool is_inside = (at_row >= -0.5F) & (at_row <= bottom) & (at_column >= -0.5F) & (at_column <= right);
        places.added[i] = is_inside ? nearer : kSteadyNan;
        const float below_top = at_row > 0.0F ? at_row : 0.0F, y = below_top < last_row ? below_top : last_row;
        const float from_left = at_column > 0.0F ? at_column : 0.0F, x = from_left < last_column ? from_left : last_column;
        const auto whole_row = static_cast<std::int32_t>(y), whole_column = static_cast<std::int32_t>(x);
        const std::int32_t top = whole_row < lowest_top ? whole_row : lowest_top;
        const std::int32_t left = whole_column < last_left ? whole_column : last_left;
        places.below[i] = y - static_cast<float>(top);
        places.right[i] = x - static_cast<float>(left);
        places.at[i] = top * stride + left;
    }
}

// Neighbours are read in pairs, one by one: gathers of AVX2 are no faster, and SSE and NEON have none.
void interpolate(const float *past, std::int64_t width, const Places &places, std::int64_t count, float *out) {
    float upper[2 * Places::kCount], lower[2 * Places::kCount];
    for (std::int64_t i = 0; i < count; ++i) {
        const float *const from = past + places.at[i];
        std::memcpy(upper + 2 * i, from, 2 * sizeof(float));
        std::memcpy(lower + 2 * i, from + width, 2 * sizeof(float));
    }
    for (std::int64_t i = 0; i < count; ++i) {
        const float u = places.right[i], left = upper[2 * i], under_left = lower[2 * i];
        const float above = left + u * (upper[2 * i + 1] - left), under = under_left + u * (lower[2 * i + 1] - under_left);
        out[i] = (above + places.below[i] * (under - above)) + places.added[i];
    }
}

void steady_follow(const FollowRow &row) {
    Places places;
    for (std::int64_t first = 0; first < row.count; first += Places::kCount) {
        const std::int64_t rest = row.count - first, count = rest < Places::kCount ? rest : Places::kCount;
        find_places(row, first, count, places);
        for (int i = 0; i < FollowRow::kMaps && row.past[i]; ++i)
            interpolate(row.past[i], row.width, places, count, row.out[i] + first);
    }
}

// Each sum is in the order of the pixels; four of them are computed at a time.
void steady_normal_sums(NormalJob &job) {
    typedef double Four __attribute__((vector_size(32)));
    const float middle = static_cast<float>(static_cast<double>(job.side - 1) / 2);
    const Four scale = {1.0, 1.0, job.turn_scale, job.turn_scale};
    Four sums[5] = {};
    for (std::int64_t row = 0, at = 0; row < job.side; ++row) {
        const float y = static_cast<float>(row) - middle;
        for (std::int64_t column = 0; column < job.side; ++column, ++at) {
            if (job.weight[at] == 0.0F) continue;  // outside, where slopes are not known
            const float x = static_cast<float>(column) - middle, gx = job.gx[at], gy = job.gy[at];
            const float grown = gx * x + gy * y, turned = gy * x * job.over - gx * y * job.under;
            const Four slopes = {static_cast<double>(gx), static_cast<double>(gy), static_cast<double>(grown),
                                 static_cast<double>(turned)};
            const Four columns = slopes * scale;
            const auto weight = static_cast<double>(job.weight[at]), left = static_cast<double>(job.left[at]);
            for (int i = 0; i < 4; ++i) sums[i] += columns[i] * columns * weight;
            sums[4] += columns * left * weight;
        }
    }
    std::memcpy(job.sums, sums, sizeof sums);
}

// The second one where one is NaN.
float smaller(float one, float other) { return one < other ? one : other; }
float larger(float one, float other) { return one > other ? one : other; }

// Extremes of the three values of each column, with the first and last column repeated. A column is as unknown as its middle.
void column_ranges(const float *const (&rows)[3], std::int64_t count, float *low, float *high) {
    const float *const above = rows[0], *const middle = rows[1], *const below = rows[2];
    MVDE_IN_PLACE
    for (std::int64_t i = 0; i < count; ++i) {
        low[i + 1] = smaller(below[i], smaller(above[i], middle[i]));
        high[i + 1] = larger(below[i], larger(above[i], middle[i]));
    }
    low[0] = low[1], low[count + 1] = low[count];
    high[0] = high[1], high[count + 1] = high[count];
}

// By how much a value is outside the extremes of the columns around, of which the middle one is known: 0 inside.
float outside(float value, const float *low, const float *high) {
    const float above = value - larger(high[2], larger(high[0], high[1]));
    const float below = smaller(low[2], smaller(low[0], low[1])) - value;
    return larger(larger(above, below), 0.0F);
}

void steady_blend(const Blend &blend, const BlendRow &row) {
    const std::int64_t count = row.count, stride = count + 2;
    float *const low = row.ranges, *const high = low + stride, *const past_low = high + stride,
                 *const past_high = past_low + stride, *const out = row.out;
    column_ranges(row.values, count, low, high);
    column_ranges(row.past, count, past_low, past_high);
    const float *const values = row.values[1], *const past = row.past[1];
    MVDE_IN_PLACE
    for (std::int64_t i = 0; i < count; ++i) {
        const float difference = values[i] - past[i];
        const float apart = larger(outside(past[i], low + i, high + i), outside(values[i], past_low + i, past_high + i));
        const float distance = apart * blend.per_unit;
        const float opened = (distance - blend.open) * blend.slope;
        const float bounded = smaller(larger(opened, 0.0F), 1.0F);
        const float share = blend.gain + blend.rest * bounded, mixed = past[i] + share * difference;
        out[i] = difference == difference ? mixed : values[i];
    }
}

void steady_leave_log(const float *values, const float *raw, std::int64_t count, float *out) {
    MVDE_IN_PLACE
    for (std::int64_t i = 0; i < count; ++i) {
        const bool known = (raw[i] > 0.0F) & (raw[i] < kSteadyInfinity);
        const float found = exp_of(known ? values[i] : 0.0F);
        out[i] = known ? found : raw[i];
    }
}

void steady_leave_affine(const float *values, const float *raw, std::int64_t count, float origin, float unit, float *out) {
    MVDE_IN_PLACE
    for (std::int64_t i = 0; i < count; ++i) {
        const bool known = (raw[i] > 0.0F) & (raw[i] < kSteadyInfinity);
        const float found = values[i] * unit + origin;
        out[i] = known ? found : raw[i];
    }
}

std::int32_t units_of(float value) {
    const float low = value > -kLargestValue ? value : -kLargestValue;
    return static_cast<std::int32_t>(rounded((low < kLargestValue ? low : kLargestValue) * kUnits));
}

void steady_units_of_difference(const float *values, const float *past, std::int64_t count, std::int32_t *units,
                                std::int32_t *known) {
    for (std::int64_t i = 0; i < count; ++i) {
        const float difference = values[i] - past[i];
        const bool is_known = difference == difference;
        units[i] = units_of(is_known ? difference : 0.0F);
        known[i] = is_known ? 1 : 0;
    }
}

void steady_units_of_both(const float *values, const float *past, std::int64_t count, std::int32_t *units,
                          std::int32_t *past_units, std::int32_t *known) {
    for (std::int64_t i = 0; i < count; ++i) {
        const bool is_known = (values[i] == values[i]) & (past[i] == past[i]);
        units[i] = units_of(is_known ? values[i] : 0.0F);
        past_units[i] = units_of(is_known ? past[i] : 0.0F);
        known[i] = is_known ? 1 : 0;
    }
}

void steady_add_bytes(const std::uint8_t *bytes, std::int64_t count, std::int32_t *sums) {
    for (std::int64_t i = 0; i < count; ++i) sums[i] += bytes[i];
}

constexpr SteadyKernel kSteady = {steady_log,           steady_affine,       steady_subtract,
                                  steady_line,          steady_follow,       steady_blend,
                                  steady_leave_log,     steady_leave_affine, steady_units_of_difference,
                                  steady_units_of_both, steady_normal_sums,  steady_add_bytes};

}  // namespace
}  // namespace mvde::internal

#undef MVDE_IN_PLACE
