// Resampling along y, and of depth, in plain loops that the compiler vectorises for each instruction set. The arithmetic,
// including where values are rounded, is that of Pillow's resample.c, and of mvde/resampling.py for depth maps with holes.
#pragma once

#include "kernel/convert.hpp"
#include "kernel/interface.hpp"
#include "kernel/resample_rgb.hpp"

namespace mvde::internal {
namespace {

// Whether the value is finite: an inverse map is 0, and counts, where it gives no distance.
inline bool is_depth(float value) { return (bits_of(value) & 0x7FFFFFFFU) < bits_of(kInfinity); }

inline bool find_holes(const float *row, std::int64_t num_inputs) {
    std::uint32_t found = 0;
    for (std::int64_t x = 0; x < num_inputs; ++x) found |= is_depth(row[x]) ? 0U : 1U;
    return found != 0;
}

#ifdef __AVX2__
// Both taps of a group's outputs, in one register.
inline __m256 load_group(const float *row, const GroupedTaps &grouped, std::int64_t x) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(grouped.lanes + 2 * x));
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(row + grouped.start[x / kDepthGroup]), lanes);
}

inline __m256d masked(__m256d values, __m128i mask) {
    return _mm256_and_pd(values, _mm256_castsi256_pd(_mm256_cvtepi32_epi64(mask)));
}

// Sums over taps as in resample_row_with_holes: what is left out there is added as 0 here, to a sum that is never -0.0.
struct HoleSums {
    __m256d sum = _mm256_setzero_pd(), weight = sum, missing = sum, far = sum;

    void add(__m128 depth, __m128i is_finite, __m128i is_far, __m256d tap) {
        sum = _mm256_add_pd(sum, _mm256_mul_pd(_mm256_cvtps_pd(depth), tap));
        const __m256d used = masked(tap, is_finite);
        weight = _mm256_add_pd(weight, used);
        missing = _mm256_add_pd(missing, _mm256_sub_pd(tap, used));
        far = _mm256_add_pd(far, masked(tap, is_far));
    }
    __m256d is_missing() const { return _mm256_cmp_pd(missing, _mm256_setzero_pd(), _CMP_GT_OQ); }
};

// Outputs [0, grouped.num_grouped) of row `y`. Returns that number.
inline std::int64_t resample_groups_with_holes(const float *row, const GroupedTaps &grouped, std::int64_t at,
                                               const DepthRows &rows) {
    const __m256i infinity = _mm256_set1_epi32(static_cast<std::int32_t>(bits_of(kInfinity)));
    for (std::int64_t x = 0; x < grouped.num_grouped; x += kDepthGroup) {
        const __m256 depth = load_group(row, grouped, x);
        const __m256i bits = _mm256_castps_si256(depth), magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
        const __m256i finite = _mm256_cmpgt_epi32(infinity, magnitude), far = _mm256_cmpeq_epi32(bits, infinity);
        const __m256 kept = _mm256_and_ps(depth, _mm256_castsi256_ps(finite));
        HoleSums sums;
        sums.add(_mm256_castps256_ps128(kept), _mm256_castsi256_si128(finite), _mm256_castsi256_si128(far),
                 _mm256_loadu_pd(grouped.weights + 2 * x));
        sums.add(_mm256_extractf128_ps(kept, 1), _mm256_extracti128_si256(finite, 1), _mm256_extracti128_si256(far, 1),
                 _mm256_loadu_pd(grouped.weights + 2 * x + kDepthGroup));
        _mm_storeu_ps(rows.depth + at + x, _mm256_cvtpd_ps(sums.sum));
        const __m256d weight = _mm256_blendv_pd(_mm256_set1_pd(1.0), sums.weight, sums.is_missing());
        _mm_storeu_ps(rows.weight + at + x, _mm256_cvtpd_ps(weight));
        _mm_storeu_ps(rows.far_weight + at + x, _mm256_cvtpd_ps(sums.far));
    }
    return grouped.num_grouped;
}
#else
inline std::int64_t resample_groups_with_holes(const float *, const GroupedTaps &, std::int64_t, const DepthRows &) {
    return 0;
}
#endif

void resample_row_with_holes(const float *row, const Taps &taps, const GroupedTaps &grouped, std::int64_t y,
                             const DepthRows &rows) {
    std::int64_t x = resample_groups_with_holes(row, grouped, y * taps.num_outputs, rows);
    for (; x < taps.num_outputs; ++x) {
        const float *depth = row + taps.first[x];
        const double *weights = taps.exact + x * taps.stride;
        double sum = 0, weight = 0, missing = 0, far = 0;
        for (std::int32_t i = 0; i < taps.count[x]; ++i) {
            if (is_depth(depth[i])) {
                sum += static_cast<double>(depth[i]) * weights[i];
                weight += weights[i];
            } else {
                missing += weights[i];
                if (bits_of(depth[i]) == bits_of(kInfinity)) far += weights[i];
            }
        }
        const std::int64_t at = y * taps.num_outputs + x;
        rows.depth[at] = static_cast<float>(sum);
        rows.weight[at] = missing > 0 ? static_cast<float>(weight) : 1.0F;
        rows.far_weight[at] = static_cast<float>(far);
    }
}

#ifdef __AVX2__
// Outputs [0, grouped.num_grouped), whose number is returned.
inline std::int64_t resample_groups(const float *row, const GroupedTaps &grouped, float *out) {
    const auto product = [](__m128 depth, const double *weights) {
        return _mm256_mul_pd(_mm256_cvtps_pd(depth), _mm256_loadu_pd(weights));
    };
    for (std::int64_t x = 0; x < grouped.num_grouped; x += kDepthGroup) {
        const __m256 depth = load_group(row, grouped, x);
        // Not -0.0, as after adding to 0.
        const __m256d one = _mm256_add_pd(_mm256_setzero_pd(),
                                          product(_mm256_castps256_ps128(depth), grouped.weights + 2 * x));
        const __m256d both = _mm256_add_pd(one,
                                           product(_mm256_extractf128_ps(depth, 1), grouped.weights + 2 * x + kDepthGroup));
        _mm_storeu_ps(out + x, _mm256_cvtpd_ps(both));
    }
    return grouped.num_grouped;
}
#else
inline std::int64_t resample_groups(const float *, const GroupedTaps &, float *) { return 0; }
#endif

void resample_row_depth(const float *row, std::int64_t num_inputs, const Taps &taps, const GroupedTaps &grouped,
                        std::int64_t y, const DepthRows &rows) {
    rows.has_holes[y] = find_holes(row, num_inputs);
    if (rows.has_holes[y]) {
        resample_row_with_holes(row, taps, grouped, y, rows);
        return;
    }
    float *out = rows.depth + y * taps.num_outputs;
    for (std::int64_t x = resample_groups(row, grouped, out); x < taps.num_outputs; ++x) {
        const float *depth = row + taps.first[x];
        const double *weights = taps.exact + x * taps.stride;
        double sum = 0;
        for (std::int32_t i = 0; i < taps.count[x]; ++i) sum += static_cast<double>(depth[i]) * weights[i];
        out[x] = static_cast<float>(sum);
    }
}

#ifdef __AVX2__
inline __m128 narrowed(__m256d mask) {
    const __m256 all = _mm256_castpd_ps(mask);
    return _mm_shuffle_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1), 0x88);
}

// Four values at a time. Returns the end of what was written.
inline std::int64_t resample_most_with_holes(const DepthRows &rows, std::int64_t width, const Taps &taps, std::int64_t y,
                                             float invalid_m, float far_m, float *out) {
    const auto load = [](const float *values) { return _mm256_cvtps_pd(_mm_loadu_ps(values)); };
    std::int64_t x = 0;
    for (; x + kDepthGroup <= width; x += kDepthGroup) {
        HoleSums sums;
        for (std::int32_t k = 0; k < taps.count[y]; ++k) {
            const std::int64_t row = taps.first[y] + k, at = row * width + x;
            const __m256d tap = _mm256_set1_pd(taps.exact[y * taps.stride + k]);
            sums.sum = _mm256_add_pd(sums.sum, _mm256_mul_pd(load(rows.depth + at), tap));
            if (!rows.has_holes[row]) {
                sums.weight = _mm256_add_pd(sums.weight, tap);
                continue;
            }
            const __m256d with_depth = load(rows.weight + at);
            sums.weight = _mm256_add_pd(sums.weight, _mm256_mul_pd(with_depth, tap));
            const __m256d without = _mm256_sub_pd(_mm256_set1_pd(1.0), with_depth);
            sums.missing = _mm256_add_pd(sums.missing, _mm256_mul_pd(without, tap));
            sums.far = _mm256_add_pd(sums.far, _mm256_mul_pd(load(rows.far_weight + at), tap));
        }
        const __m256d is_missing = sums.is_missing(), mean = _mm256_div_pd(sums.sum, sums.weight);
        const __m128 depth = _mm256_cvtpd_ps(_mm256_blendv_pd(sums.sum, mean, is_missing));
        const __m256d is_far = _mm256_cmp_pd(sums.far, _mm256_sub_pd(sums.missing, sums.far), _CMP_GT_OQ);
        const __m128 hole = _mm_blendv_ps(_mm_set1_ps(invalid_m), _mm_set1_ps(far_m), narrowed(is_far));
        const __m128 is_most = _mm_cmplt_ps(_mm256_cvtpd_ps(sums.weight), _mm_set1_ps(0.5F));
        _mm_storeu_ps(out + x, _mm_blendv_ps(depth, hole, _mm_and_ps(is_most, narrowed(is_missing))));
    }
    return x;
}
#else
inline std::int64_t resample_most_with_holes(const DepthRows &, std::int64_t, const Taps &, std::int64_t, float, float,
                                             float *) {
    return 0;
}
#endif

void resample_column_with_holes(const DepthRows &rows, std::int64_t width, const Taps &taps, std::int64_t y, float invalid_m,
                                float *out) {
    const double *weights = taps.exact + y * taps.stride;
    const float far_m = invalid_m == 0.0F ? 0.0F : kInfinity;  // 0 stands for every pixel without depth
    constexpr int kChunk = 16;
    for (std::int64_t x = resample_most_with_holes(rows, width, taps, y, invalid_m, far_m, out); x < width; x += kChunk) {
        const int count = width - x < kChunk ? static_cast<int>(width - x) : kChunk;
        double sum[kChunk] = {}, weight[kChunk] = {}, missing[kChunk] = {}, far[kChunk] = {};
        for (std::int32_t k = 0; k < taps.count[y]; ++k) {
            const std::int64_t row = taps.first[y] + k, at = row * width + x;
            for (int i = 0; i < count; ++i) sum[i] += static_cast<double>(rows.depth[at + i]) * weights[k];
            if (!rows.has_holes[row]) {
                for (int i = 0; i < count; ++i) weight[i] += weights[k];
                continue;
            }
            for (int i = 0; i < count; ++i) {
                const auto with_depth = static_cast<double>(rows.weight[at + i]);
                weight[i] += with_depth * weights[k];
                missing[i] += (1.0 - with_depth) * weights[k];
                far[i] += static_cast<double>(rows.far_weight[at + i]) * weights[k];
            }
        }
        for (int i = 0; i < count; ++i) {
            const auto mean = static_cast<float>(missing[i] > 0 ? sum[i] / weight[i] : sum[i]);
            const float without = far[i] > missing[i] - far[i] ? far_m : invalid_m;
            out[x + i] = missing[i] > 0 && static_cast<float>(weight[i]) < 0.5F ? without : mean;
        }
    }
}

void resample_column_depth(const DepthRows &rows, std::int64_t width, const Taps &taps, std::int64_t y, float invalid_m,
                           float *out) {
    for (std::int32_t k = 0; k < taps.count[y]; ++k)
        if (rows.has_holes[taps.first[y] + k]) {
            resample_column_with_holes(rows, width, taps, y, invalid_m, out);
            return;
        }
    const float *first = rows.depth + taps.first[y] * width;
    const double *weights = taps.exact + y * taps.stride;
    const std::int32_t count = taps.count[y];
    if (count == 2) {  // every row between others of an enlarged map
        const float *second = first + width;
        for (std::int64_t x = 0; x < width; ++x) {
            const double sum = 0.0 + static_cast<double>(first[x]) * weights[0];  // not -0.0
            out[x] = static_cast<float>(sum + static_cast<double>(second[x]) * weights[1]);
        }
        return;
    }
    constexpr int kChunk = 16;
    std::int64_t x = 0;
    for (; x + kChunk <= width; x += kChunk) {
        double sums[kChunk] = {};
        for (std::int32_t k = 0; k < count; ++k) {
            const float *row = first + k * width + x;
            for (int i = 0; i < kChunk; ++i) sums[i] += static_cast<double>(row[i]) * weights[k];
        }
        for (int i = 0; i < kChunk; ++i) out[x + i] = static_cast<float>(sums[i]);
    }
    for (; x < width; ++x) {
        double sum = 0;
        for (std::int32_t k = 0; k < count; ++k) sum += static_cast<double>(first[k * width + x]) * weights[k];
        out[x] = static_cast<float>(sum);
    }
}

}  // namespace
}  // namespace mvde::internal
