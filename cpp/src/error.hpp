// mvde_last_error()'s message: one buffer per thread, so that failing allocates nothing.
#pragma once

#include "mvde/mvde.h"

namespace mvde::internal {

// Stores the message for the calling thread and returns `status`.
int fail(mvde_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace mvde::internal
