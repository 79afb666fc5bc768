// Arguments of the loops of steady depth: plain data, as in interface.hpp.
#pragma once

#include <cstdint>

namespace mvde::internal {

// One row of maps of the past, moved: where each of its pixels was, bilinearly. Places are `row + cross_rows[x]` and
// `columns[x] - cross_column`; what lies outside the map is NaN. `nearer` is added to what is found.
struct FollowRow {
    static constexpr int kMaps = 3;
    const float *past[kMaps];  // [height, width] each; nullptr after the last
    float *out[kMaps];
    std::int64_t height, width;
    const float *columns, *cross_rows;
    float row, cross_column, nearer;
    std::int64_t count;
};

// A step of Gauss-Newton over [side, side] pixels: slopes of the picture, what is left of the difference, and weights.
struct NormalJob {
    const float *gx, *gy, *left, *weight;
    std::int64_t side;
    double turn_scale;  // of the columns of zoom and roll
    float over, under;  // 1 / aspect, and the aspect
    double sums[5][4];  // written: of the products of the four columns with each of them, and with `left`
};

// How values are averaged with the past: their share opens linearly from `open` on, a distance by which one of the two is
// outside what the other has in the 3x3 pixels around.
struct Blend {
    float gain, rest, per_unit, open, slope;
};

// A row of values and of their past with the rows above and below, which are the row itself at a border.
struct BlendRow {
    const float *values[3], *past[3];  // above, the row, below
    std::int64_t count;
    float *ranges;  // scratch, four rows of count + 2
    float *out;  // none of the inputs
};

// The loops of steady depth over rows of `count` values, in the arithmetic of mvde/runtime/stabilize.py. Inputs and outputs
// may be the same.
struct SteadyKernel {
    void (*log)(const float *values, std::int64_t count, float *out);  // NaN of what is not above 0 and finite
    void (*affine)(const float *values, std::int64_t count, float origin, float factor, float *out);  // likewise
    void (*subtract)(float *values, std::int64_t count, float change);
    void (*line)(float *values, std::int64_t count, float scale, float shift, float kept);
    void (*follow)(const FollowRow &row);
    void (*blend)(const Blend &blend, const BlendRow &row);
    // Values as depth again; `raw` where it has none.
    void (*leave_log)(const float *values, const float *raw, std::int64_t count, float *out);
    void (*leave_affine)(const float *values, const float *raw, std::int64_t count, float origin, float unit, float *out);
    // Whole units of values, 0 where a value or its past is NaN, and 1 where neither is: of the difference, or of both.
    void (*units_of_difference)(const float *values, const float *past, std::int64_t count, std::int32_t *units,
                                std::int32_t *known);
    void (*units_of_both)(const float *values, const float *past, std::int64_t count, std::int32_t *units,
                          std::int32_t *past_units, std::int32_t *known);
    void (*normal_sums)(NormalJob &job);
    void (*add_bytes)(const std::uint8_t *bytes, std::int64_t count, std::int32_t *sums);
};

}  // namespace mvde::internal
