// What a resizer does, for backends that do it on a device.
#pragma once

#include "kernel/interface.hpp"
#include "mvde/mvde.h"

namespace mvde::internal {

struct ResizePlan {
    mvde_box source, target;
    Taps columns, rows;  // of 8-bit images; valid as long as the resizer
};

ResizePlan plan_of(const mvde_resizer *resizer);  // an open one

// Whether the frame has the format and the size that the resizer was made for.
int check_fits(const mvde_resizer *resizer, const mvde_frame &frame);

}  // namespace mvde::internal
