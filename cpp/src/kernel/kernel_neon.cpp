#include "kernel/lanes_neon.hpp"

#include "kernel/kernel.hpp"
#include "kernel/points.hpp"
#include "kernel/resample.hpp"
#include "kernel/scan.hpp"
#include "kernel/steady.hpp"

namespace mvde::internal {

const Kernel kNeonKernel = {
    Lanes::kName, run,      resample_row_rgb, resample_row_depth, resample_column_bytes, resample_column_depth,
    point_row,    scan_row, &kSteady};

}  // namespace mvde::internal
