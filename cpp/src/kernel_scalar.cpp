#include "lanes_scalar.hpp"

#include "kernel.hpp"

namespace mvde {

const Kernel kScalarKernel = {Lanes::kName, run};

}  // namespace mvde
