#pragma once

#include "kernel/interface.hpp"

namespace mvde::internal {

// The implementation in force; nullptr, with the error stored, where a forced one cannot run.
const Kernel *active_kernel();

// Forces one without asking whether this CPU runs it; nullptr goes back to the choice by CPU and MVDE_KERNEL. The tests
// put emulated implementations in force with this.
void force_kernel(const Kernel *kernel);

}  // namespace mvde::internal
