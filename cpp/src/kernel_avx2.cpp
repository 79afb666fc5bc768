#include "lanes_avx2.hpp"

#include "kernel.hpp"

namespace mvde {

const Kernel kAvx2Kernel = {Lanes::kName, run};

}  // namespace mvde
