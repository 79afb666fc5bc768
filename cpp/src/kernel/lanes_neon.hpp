// Sixteen lanes as four NEON registers (AArch64); see lanes_scalar.hpp for the contract.
#pragma once

#include <arm_neon.h>
#include <cstdint>

namespace mvde::internal {
namespace {

struct Lanes {
    static constexpr const char *kName = "neon";
    static constexpr bool kHasFixedWidths = true;  // code of its own for the usual patch sizes
    struct F {
        float32x4_t v[4];
    };
    struct M {
        uint32x4_t v[4];
    };

    static F load(const float *p) {
        return map([p](int i) { return vld1q_f32(p + 4 * i); });
    }
    static void store(float *p, F x) {
        for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
    }
    // x0 y0 z0 x1 ...
    static void store_interleaved(float *p, F x, F y, F z) {
        for (int i = 0; i < 4; ++i) vst3q_f32(p + 12 * i, {{x.v[i], y.v[i], z.v[i]}});
    }
    // x0 y0 z0 w0 x1 ...
    static void store_interleaved(float *p, F x, F y, F z, F w) {
        for (int i = 0; i < 4; ++i) vst4q_f32(p + 16 * i, {{x.v[i], y.v[i], z.v[i], w.v[i]}});
    }
    static F load_f16(const std::uint16_t *p) {
        return map([p](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
    }
    static F load_bf16(const std::uint16_t *p) {
        return map([p](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
    }
    static void store_u16(std::uint16_t *p, F x) {
        for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vqmovn_u32(vcvtq_u32_f32(x.v[i])));
    }
    static F broadcast(float x) {
        return map([x](int) { return vdupq_n_f32(x); });
    }
    static F add(F x, F y) {
        return map([&](int i) { return vaddq_f32(x.v[i], y.v[i]); });
    }
    static F sub(F x, F y) {
        return map([&](int i) { return vsubq_f32(x.v[i], y.v[i]); });
    }
    static F mul(F x, F y) {
        return map([&](int i) { return vmulq_f32(x.v[i], y.v[i]); });
    }
    static F div(F x, F y) {
        return map([&](int i) { return vdivq_f32(x.v[i], y.v[i]); });
    }
    static F sqrt(F x) {
        return map([&](int i) { return vsqrtq_f32(x.v[i]); });
    }
    // vminq returns NaN if either operand is NaN; the contract is the second operand.
    static F min(F x, F y) {
        return map([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
    }
    static F max(F x, F y) {
        return map([&](int i) { return vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
    }

    static M first(int count) {
        const uint32x4_t n = vdupq_n_u32(static_cast<std::uint32_t>(count));
        return mask([&](int i) { return vcgtq_u32(n, vaddq_u32(iota(), vdupq_n_u32(4U * static_cast<unsigned>(i)))); });
    }
    static M ordered(F x) {
        return mask([&](int i) { return vceqq_f32(x.v[i], x.v[i]); });
    }
    static M at_least(F x, F y) {
        return mask([&](int i) { return vcgeq_f32(x.v[i], y.v[i]); });
    }
    static M both(M x, M y) {
        return mask([&](int i) { return vandq_u32(x.v[i], y.v[i]); });
    }
    static M in_bits(F x, std::uint32_t low, std::uint32_t span) {
        return mask(
            [&](int i) { return vcleq_u32(vsubq_u32(vreinterpretq_u32_f32(x.v[i]), vdupq_n_u32(low)), vdupq_n_u32(span)); });
    }
    static bool all(M m) { return vminvq_u32(vandq_u32(vandq_u32(m.v[0], m.v[1]), vandq_u32(m.v[2], m.v[3]))) != 0; }
    static F keep(M m, F x) {
        return map([&](int i) { return vreinterpretq_f32_u32(vandq_u32(m.v[i], vreinterpretq_u32_f32(x.v[i]))); });
    }
    static F select(M m, F x, F y) {
        return map([&](int i) { return vbslq_f32(m.v[i], x.v[i], y.v[i]); });
    }
    static F add_exponent(F x, F k) {
        return map([&](int i) {
            const int32x4_t shifted = vshlq_n_s32(vcvtq_s32_f32(k.v[i]), 23);
            return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x.v[i]), shifted));
        });
    }

    static float sum(F x) {
        const float32x4_t four = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
        const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
    }
    static void sums(const F *x, int num, float *out) {
        for (int i = 0; i < num; ++i) out[i] = sum(x[i]);
    }
    static float lowest(F x) { return vminvq_f32(vminq_f32(vminq_f32(x.v[0], x.v[1]), vminq_f32(x.v[2], x.v[3]))); }
    static float highest(F x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3]))); }

private:
    static uint32x4_t iota() { return vcombine_u32(vcreate_u32(0x100000000ULL), vcreate_u32(0x300000002ULL)); }
    template <class Function>
    static F map(Function f) {
        return {{f(0), f(1), f(2), f(3)}};
    }
    template <class Function>
    static M mask(Function f) {
        return {{f(0), f(1), f(2), f(3)}};
    }
};

}  // namespace
}  // namespace mvde::internal
