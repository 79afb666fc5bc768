// The AVX-512 source on SIMD Everywhere, for CPUs without AVX-512.
#include "simd_everywhere.hpp"

static simde__m512i _mm512_cvttps_epi32(simde__m512 x) {
    float in[16];
    simde_mm512_storeu_ps(in, x);
    return simde_mm512_castps_si512(per_lane<std::int32_t>(
        in, [](float v) { return v >= -2147483648.0F && v < 2147483648.0F ? static_cast<std::int32_t>(v) : INT32_MIN; }));
}

static simde__m512 _mm512_cvtph_ps(simde__m256i x) {
    std::uint16_t in[16];
    simde_mm256_storeu_si256(reinterpret_cast<simde__m256i *>(in), x);
    return per_lane<float>(in, [](std::uint16_t v) { return simde_float16_to_float32(simde_uint16_as_float16(v)); });
}

static simde__m256i _mm512_cvtepi32_epi16(simde__m512i x) {
    std::int32_t in[16];
    std::uint16_t out[16];
    simde_mm512_storeu_si512(in, x);
    for (int i = 0; i < 16; ++i) out[i] = static_cast<std::uint16_t>(in[i]);
    return simde_mm256_loadu_si256(reinterpret_cast<const simde__m256i *>(out));
}

// A macro: the last argument of the intrinsic must be a constant.
#if !defined(_mm512_shuffle_f32x4)
#define _mm512_shuffle_f32x4(a, b, order) \
    simde_mm512_castsi512_ps(simde_mm512_shuffle_i32x4(simde_mm512_castps_si512(a), simde_mm512_castps_si512(b), order))
#endif

#include "kernel/lanes_avx512.hpp"

#include "kernel/colour.hpp"
#include "kernel/kernel.hpp"
#include "kernel/points.hpp"
#include "kernel/resample.hpp"
#include "kernel/scan.hpp"
#include "kernel/steady.hpp"

namespace mvde::internal {

extern const Kernel kEmulatedAvx512Kernel;
const Kernel kEmulatedAvx512Kernel = {
    Lanes::kName,          run,       convert_row, resample_rows_rgb, resample_row_depth, resample_column_bytes,
    resample_column_depth, point_row, scan_row,    &kSteady};

}  // namespace mvde::internal
