// Compiled for the baseline CPU, unlike the kernels.
#include "attention_amx.hpp"
#include "attention_avx512.hpp"
#include "attention_avx2.hpp"

#include <sys/syscall.h>
#include <unistd.h>

namespace mvde::internal::attention {

namespace avx512 {

const char *unavailable() {
    __builtin_cpu_init();  // counts only features whose registers the system saves
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
               ? ""
               : "this CPU has no AVX-512 with bfloat16";
}

}  // namespace avx512

namespace amx {

const char *unavailable() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const char *const reason = [] {
        if (const char *const missing = avx512::unavailable(); *missing) return missing;
        unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
        asm volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(7), "c"(0));
        if (!(edx >> 22 & 1U) || !(edx >> 24 & 1U)) return "this CPU has no AMX tiles of bfloat16";
        if (syscall(SYS_arch_prctl, kRequestPermission, kTileData)) return "this kernel gives no AMX tiles to the process";
        return "";
    }();
    return reason;
}

}  // namespace amx

namespace avx2 {

const char *unavailable() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "" : "this CPU has no AVX2 with FMA";
}

}  // namespace avx2
}  // namespace mvde::internal::attention
