#pragma once

#include "kernel/interface.hpp"

namespace mvde::internal {

// Returns the implementation in use; nullptr, with the error stored, if the forced one cannot run.
const Kernel *active_kernel();

// Forces an implementation without checking that this CPU supports it; nullptr restores the default choice. Tests use it to
// run emulated implementations.
void force_kernel(const Kernel *kernel);

}  // namespace mvde::internal
