// AVX-512 on SIMD Everywhere, for CPUs without it, under the names of the intrinsics.
#pragma once

#define MVDE_EMULATED_INTRINSICS
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

// Intrinsics missing from SIMD Everywhere 0.7 are written from Intel's descriptions, here those of several sources.
using __mmask16 = simde__mmask16;

template <class Lane, class From, class Convert>
static simde__m512 per_lane(const From &from, Convert convert) {
    Lane out[16];
    for (int i = 0; i < 16; ++i) out[i] = static_cast<Lane>(convert(from[i]));
    return simde_mm512_loadu_ps(out);
}

static simde__m512i _mm512_cvtepu16_epi32(simde__m256i x) {
    std::uint16_t in[16];
    simde_mm256_storeu_si256(reinterpret_cast<simde__m256i *>(in), x);
    return simde_mm512_castps_si512(per_lane<std::uint32_t>(in, [](std::uint16_t v) { return v; }));
}
