// Kernel selection: the fastest implementation for this CPU, unless MVDE_KERNEL or mvde_set_kernel forces one.
#include "kernel/dispatch.hpp"

#include "error.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#if defined(MVDE_HAVE_AVX2)
#include <cpuid.h>
#endif

namespace mvde::internal {
namespace {

struct Candidate {
    const Kernel *kernel;
    bool (*runs_here)();
};

#if defined(MVDE_HAVE_AVX2)
// Clang before 16 does not know the name "f16c".
bool has_f16c() {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && has_f16c(); }
#endif
#if defined(MVDE_HAVE_AVX512)
bool has_avx512() { return __builtin_cpu_supports("avx512f"); }
#endif
bool always() { return true; }

// Fastest first.
const Candidate kCandidates[] = {
#if defined(MVDE_HAVE_AVX512)
    {&kAvx512Kernel, has_avx512},
#endif
#if defined(MVDE_HAVE_AVX2)
    {&kAvx2Kernel, has_avx2},
#endif
#if defined(MVDE_HAVE_NEON)
    {&kNeonKernel, always},  // part of every AArch64
#endif
    {&kScalarKernel, always},
};

const Kernel *find(const char *name) {
    for (const Candidate &candidate : kCandidates)
        if (std::strcmp(candidate.kernel->name, name) == 0 && candidate.runs_here()) return candidate.kernel;
    return nullptr;
}

const Kernel *best() {
    for (const Candidate &candidate : kCandidates)
        if (candidate.runs_here()) return candidate.kernel;
    return &kScalarKernel;
}

int refuse(const char *source, const char *name) {
    return fail(MVDE_ERROR_KERNEL,
                "%s names the kernel '%.40s', which is unknown or cannot run on this CPU; the fastest supported is '%s'",
                source, name, best()->name);
}

// Read once: getenv is not safe while another thread modifies the environment.
const char *forced_by_environment() {
    static const char *const name = [] {
        const char *value = std::getenv("MVDE_KERNEL");
        return value && *value ? value : nullptr;
    }();
    return name;
}

std::atomic<const Kernel *> forced_by_call{nullptr};

}  // namespace

const Kernel *active_kernel() {
    if (const Kernel *kernel = forced_by_call.load(std::memory_order_acquire)) return kernel;
    const char *name = forced_by_environment();
    static const Kernel *const kernel = name ? find(name) : best();
    if (!kernel) refuse("MVDE_KERNEL", name);
    return kernel;
}

void force_kernel(const Kernel *kernel) { forced_by_call.store(kernel, std::memory_order_release); }

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

const char *mvde_kernel(void) {
    const Kernel *kernel = active_kernel();
    return kernel ? kernel->name : nullptr;
}

int32_t mvde_kernel_is_available(const char *name) { return name && find(name) ? 1 : 0; }

int32_t mvde_set_kernel(const char *name) {
    const Kernel *kernel = name ? find(name) : nullptr;
    if (name && !kernel) return refuse("mvde_set_kernel", name);
    force_kernel(kernel);
    return MVDE_OK;
}

}  // extern "C"
