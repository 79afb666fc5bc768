// One-dimensional resampling of images and depth, in plain loops that the compiler vectorises for each instruction set. The
// arithmetic, including where values are rounded, is that of Pillow's resample.c, and of mvde/resampling.py for depth maps
// with holes.
#pragma once

#include "kernel/convert.hpp"
#include "kernel/interface.hpp"

#ifdef __AVX2__
#include <immintrin.h>

#include <cstring>
#endif

namespace mvde::internal {
namespace {

constexpr int kFixedPointBits = 22;  // 32 less 8 for the pixel and 2 to keep sums of weights from overflowing

inline std::uint8_t to_byte(std::int32_t sum) {
    const std::int32_t value = sum >> kFixedPointBits;
    return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

inline void resample_pixel(const std::uint8_t *row, const Taps &taps, std::int64_t x, std::uint8_t *out) {
    const std::uint8_t *pixel = row + 3 * static_cast<std::int64_t>(taps.first[x]);
    const std::int32_t *weights = taps.fixed + x * taps.stride;
    std::int32_t red = 1 << (kFixedPointBits - 1), green = red, blue = red;
    for (std::int32_t i = 0; i < taps.count[x]; ++i, pixel += 3) {
        red += pixel[0] * weights[i];
        green += pixel[1] * weights[i];
        blue += pixel[2] * weights[i];
    }
    out[3 * x] = to_byte(red);
    out[3 * x + 1] = to_byte(green);
    out[3 * x + 2] = to_byte(blue);
}

#ifdef __AVX2__
// Outputs of a row before the first that uses the last input. Red, green, blue and the following byte are read and written
// together, so later outputs would access memory past the row. Returns the number written.
inline std::int64_t resample_pixels(const std::uint8_t *row, const Taps &taps, std::uint8_t *out) {
    const std::int32_t end = taps.first[taps.num_outputs - 1] + taps.count[taps.num_outputs - 1];
    std::int64_t x = 0;
    for (; taps.first[x] + taps.count[x] < end; ++x) {
        const std::uint8_t *pixel = row + 3 * static_cast<std::int64_t>(taps.first[x]);
        const std::int32_t *weights = taps.fixed + x * taps.stride;
        __m128i sums = _mm_set1_epi32(1 << (kFixedPointBits - 1));
        for (std::int32_t i = 0; i < taps.count[x]; ++i, pixel += 3) {
            std::int32_t bytes;  // _mm_loadu_si32 is wrong in GCC before 11.3
            std::memcpy(&bytes, pixel, sizeof bytes);
            const __m128i words = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes));
            sums = _mm_add_epi32(sums, _mm_mullo_epi32(words, _mm_set1_epi32(weights[i])));
        }
        const __m128i halves = _mm_packus_epi32(_mm_srai_epi32(sums, kFixedPointBits), _mm_setzero_si128());
        const std::int32_t packed = _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves));  // saturates to 0..255
        std::memcpy(out + 3 * x, &packed, sizeof packed);
    }
    return x;
}
#else
inline std::int64_t resample_pixels(const std::uint8_t *, const Taps &, std::uint8_t *) { return 0; }
#endif

void resample_row_rgb(const std::uint8_t *row, const Taps &taps, std::uint8_t *out) {
    for (std::int64_t x = resample_pixels(row, taps, out); x < taps.num_outputs; ++x) resample_pixel(row, taps, x, out);
}

// Whether the value is finite: an inverse map is 0, and counts, where it gives no distance.
inline bool is_depth(float value) { return (bits_of(value) & 0x7FFFFFFFU) < bits_of(kInfinity); }

inline bool find_holes(const float *row, std::int64_t num_inputs) {
    std::uint32_t found = 0;
    for (std::int64_t x = 0; x < num_inputs; ++x) found |= is_depth(row[x]) ? 0U : 1U;
    return found != 0;
}

void resample_row_with_holes(const float *row, const Taps &taps, std::int64_t y, const DepthRows &rows) {
    for (std::int64_t x = 0; x < taps.num_outputs; ++x) {
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

void resample_row_depth(const float *row, std::int64_t num_inputs, const Taps &taps, std::int64_t y, const DepthRows &rows) {
    rows.has_holes[y] = find_holes(row, num_inputs);
    if (rows.has_holes[y]) {
        resample_row_with_holes(row, taps, y, rows);
        return;
    }
    float *out = rows.depth + y * taps.num_outputs;
    for (std::int64_t x = 0; x < taps.num_outputs; ++x) {
        const float *depth = row + taps.first[x];
        const double *weights = taps.exact + x * taps.stride;
        double sum = 0;
        for (std::int32_t i = 0; i < taps.count[x]; ++i) sum += static_cast<double>(depth[i]) * weights[i];
        out[x] = static_cast<float>(sum);
    }
}

constexpr int kColumnChunk = 64;  // sums kept in registers while iterating over the taps

void resample_column_bytes(const std::uint8_t *rows, std::int64_t width, const Taps &taps, std::int64_t y,
                           std::uint8_t *out) {
    const std::uint8_t *first = rows + taps.first[y] * width;
    const std::int32_t *weights = taps.fixed + y * taps.stride;
    const std::int32_t count = taps.count[y];
    std::int64_t x = 0;
    for (; x + kColumnChunk <= width; x += kColumnChunk) {
        std::int32_t sums[kColumnChunk];
        for (int i = 0; i < kColumnChunk; ++i) sums[i] = 1 << (kFixedPointBits - 1);
        for (std::int32_t k = 0; k < count; ++k) {
            const std::uint8_t *row = first + k * width + x;
            for (int i = 0; i < kColumnChunk; ++i) sums[i] += row[i] * weights[k];
        }
        for (int i = 0; i < kColumnChunk; ++i) out[x + i] = to_byte(sums[i]);
    }
    for (; x < width; ++x) {
        std::int32_t sum = 1 << (kFixedPointBits - 1);
        for (std::int32_t k = 0; k < count; ++k) sum += first[k * width + x] * weights[k];
        out[x] = to_byte(sum);
    }
}

void resample_column_with_holes(const DepthRows &rows, std::int64_t width, const Taps &taps, std::int64_t y, float invalid_m,
                                float *out) {
    const double *weights = taps.exact + y * taps.stride;
    const float far_m = invalid_m == 0.0F ? 0.0F : kInfinity;  // 0 stands for every pixel without depth
    constexpr int kChunk = 16;
    for (std::int64_t x = 0; x < width; x += kChunk) {
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
