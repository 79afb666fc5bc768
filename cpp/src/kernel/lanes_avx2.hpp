// Sixteen lanes as two AVX registers. Needs AVX2 and F16C; see lanes_scalar.hpp for the contract.
#pragma once

#include <cstdint>
#include <immintrin.h>

namespace mvde::internal {
namespace {

struct Lanes {
    static constexpr const char *kName = "avx2";
    static constexpr bool kHasFixedWidths = true;  // code of its own for the usual patch sizes
    struct F {
        __m256 a, b;
    };
    struct M {
        __m256 a, b;
    };

    static F load(const float *p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static void store(float *p, F x) {
        _mm256_storeu_ps(p, x.a);
        _mm256_storeu_ps(p + 8, x.b);
    }
    // x0 y0 z0 x1 ...
    static void store_interleaved(float *p, F x, F y, F z) {
        store_interleaved(p, x.a, y.a, z.a);
        store_interleaved(p + 24, x.b, y.b, z.b);
    }
    // x0 y0 z0 w0 x1 ...
    static void store_interleaved(float *p, F x, F y, F z, F w) {
        store_interleaved(p, x.a, y.a, z.a, w.a);
        store_interleaved(p + 32, x.b, y.b, z.b, w.b);
    }
    static F load_f16(const std::uint16_t *p) { return {_mm256_cvtph_ps(half(p)), _mm256_cvtph_ps(half(p + 8))}; }
    static F load_bf16(const std::uint16_t *p) { return {widen(half(p)), widen(half(p + 8))}; }
    static void store_u16(std::uint16_t *p, F x) {
        const __m256i packed = _mm256_packus_epi32(_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm256_permute4x64_epi64(packed, 0xD8));
    }
    static F broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
    static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
    static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
    static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
    static F sqrt(F x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
    static F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
    static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }

    static M first(int count) {
        const __m256i n = _mm256_set1_epi32(count);
        const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
        return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(n, low)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(n, high))};
    }
    static M ordered(F x) { return {_mm256_cmp_ps(x.a, x.a, _CMP_ORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_ORD_Q)}; }
    static M at_least(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)}; }
    static M both(M x, M y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
    static M in_bits(F x, std::uint32_t low, std::uint32_t span) {
        return {in_bits(x.a, low, span), in_bits(x.b, low, span)};
    }
    static bool all(M m) { return _mm256_movemask_ps(_mm256_and_ps(m.a, m.b)) == 0xFF; }
    static F keep(M m, F x) { return {_mm256_and_ps(m.a, x.a), _mm256_and_ps(m.b, x.b)}; }
    static F select(M m, F x, F y) { return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)}; }
    static F add_exponent(F x, F k) { return {add_exponent(x.a, k.a), add_exponent(x.b, k.b)}; }

    static float sum(F x) {
        const __m256 eight = _mm256_add_ps(x.a, x.b);
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    static void sums(const F *x, int num, float *out) {
        for (int i = 0; i < num; ++i) out[i] = sum(x[i]);
    }
    static float lowest(F x) {
        const __m256 eight = _mm256_min_ps(x.a, x.b);
        const __m128 four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)));
    }
    static float highest(F x) {
        const __m256 eight = _mm256_max_ps(x.a, x.b);
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }

private:
    // Shuffles work within halves of four: each gives three quarters of the points 0 to 3 and 4 to 7, put in order after.
    static void store_interleaved(float *p, __m256 x, __m256 y, __m256 z) {
        const __m256 xy = _mm256_shuffle_ps(x, y, 0x88), yz = _mm256_shuffle_ps(y, z, 0xDD);  // x0 x2 y0 y2, y1 y3 z1 z3
        const __m256 zx = _mm256_shuffle_ps(z, x, 0xD8);                                      // z0 z2 x1 x3
        const __m256 first = _mm256_shuffle_ps(xy, zx, 0x88), second = _mm256_shuffle_ps(yz, xy, 0xD8);
        const __m256 third = _mm256_shuffle_ps(zx, yz, 0xDD);
        _mm256_storeu_ps(p, _mm256_permute2f128_ps(first, second, 0x20));
        _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(third, first, 0x30));
        _mm256_storeu_ps(p + 16, _mm256_permute2f128_ps(second, third, 0x31));
    }
    static void store_interleaved(float *p, __m256 x, __m256 y, __m256 z, __m256 w) {
        const __m256 xz = _mm256_unpacklo_ps(x, z), yw = _mm256_unpacklo_ps(y, w);  // x0 z0 x1 z1, y0 w0 y1 w1
        const __m256 high_xz = _mm256_unpackhi_ps(x, z), high_yw = _mm256_unpackhi_ps(y, w);
        const __m256 a = _mm256_unpacklo_ps(xz, yw), b = _mm256_unpackhi_ps(xz, yw);  // points 0 and 4, 1 and 5
        const __m256 c = _mm256_unpacklo_ps(high_xz, high_yw), d = _mm256_unpackhi_ps(high_xz, high_yw);
        _mm256_storeu_ps(p, _mm256_permute2f128_ps(a, b, 0x20));
        _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(c, d, 0x20));
        _mm256_storeu_ps(p + 16, _mm256_permute2f128_ps(a, b, 0x31));
        _mm256_storeu_ps(p + 24, _mm256_permute2f128_ps(c, d, 0x31));
    }
    static __m128i half(const std::uint16_t *p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
    static __m256 widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
    static __m256 in_bits(__m256 x, std::uint32_t low, std::uint32_t span) {
        const __m256i above = _mm256_sub_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(static_cast<int>(low)));
        const __m256i limit = _mm256_set1_epi32(static_cast<int>(span));
        return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_min_epu32(above, limit), above));
    }
    static __m256 add_exponent(__m256 x, __m256 k) {
        const __m256i shifted = _mm256_slli_epi32(_mm256_cvttps_epi32(k), 23);
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), shifted));
    }
};

}  // namespace
}  // namespace mvde::internal
