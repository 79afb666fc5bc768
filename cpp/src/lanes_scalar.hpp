// Sixteen lanes in plain C++: the reference that the other instruction sets equal bit for bit.
//
// Every instruction set works on 16 virtual lanes with the same IEEE operations (no fused multiply-add, no approximate
// reciprocals) and sums them along the same tree, so all of them give the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace mvde {
namespace {

struct Lanes {
    static constexpr const char *kName = "scalar";
    struct F { float v[16]; };
    struct M { std::uint32_t v[16]; };

    static F load(const float *p) { F r; std::memcpy(r.v, p, sizeof r.v); return r; }
    static void store(float *p, F a) { std::memcpy(p, a.v, sizeof a.v); }
    static F load_f16(const std::uint16_t *p) { return map([p](int i) { return from_half(p[i]); }); }
    static F load_bf16(const std::uint16_t *p) {
        return map([p](int i) { return as_float(static_cast<std::uint32_t>(p[i]) << 16); });
    }
    static void store_u16(std::uint16_t *p, F a) {
        for (int i = 0; i < 16; ++i) p[i] = static_cast<std::uint16_t>(a.v[i]);
    }
    static F broadcast(float x) { return map([x](int) { return x; }); }
    static F add(F a, F b) { return map([&](int i) { return a.v[i] + b.v[i]; }); }
    static F sub(F a, F b) { return map([&](int i) { return a.v[i] - b.v[i]; }); }
    static F mul(F a, F b) { return map([&](int i) { return a.v[i] * b.v[i]; }); }
    static F div(F a, F b) { return map([&](int i) { return a.v[i] / b.v[i]; }); }
    static F sqrt(F a) { return map([&](int i) { return __builtin_sqrtf(a.v[i]); }); }
    // As on x86: the second operand where either is NaN.
    static F min(F a, F b) { return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
    static F max(F a, F b) { return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }

    static M first(int count) { return mask([count](int i) { return i < count; }); }
    static M ordered(F a) { return mask([&](int i) { return a.v[i] == a.v[i]; }); }
    static M both(M a, M b) { M r; for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] & b.v[i]; return r; }
    static M in_bits(F a, std::uint32_t low, std::uint32_t span) {
        return mask([&](int i) { return as_bits(a.v[i]) - low <= span; });
    }
    static bool all(M m) { std::uint32_t r = ~0U; for (int i = 0; i < 16; ++i) r &= m.v[i]; return r != 0; }
    static F keep(M m, F a) { return map([&](int i) { return as_float(as_bits(a.v[i]) & m.v[i]); }); }
    static F select(M m, F a, F b) { return map([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; }); }
    static F add_exponent(F a, F k) {  // a · 2^k for whole k; the result is normal
        return map([&](int i) {
            return as_float(as_bits(a.v[i]) + (static_cast<std::uint32_t>(static_cast<std::int32_t>(k.v[i])) << 23));
        });
    }

    static float sum(F a) { return fold(a, [](float x, float y) { return x + y; }); }
    static float lowest(F a) { return fold(a, [](float x, float y) { return x < y ? x : y; }); }
    static float highest(F a) { return fold(a, [](float x, float y) { return x > y ? x : y; }); }

private:
    static float as_float(std::uint32_t bits) { float f; std::memcpy(&f, &bits, 4); return f; }
    static std::uint32_t as_bits(float f) { std::uint32_t bits; std::memcpy(&bits, &f, 4); return bits; }

    static float from_half(std::uint16_t h) {
        const std::uint32_t sign = (h & 0x8000U) << 16, magnitude = h & 0x7FFFU;
        if (magnitude >= 0x7C00U) return as_float(sign | 0x7F800000U | (magnitude & 0x3FFU) << 13);
        // Halves are the floats 2^112 times smaller with the same digits; the product is exact, also for denormals.
        return as_float(sign | as_bits(as_float(magnitude << 13) * 0x1p112F));
    }

    template <class Function>
    static F map(Function f) { F r; for (int i = 0; i < 16; ++i) r.v[i] = f(i); return r; }
    template <class Predicate>
    static M mask(Predicate p) { M r; for (int i = 0; i < 16; ++i) r.v[i] = p(i) ? ~0U : 0U; return r; }
    template <class Operation>
    static float fold(F a, Operation f) {
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) a.v[i] = f(a.v[i], a.v[i + half]);
        return a.v[0];
    }
};

}  // namespace
}  // namespace mvde
