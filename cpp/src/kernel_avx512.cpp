#include "lanes_avx512.hpp"

#include "kernel.hpp"

namespace mvde {

const Kernel kAvx512Kernel = {Lanes::kName, run};

}  // namespace mvde
