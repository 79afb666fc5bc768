#include "lanes_neon.hpp"

#include "kernel.hpp"

namespace mvde {

const Kernel kNeonKernel = {Lanes::kName, run};

}  // namespace mvde
