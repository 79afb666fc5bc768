// All implementations that this test executable can run: those supported by the CPU, and emulated ones.
#pragma once

#include "kernel/dispatch.hpp"

#include "mvde/mvde.h"

#include <vector>

#if defined(MVDE_TEST_SIMDE)
namespace mvde::internal {
extern const Kernel kEmulatedAvx512Kernel;  // src/kernel/kernel.hpp on SIMD Everywhere
}
#endif

inline std::vector<const mvde::internal::Kernel *> testable_kernels() {
    std::vector<const mvde::internal::Kernel *> kernels{&mvde::internal::kScalarKernel};
#if defined(MVDE_HAVE_AVX2)
    if (mvde_kernel_is_available("avx2")) kernels.push_back(&mvde::internal::kAvx2Kernel);
#endif
#if defined(MVDE_HAVE_AVX512)
    if (mvde_kernel_is_available("avx512")) kernels.push_back(&mvde::internal::kAvx512Kernel);
#endif
#if defined(MVDE_HAVE_NEON)
    kernels.push_back(&mvde::internal::kNeonKernel);
#endif
#if defined(MVDE_TEST_SIMDE)
    kernels.push_back(&mvde::internal::kEmulatedAvx512Kernel);
#endif
    return kernels;
}
