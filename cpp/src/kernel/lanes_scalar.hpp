// Sixteen lanes in portable C++ (compiler vector extensions): the reference that all instruction sets match bit for bit.
//
// Every implementation works on 16 virtual lanes with the same IEEE operations (no fused multiply-add, no approximate
// reciprocals) and the same summation tree, so results are bit-identical.
#pragma once

#include <cstdint>
#include <cstring>

namespace mvde::internal {
namespace {

struct Lanes {
    static constexpr const char *kName = "scalar";
    // A reference needs no speed, and each width takes 13 s to compile into SSE2.
    static constexpr bool kHasFixedWidths = false;
    typedef float F __attribute__((vector_size(64)));
    typedef std::int32_t M __attribute__((vector_size(64)));  // all ones or all zeros per lane
    typedef std::uint32_t U __attribute__((vector_size(64)));
    typedef std::uint16_t Half __attribute__((vector_size(32)));

    static F load(const float *p) {
        F r;
        std::memcpy(&r, p, sizeof r);
        return r;
    }
    static void store(float *p, F a) { std::memcpy(p, &a, sizeof a); }
    // x0 y0 z0 x1 ...; and with a fourth. Words are copied: no float operation may touch colours, which are not numbers.
    static void store_interleaved(float *p, F x, F y, F z) {
        const U words[] = {reinterpret_cast<U>(x), reinterpret_cast<U>(y), reinterpret_cast<U>(z)};
        interleave(p, words, 3);
    }
    static void store_interleaved(float *p, F x, F y, F z, F w) {
        const U words[] = {reinterpret_cast<U>(x), reinterpret_cast<U>(y), reinterpret_cast<U>(z), reinterpret_cast<U>(w)};
        interleave(p, words, 4);
    }
    static F load_f16(const std::uint16_t *p) {
        const U bits = widened(p), sign = (bits & 0x8000U) << 16, magnitude = bits & 0x7FFFU;
        // A half is the float with the same digits, scaled by 2^112; the product is exact, also for denormals.
        const U finite = reinterpret_cast<U>(reinterpret_cast<F>(magnitude << 13) * 0x1p112F);
        const U special = 0x7F800000U | (magnitude & 0x3FFU) << 13;
        return reinterpret_cast<F>(sign | (magnitude >= 0x7C00U ? special : finite));
    }
    static F load_bf16(const std::uint16_t *p) { return reinterpret_cast<F>(widened(p) << 16); }
    static void store_u16(std::uint16_t *p, F a) {
        const Half narrow = __builtin_convertvector(__builtin_convertvector(a, M), Half);
        std::memcpy(p, &narrow, sizeof narrow);
    }
    static F broadcast(float x) { return F{} + x; }
    static F add(F a, F b) { return a + b; }
    static F sub(F a, F b) { return a - b; }
    static F mul(F a, F b) { return a * b; }
    static F div(F a, F b) { return a / b; }
    static F sqrt(F a) {
        for (int i = 0; i < 16; ++i) a[i] = __builtin_sqrtf(a[i]);
        return a;
    }
    // As on x86: the second operand if either is NaN.
    static F min(F a, F b) { return a < b ? a : b; }
    static F max(F a, F b) { return a > b ? a : b; }

    static M first(int count) { return M{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} < count; }
    static M ordered(F a) { return a == a; }
    static M at_least(F a, F b) { return a >= b; }  // false for NaN
    static M both(M a, M b) { return a & b; }
    static M in_bits(F a, std::uint32_t low, std::uint32_t span) { return reinterpret_cast<U>(a) - low <= span; }
    static bool all(M m) {
        std::int32_t every = -1;
        for (int i = 0; i < 16; ++i) every &= m[i];
        return every != 0;
    }
    static F keep(M m, F a) { return reinterpret_cast<F>(reinterpret_cast<M>(a) & m); }
    static F select(M m, F a, F b) { return m ? a : b; }
    static F add_exponent(F a, F k) {  // a * 2^k for integer k; the result is normal
        return reinterpret_cast<F>(reinterpret_cast<U>(a) + (reinterpret_cast<U>(__builtin_convertvector(k, M)) << 23));
    }

    static float sum(F a) {
        return fold(a, [](float x, float y) { return x + y; });
    }
    static void sums(const F *x, int num, float *out) {
        for (int i = 0; i < num; ++i) out[i] = sum(x[i]);
    }
    static float lowest(F a) {
        return fold(a, [](float x, float y) { return x < y ? x : y; });
    }
    static float highest(F a) {
        return fold(a, [](float x, float y) { return x > y ? x : y; });
    }

private:
    static void interleave(float *p, const U *words, int num) {
        std::uint32_t out[4 * 16];
        for (int i = 0; i < 16; ++i)
            for (int k = 0; k < num; ++k) out[num * i + k] = words[k][i];
        std::memcpy(p, out, static_cast<std::size_t>(num) * sizeof(U));
    }
    static U widened(const std::uint16_t *p) {
        Half narrow;
        std::memcpy(&narrow, p, sizeof narrow);
        return __builtin_convertvector(narrow, U);
    }
    template <class Operation>
    static float fold(F a, Operation f) {
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) a[i] = f(a[i], a[i + half]);
        return a[0];
    }
};

}  // namespace
}  // namespace mvde::internal
