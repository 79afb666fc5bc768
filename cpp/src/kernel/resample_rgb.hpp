// Resampling of images: RGB rows along x, bytes along y. Sums are those of Pillow's resample.c, exact in 32 bits in whatever order they are added.
#pragma once

#include "kernel/interface.hpp"

#ifdef __AVX2__
#include <immintrin.h>

#include <cstring>
#endif

namespace mvde::internal {
namespace {

constexpr int kFixedPointBits = 22;  // 32 less 8 for the pixel and 2 to keep sums of weights from overflowing
constexpr std::int32_t kHalf = 1 << (kFixedPointBits - 1);

inline std::uint8_t to_byte(std::int32_t sum) {
    const std::int32_t value = sum >> kFixedPointBits;
    return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

inline void resample_pixel(const std::uint8_t *row, const Taps &taps, std::int64_t x, std::uint8_t *out) {
    const std::uint8_t *pixel = row + 3 * static_cast<std::int64_t>(taps.first[x]);
    const std::int32_t *weights = taps.fixed + x * taps.stride;
    std::int32_t red = kHalf, green = red, blue = red;
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

// Two halves of a register for two neighbouring outputs; in each, four pixels as pairs of words for multiply-add: the high
// and the low half of a pair's weights take one instruction each.
struct Quads {
    __m256i high01, high23, low01, low23;  // weights of pixels 0 and 1, and 2 and 3, once for every colour

    explicit Quads(const std::int16_t *halves) {
        const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(halves));
        high01 = _mm256_shuffle_epi32(all, 0x00);
        high23 = _mm256_shuffle_epi32(all, 0x55);
        low01 = _mm256_shuffle_epi32(all, 0xAA);
        low23 = _mm256_shuffle_epi32(all, 0xFF);
    }
};

struct HalfSums {
    __m256i high, low;

    void add(__m256i pairs, __m256i high_weights, __m256i low_weights) {
        high = _mm256_add_epi32(high, _mm256_madd_epi16(pairs, high_weights));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(pairs, low_weights));
    }
    // Red, green, blue and a value without meaning of both outputs; not clipped to bytes yet.
    __m256i value() const {
        const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high, kLowWeightBits), low);
        return _mm256_srai_epi32(sum, kFixedPointBits);
    }
};

inline __m256i load_quads(const std::uint8_t *one, const std::uint8_t *other) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i *>(one));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_loadu_si128(reinterpret_cast<const __m128i *>(other)),
                                   1);
}

inline void store_pixel(std::uint8_t *out, int bytes) { std::memcpy(out, &bytes, sizeof bytes); }

// Outputs [0, paired.num_paired) of `kRows` rows, two at a time. A fourth byte is written after each, over what the next one
// writes.
template <int kRows>
void resample_pairs(const RgbRows &rows, const Taps &taps, const PairedTaps &paired) {
    // Bytes r0 g0 b0 r1 g1 b1 ... to words r0 r1 g0 g1 b0 b1, and of pixels 2 and 3.
    const __m256i words01 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i words23 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    const std::int16_t *halves = paired.halves;
    const std::int64_t num_whole = paired.num_quads - (paired.ends_in_half ? 1 : 0);
    for (std::int64_t x = 0; x < paired.num_paired; x += 2) {
        const std::int64_t one = 3 * static_cast<std::int64_t>(taps.first[x]);
        const std::int64_t other = 3 * static_cast<std::int64_t>(taps.first[x + 1]);
        HalfSums sums[kRows];
        for (HalfSums &sum : sums) sum = {_mm256_setzero_si256(), _mm256_set1_epi32(kHalf)};
        std::int64_t quad = 0;
        for (; quad < num_whole; ++quad, halves += 16) {
            const Quads weights(halves);
            for (int y = 0; y < kRows; ++y) {
                const std::uint8_t *pixels = rows.in[y] + 12 * quad;
                const __m256i bytes = load_quads(pixels + one, pixels + other);
                sums[y].add(_mm256_shuffle_epi8(bytes, words01), weights.high01, weights.low01);
                sums[y].add(_mm256_shuffle_epi8(bytes, words23), weights.high23, weights.low23);
            }
        }
        if (paired.ends_in_half) {
            const Quads weights(halves);
            halves += 16;
            for (int y = 0; y < kRows; ++y) {
                const std::uint8_t *pixels = rows.in[y] + 12 * quad;
                const __m256i bytes = load_quads(pixels + one, pixels + other);
                sums[y].add(_mm256_shuffle_epi8(bytes, words01), weights.high01, weights.low01);
            }
        }
        for (int y = 0; y < kRows; y += 2) {
            const __m256i words = _mm256_packs_epi32(sums[y].value(), sums[y + (kRows > 1)].value());
            const __m256i bytes = _mm256_packus_epi16(words, words);  // saturates to 0..255
            const __m128i first = _mm256_castsi256_si128(bytes), second = _mm256_extracti128_si256(bytes, 1);
            std::uint8_t *out = rows.out + y * rows.out_stride + 3 * x;
            store_pixel(out, _mm_cvtsi128_si32(first));
            store_pixel(out + 3, _mm_cvtsi128_si32(second));
            if (kRows == 1) break;
            store_pixel(out + rows.out_stride, _mm_extract_epi32(first, 1));
            store_pixel(out + rows.out_stride + 3, _mm_extract_epi32(second, 1));
        }
    }
}

// Outputs [0, paired.num_paired) of all rows. Returns that number.
inline std::int64_t resample_most(const RgbRows &rows, const Taps &taps, const PairedTaps &paired) {
    if (rows.count == kRgbRows) {
        resample_pairs<kRgbRows>(rows, taps, paired);
        return paired.num_paired;
    }
    for (int y = 0; y < rows.count; ++y)
        resample_pairs<1>({{rows.in[y]}, 1, rows.out + y * rows.out_stride, 0}, taps, paired);
    return paired.num_paired;
}

#else
inline std::int64_t resample_most(const RgbRows &, const Taps &, const PairedTaps &) { return 0; }
#endif

void resample_rows_rgb(const RgbRows &rows, const Taps &taps, const PairedTaps &paired) {
    const std::int64_t first = resample_most(rows, taps, paired);
    for (int y = 0; y < rows.count; ++y)
        for (std::int64_t x = first; x < taps.num_outputs; ++x)
            resample_pixel(rows.in[y], taps, x, rows.out + y * rows.out_stride);
}

constexpr int kColumnChunk = 64;  // sums kept in registers while iterating over the taps

#ifdef __AVX2__
// Left to itself, GCC 12 takes 2.6 times as long.
inline void resample_chunk(const std::uint8_t *first, std::int64_t width, const std::int32_t *weights, std::int32_t count,
                           std::uint8_t *out) {
    constexpr int kWide = 8;
    __m256i sums[kColumnChunk / kWide];
    for (__m256i &sum : sums) sum = _mm256_set1_epi32(kHalf);
    for (std::int32_t k = 0; k < count; ++k) {
        const __m256i weight = _mm256_set1_epi32(weights[k]);
        const std::uint8_t *row = first + k * width;
        for (__m256i &sum : sums) {
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(row));
            sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), weight));
            row += kWide;
        }
    }
    for (__m256i &sum : sums) sum = _mm256_srai_epi32(sum, kFixedPointBits);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing interleaves halves of registers
    for (int i = 0; i < kColumnChunk / kWide; i += 4) {
        const __m256i low = _mm256_packs_epi32(sums[i], sums[i + 1]), high = _mm256_packs_epi32(sums[i + 2], sums[i + 3]);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);  // saturates to 0..255
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + i * kWide), bytes);
    }
}
#else
inline void resample_chunk(const std::uint8_t *first, std::int64_t width, const std::int32_t *weights, std::int32_t count,
                           std::uint8_t *out) {
    std::int32_t sums[kColumnChunk];
    for (int i = 0; i < kColumnChunk; ++i) sums[i] = kHalf;
    for (std::int32_t k = 0; k < count; ++k) {
        const std::uint8_t *row = first + k * width;
        for (int i = 0; i < kColumnChunk; ++i) sums[i] += row[i] * weights[k];
    }
    for (int i = 0; i < kColumnChunk; ++i) out[i] = to_byte(sums[i]);
}
#endif

void resample_column_bytes(const std::uint8_t *rows, std::int64_t width, const Taps &taps, std::int64_t y,
                           std::uint8_t *out) {
    const std::uint8_t *first = rows + taps.first[y] * width;
    const std::int32_t *weights = taps.fixed + y * taps.stride;
    const std::int32_t count = taps.count[y];
    std::int64_t x = 0;
    for (; x + kColumnChunk <= width; x += kColumnChunk) resample_chunk(first + x, width, weights, count, out + x);
    for (; x < width; ++x) {
        std::int32_t sum = kHalf;
        for (std::int32_t k = 0; k < count; ++k) sum += first[k * width + x] * weights[k];
        out[x] = to_byte(sum);
    }
}

}  // namespace
}  // namespace mvde::internal
