// Exception type of everything that opens a session; converted to a status and a message at the C boundary.
#pragma once

#include "mvde/mvde.h"

#include <stdexcept>
#include <string>

namespace mvde::internal {

// The reason why an artefact cannot be used.
struct Refused : std::runtime_error {
    Refused(mvde_status which, const std::string &message) : std::runtime_error(message), status(which) {}
    mvde_status status;
};

}  // namespace mvde::internal
