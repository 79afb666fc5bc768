// A resizer's parameters, for backends that resize on a device.
#pragma once

#include "kernel/interface.hpp"
#include "mvde/mvde.h"

namespace mvde::internal {

struct ResizePlan {
    mvde_box source, target;
    Taps columns, rows;  // for 8-bit images; valid as long as the resizer
    std::uint8_t padding;  // of the target outside its box
};

ResizePlan plan_of(const mvde_resizer *resizer);  // the handle must be open

// Checks that the frame has the resizer's format and size.
int check_fits(const mvde_resizer *resizer, const mvde_frame &frame);

}  // namespace mvde::internal
