// What a resizer does, for backends that do it on a device.
#pragma once

#include "job.hpp"
#include "mvde/mvde.h"

namespace mvde {

struct ResizePlan {
    mvde_box source, target;
    Taps columns, rows;  // of 8-bit images; valid as long as the resizer
};

ResizePlan plan_of(const mvde_resizer &resizer);

}  // namespace mvde
