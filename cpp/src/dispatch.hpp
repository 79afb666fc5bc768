#pragma once

#include "job.hpp"

namespace mvde {

// The implementation in force; nullptr, with the error stored, where a forced one cannot run.
const Kernel *active_kernel();

}  // namespace mvde
