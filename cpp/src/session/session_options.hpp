// Checks of the options that sessions are opened with.
#pragma once

#include "mvde/mvde.h"

#include <cstdint>

namespace mvde::internal {

// Checks what needs no engine. Returns a mvde_status and sets mvde_last_error().
std::int32_t check_options(const mvde_session_options &options);

}  // namespace mvde::internal
