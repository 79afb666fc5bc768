// Rows of camera frames as RGB. Every kernel computes the same integers.
#pragma once

#include "image/yuv.hpp"
#include "kernel/interface.hpp"
#include "mvde/mvde.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace mvde::internal {
namespace {

inline std::uint8_t clipped(int value) { return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value); }

inline void write_rgb(const YuvToRgb &matrix, int luma, int cb, int cr, std::uint8_t *rgb) {
    constexpr int kRounding = 1 << (kYuvBits - 1);
    const int above = luma < matrix.luma_offset ? 0 : luma - matrix.luma_offset;
    const int y = above * matrix.luma_gain + kRounding, u = cb - 128, v = cr - 128;
    rgb[0] = clipped((y + matrix.red_of_v * v) >> kYuvBits);
    rgb[1] = clipped((y + matrix.green_of_v * v + matrix.green_of_u * u) >> kYuvBits);
    rgb[2] = clipped((y + matrix.blue_of_u * u) >> kYuvBits);
}

inline void convert_pixel(const ColourRow &row, const YuvToRgb &matrix, std::int64_t x, std::uint8_t *rgb) {
    const std::uint8_t *data = row.data;
    switch (row.format) {
        case MVDE_BGR:
            for (int c = 0; c < 3; ++c) rgb[c] = data[3 * x + 2 - c];
            return;
        case MVDE_GREY:
            for (int c = 0; c < 3; ++c) rgb[c] = data[x];
            return;
        case MVDE_NV12: return write_rgb(matrix, data[x], row.chroma[x / 2 * 2], row.chroma[x / 2 * 2 + 1], rgb);
        default: return write_rgb(matrix, data[2 * x], data[x / 2 * 4 + 1], data[x / 2 * 4 + 3], rgb);  // YUYV
    }
}

#ifdef __AVX2__

inline __m128i load_16(const std::uint8_t *data) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(data)); }
inline void store_16(std::uint8_t *out, __m128i bytes) { _mm_storeu_si128(reinterpret_cast<__m128i *>(out), bytes); }

// Five pixels at a time. Returns the end of what was converted.
inline std::int64_t convert_bgr(const ColourRow &row, std::int64_t x, std::uint8_t *rgb) {
    const __m128i order = _mm_setr_epi8(2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9, 14, 13, 12, 15);
    for (; x + 6 <= row.end; x += 5) store_16(rgb + 3 * (x - row.first), _mm_shuffle_epi8(load_16(row.data + 3 * x), order));
    return x;
}

inline std::int64_t convert_grey(const ColourRow &row, std::int64_t x, std::uint8_t *rgb) {
    const __m128i first = _mm_setr_epi8(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5);
    const __m128i second = _mm_setr_epi8(5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10);
    const __m128i third = _mm_setr_epi8(10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15);
    for (; x + 16 <= row.end; x += 16) {
        const __m128i grey = load_16(row.data + x);
        std::uint8_t *out = rgb + 3 * (x - row.first);
        store_16(out, _mm_shuffle_epi8(grey, first));
        store_16(out + 16, _mm_shuffle_epi8(grey, second));
        store_16(out + 32, _mm_shuffle_epi8(grey, third));
    }
    return x;
}

// Luma and chroma of eight pixels, as bytes.
struct YuvBytes {
    __m128i luma, cb, cr;
};

inline YuvBytes load_nv12(const ColourRow &row, std::int64_t x) {
    const __m128i luma = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(row.data + x));
    const __m128i chroma = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(row.chroma + x));
    const __m128i cb = _mm_setr_epi8(0, 0, 2, 2, 4, 4, 6, 6, -1, -1, -1, -1, -1, -1, -1, -1);
    return {luma, _mm_shuffle_epi8(chroma, cb), _mm_shuffle_epi8(chroma, _mm_add_epi8(cb, _mm_set1_epi8(1)))};
}

inline YuvBytes load_yuyv(const ColourRow &row, std::int64_t x) {
    const __m128i all = load_16(row.data + 2 * x);
    const __m128i luma = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i cb = _mm_setr_epi8(1, 1, 5, 5, 9, 9, 13, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    return {_mm_shuffle_epi8(all, luma), _mm_shuffle_epi8(all, cb),
            _mm_shuffle_epi8(all, _mm_add_epi8(cb, _mm_set1_epi8(2)))};
}

// Sums of products with the matrix, in 32 bits.
struct WideMatrix {
    explicit WideMatrix(const YuvToRgb &matrix)
        : offset(_mm_set1_epi8(static_cast<char>(matrix.luma_offset))), gain(_mm256_set1_epi32(matrix.luma_gain)),
          red_of_v(_mm256_set1_epi32(matrix.red_of_v)), green_of_u(_mm256_set1_epi32(matrix.green_of_u)),
          green_of_v(_mm256_set1_epi32(matrix.green_of_v)), blue_of_u(_mm256_set1_epi32(matrix.blue_of_u)) {}

    // Writes 24 bytes, and four more.
    void write(const YuvBytes &bytes, std::uint8_t *rgb) const {
        const auto centred = [](__m128i chroma) {
            return _mm256_sub_epi32(_mm256_cvtepu8_epi32(chroma), _mm256_set1_epi32(128));
        };
        const __m256i u = centred(bytes.cb), v = centred(bytes.cr);
        const __m256i luma = _mm256_cvtepu8_epi32(_mm_subs_epu8(bytes.luma, offset));
        const __m256i y = _mm256_add_epi32(_mm256_mullo_epi32(luma, gain), _mm256_set1_epi32(1 << (kYuvBits - 1)));
        const __m256i of_chroma = _mm256_add_epi32(_mm256_mullo_epi32(v, green_of_v), _mm256_mullo_epi32(u, green_of_u));
        const __m256i red = shifted(y, _mm256_mullo_epi32(v, red_of_v)), green = shifted(y, of_chroma);
        const __m256i blue = shifted(y, _mm256_mullo_epi32(u, blue_of_u));
        // In each half r0-3 g0-3 b0-3 b0-3, clipped to 0..255.
        const __m256i planes = _mm256_packus_epi16(_mm256_packs_epi32(red, green), _mm256_packs_epi32(blue, blue));
        const __m256i pixels = _mm256_shuffle_epi8(
            planes, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1)));
        store_16(rgb, _mm256_castsi256_si128(pixels));
        store_16(rgb + 12, _mm256_extracti128_si256(pixels, 1));
    }

    static __m256i shifted(__m256i luma, __m256i chroma) {
        return _mm256_srai_epi32(_mm256_add_epi32(luma, chroma), kYuvBits);
    }

    __m128i offset;
    __m256i gain, red_of_v, green_of_u, green_of_v, blue_of_u;
};

template <YuvBytes (*kLoad)(const ColourRow &, std::int64_t)>
std::int64_t convert_yuv(const ColourRow &row, const YuvToRgb &matrix, std::int64_t x, std::uint8_t *rgb) {
    const WideMatrix wide(matrix);
    for (; x + 10 <= row.end; x += 8) wide.write(kLoad(row, x), rgb + 3 * (x - row.first));
    return x;
}

// Converts pixels from `x`, which is even, on, as many as fit. Returns the end of what was converted.
inline std::int64_t convert_most(const ColourRow &row, const YuvToRgb &matrix, std::int64_t x, std::uint8_t *rgb) {
    switch (row.format) {
        case MVDE_BGR: return convert_bgr(row, x, rgb);
        case MVDE_GREY: return convert_grey(row, x, rgb);
        case MVDE_NV12: return convert_yuv<load_nv12>(row, matrix, x, rgb);
        default: return convert_yuv<load_yuyv>(row, matrix, x, rgb);
    }
}

#else
inline std::int64_t convert_most(const ColourRow &, const YuvToRgb &, std::int64_t x, std::uint8_t *) { return x; }
#endif

void convert_row(const ColourRow &row, std::uint8_t *rgb) {
    const YuvToRgb matrix = yuv_to_rgb(row.matrix, row.full_range);
    std::int64_t x = row.first;
    if (x % 2 && x < row.end) {  // the second pixel of a pair
        convert_pixel(row, matrix, x, rgb);
        ++x;
    }
    for (x = convert_most(row, matrix, x, rgb); x < row.end; ++x) convert_pixel(row, matrix, x, rgb + 3 * (x - row.first));
}

}  // namespace
}  // namespace mvde::internal
