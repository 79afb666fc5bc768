// Sixteen lanes as one AVX-512 register. Needs AVX-512 F only; see lanes_scalar.hpp for the contract.
#pragma once

#include <cstdint>
#if !defined(MVDE_EMULATED_INTRINSICS)  // tests on CPUs without AVX-512 define their own
#include <immintrin.h>
#endif

namespace mvde::internal {
namespace {

struct Lanes {
    static constexpr const char *kName = "avx512";
    static constexpr bool kHasFixedWidths = true;  // code of its own for the usual patch sizes
    using F = __m512;
    using M = __mmask16;

    static F load(const float *p) { return _mm512_loadu_ps(p); }
    static void store(float *p, F x) { _mm512_storeu_ps(p, x); }
    // x0 y0 z0 x1 ...: x and y by one permutation, then z into every third place. Indices from 16 on are of the second
    // register; the third places of the first permutation do not matter.
    static void store_interleaved(float *p, F x, F y, F z) {
        alignas(64) static constexpr std::int32_t kXy[3][16] = {{0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5},
                                                                {21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26},
                                                                {0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0}};
        alignas(64) static constexpr std::int32_t kZ[3][16] = {{0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15},
                                                               {0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15},
                                                               {26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31}};
        for (int i = 0; i < 3; ++i) {
            const F xy = _mm512_permutex2var_ps(x, _mm512_load_si512(kXy[i]), y);
            _mm512_storeu_ps(p + 16 * i, _mm512_permutex2var_ps(xy, _mm512_load_si512(kZ[i]), z));
        }
    }
    // x0 y0 z0 w0 x1 ...: pairs within groups of four lanes, then groups of four in order.
    static void store_interleaved(float *p, F x, F y, F z, F w) {
        const F xz = _mm512_unpacklo_ps(x, z), high_xz = _mm512_unpackhi_ps(x, z);
        const F yw = _mm512_unpacklo_ps(y, w), high_yw = _mm512_unpackhi_ps(y, w);
        const F a = _mm512_unpacklo_ps(xz, yw), b = _mm512_unpackhi_ps(xz, yw);  // points 0, 4, 8, 12 and 1, 5, 9, 13
        const F c = _mm512_unpacklo_ps(high_xz, high_yw), d = _mm512_unpackhi_ps(high_xz, high_yw);
        const F low_ab = _mm512_shuffle_f32x4(a, b, 0x44), high_ab = _mm512_shuffle_f32x4(a, b, 0xEE);  // 0 4 1 5, 8 12 9 13
        const F low_cd = _mm512_shuffle_f32x4(c, d, 0x44), high_cd = _mm512_shuffle_f32x4(c, d, 0xEE);
        _mm512_storeu_ps(p, _mm512_shuffle_f32x4(low_ab, low_cd, 0x88));
        _mm512_storeu_ps(p + 16, _mm512_shuffle_f32x4(low_ab, low_cd, 0xDD));
        _mm512_storeu_ps(p + 32, _mm512_shuffle_f32x4(high_ab, high_cd, 0x88));
        _mm512_storeu_ps(p + 48, _mm512_shuffle_f32x4(high_ab, high_cd, 0xDD));
    }
    static F load_f16(const std::uint16_t *p) { return _mm512_cvtph_ps(halves(p)); }
    static F load_bf16(const std::uint16_t *p) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves(p)), 16));
    }
    static void store_u16(std::uint16_t *p, F x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtepi32_epi16(_mm512_cvttps_epi32(x)));
    }
    static F broadcast(float x) { return _mm512_set1_ps(x); }
    static F add(F x, F y) { return _mm512_add_ps(x, y); }
    static F sub(F x, F y) { return _mm512_sub_ps(x, y); }
    static F mul(F x, F y) { return _mm512_mul_ps(x, y); }
    static F div(F x, F y) { return _mm512_div_ps(x, y); }
    static F sqrt(F x) { return _mm512_sqrt_ps(x); }
    static F min(F x, F y) { return _mm512_min_ps(x, y); }
    static F max(F x, F y) { return _mm512_max_ps(x, y); }

    static M first(int count) { return static_cast<M>((1U << count) - 1U); }
    static M ordered(F x) { return _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q); }
    static M at_least(F x, F y) { return _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ); }
    static M both(M x, M y) { return static_cast<M>(x & y); }
    static M in_bits(F x, std::uint32_t low, std::uint32_t span) {
        const __m512i above = _mm512_sub_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(low)));
        return _mm512_cmple_epu32_mask(above, _mm512_set1_epi32(static_cast<int>(span)));
    }
    static bool all(M m) { return m == 0xFFFF; }
    static F keep(M m, F x) { return _mm512_maskz_mov_ps(m, x); }
    static F select(M m, F x, F y) { return _mm512_mask_blend_ps(m, y, x); }
    static F add_exponent(F x, F k) {
        const __m512i shifted = _mm512_slli_epi32(_mm512_cvttps_epi32(k), 23);
        return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), shifted));
    }

    static float sum(F x) {
        const __m256 eight = _mm256_add_ps(lower(x), upper(x));
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    // The sum of each of `num` registers, with the additions of sum(): each step halves the number of registers.
    static void sums(const F *x, int num, float *out) {
        if (num < 8) {
            for (int i = 0; i < num; ++i) out[i] = sum(x[i]);
            return;
        }
        F a[16];
        for (int i = 0; i < 16; ++i) a[i] = i < num ? x[i] : _mm512_setzero_ps();
        for (int i = 0; i < 8; ++i)  // lanes k and k + 8 of registers i and i + 8
            a[i] = add(_mm512_shuffle_f32x4(a[i], a[i + 8], 0x44), _mm512_shuffle_f32x4(a[i], a[i + 8], 0xEE));
        for (int i = 0; i < 4; ++i)
            a[i] = add(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 4], 0xDD));
        for (int i = 0; i < 2; ++i)
            a[i] = add(_mm512_shuffle_ps(a[i], a[i + 2], 0x44), _mm512_shuffle_ps(a[i], a[i + 2], 0xEE));
        const F all = add(_mm512_shuffle_ps(a[0], a[1], 0x88), _mm512_shuffle_ps(a[0], a[1], 0xDD));
        const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
        _mm512_storeu_ps(out, _mm512_permutexvar_ps(order, all));
    }
    static float lowest(F x) {
        const __m256 eight = _mm256_min_ps(lower(x), upper(x));
        const __m128 four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)));
    }
    static float highest(F x) {
        const __m256 eight = _mm256_max_ps(lower(x), upper(x));
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }

private:
    static __m256i halves(const std::uint16_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
    static __m256 lower(F x) { return _mm512_castps512_ps256(x); }
    static __m256 upper(F x) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)); }
};

}  // namespace
}  // namespace mvde::internal
