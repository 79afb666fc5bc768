// The source of the attention for AVX-512 BF16 on SIMD Everywhere, under another name.
#include "simd_everywhere.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>

using __mmask32 = simde__mmask32;

#if !defined(_MM_FROUND_NO_EXC)
#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC
#endif

// t - floor(t), for the only immediate that is used.
static simde__m512 _mm512_reduce_ps(simde__m512 x, int) {
    float in[16];
    simde_mm512_storeu_ps(in, x);
    return per_lane<float>(in, [](float t) { return std::isinf(t) ? 0.0F : t - std::floor(t); });
}

// Rounds to the nearest, to even.
static simde__m256i _mm512_cvtneps_pbh(simde__m512 x) {
    std::uint32_t in[16];
    std::uint16_t out[16];
    simde_mm512_storeu_ps(in, x);
    for (int i = 0; i < 16; ++i) {
        const bool is_nan = (in[i] & 0x7fffffffU) > 0x7f800000U;
        out[i] = static_cast<std::uint16_t>(is_nan ? in[i] >> 16 | 0x40U : (in[i] + 0x7fffU + (in[i] >> 16 & 1U)) >> 16);
    }
    return simde_mm256_loadu_si256(reinterpret_cast<const simde__m256i *>(out));
}

// Memory of lanes that are masked out is not touched.
static simde__m512i _mm512_maskz_loadu_epi16(simde__mmask32 mask, const void *from) {
    std::uint16_t out[32] = {};
    for (int i = 0; i < 32; ++i)
        if (mask >> i & 1U) std::memcpy(out + i, static_cast<const char *>(from) + 2 * i, 2);
    return simde_mm512_loadu_si512(out);
}

static simde__m256i _mm256_maskz_loadu_epi16(simde__mmask16 mask, const void *from) {
    return simde_mm512_castsi512_si256(_mm512_maskz_loadu_epi16(mask, from));
}

static void _mm256_mask_storeu_epi16(void *to, simde__mmask16 mask, simde__m256i x) {
    std::uint16_t in[16];
    simde_mm256_storeu_si256(reinterpret_cast<simde__m256i *>(in), x);
    for (int i = 0; i < 16; ++i)
        if (mask >> i & 1U) std::memcpy(static_cast<char *>(to) + 2 * i, in + i, 2);
}

#define avx512 avx512_emulated  // the namespace
#include "attention_avx512.cpp"
