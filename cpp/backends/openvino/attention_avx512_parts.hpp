// What the bfloat16 kernels for AMX and for AVX-512 share. Each compiles it with its own flags.
#pragma once

#include "attention_shape.hpp"

#include <cstdint>
#if !defined(MVDE_EMULATED_INTRINSICS)  // tests on CPUs without AVX-512 define their own
#include <immintrin.h>
#endif

namespace mvde::internal::attention {
namespace {

std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

std::uint32_t first_bits(std::size_t count, std::size_t most) {
    return count >= most ? static_cast<std::uint32_t>((std::uint64_t{1} << most) - 1) : (1U << count) - 1U;
}

// Transposes 16 rows of 16 doublewords in place.
void transpose(__m512i row[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            row[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            row[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; ++i)
        for (int half = 0; half < 2; ++half) {
            t[4 * half + i] = _mm512_shuffle_i32x4(row[8 * half + i], row[8 * half + 4 + i], 0x88);
            t[8 + 4 * half + i] = _mm512_shuffle_i32x4(row[8 * half + i], row[8 * half + 4 + i], 0xdd);
        }
    for (int i = 0; i < 4; ++i)
        for (int half = 0; half < 2; ++half) {
            row[4 * half + i] = _mm512_shuffle_i32x4(t[8 * half + i], t[8 * half + 4 + i], 0x88);
            row[8 + 4 * half + i] = _mm512_shuffle_i32x4(t[8 * half + i], t[8 * half + 4 + i], 0xdd);
        }
}

// The first `count` of up to 32 numbers of a row, as 16 pairs, and zeros.
__m512i first_pairs(const Bf16 *row, std::size_t count) { return _mm512_maskz_loadu_epi16(first_bits(count, 32), row); }

// Two rows of 16 of their numbers each, the first `count` and zeros, as 16 pairs of one of each; nullptr: zeros.
__m512i pairs_of_rows(const Bf16 *even, const Bf16 *odd, std::size_t count) {
    const auto numbers = static_cast<__mmask16>(first_bits(count, 16));
    const auto load = [&](const Bf16 *row) {
        return row ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(numbers, row)) : _mm512_setzero_si512();
    };
    return _mm512_or_si512(load(even), _mm512_slli_epi32(load(odd), 16));
}

// 2^t plus half a unit in bfloat16's last place, so that truncating the low half rounds. A cubic on [0, 1) with a relative
// error of at most 1.1e-4, 1/35 of that rounding's; outside float32's range, 2^t is 0 or infinite.
__m512 exp2_to_truncate(__m512 t) {
    const __m512 fraction = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0.0780245226F);
    p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.226067155F));
    p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.695833541F));
    p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.999892936F + 1.0F / 256));
    return _mm512_scalef_ps(p, t);
}

// Pairs of bfloat16 of what exp2_to_truncate returned for the even and the odd key.
__m512i pairs_of_powers(__m512 even, __m512 odd) {
    return _mm512_mask_blend_epi16(0xAAAAAAAAU, _mm512_srli_epi32(_mm512_castps_si512(even), 16), _mm512_castps_si512(odd));
}

// Which numbers of a pair of keys are none of padding, for the keys `key` and `key` + 1 of `num_keys`.
__mmask32 real_keys(std::size_t key, std::size_t num_keys) {
    return key + 1 < num_keys ? 0xFFFFFFFFU : key < num_keys ? 0x55555555U : 0U;
}

// Whether unshifted scores sufficed: bfloat16 and float32 have enough exponent range for all but extreme scores, which
// saves finding the maximum and rescaling. False for NaN.
bool is_in_range(const float *sum, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i)
        if (!(sum[i] > 0x1p-60F && sum[i] < 0x1p60F)) return false;
    return true;
}

// Stores the first `count` of 16 numbers as bfloat16.
void store_first(Bf16 *to, __m512 numbers, std::size_t count) {
    _mm256_mask_storeu_epi16(to, static_cast<__mmask16>(first_bits(count, 16)),
                             reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(numbers)));
}

}  // namespace
}  // namespace mvde::internal::attention
