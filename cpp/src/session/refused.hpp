// The exception of everything that opens a session; becomes a status and a message at the C boundary.
#pragma once

#include "mvde/mvde.h"

#include <stdexcept>
#include <string>

namespace mvde::internal {

// A reason not to use an artefact.
struct Refused : std::runtime_error {
    Refused(mvde_status which, const std::string &message) : std::runtime_error(message), status(which) {}
    mvde_status status;
};

}  // namespace mvde::internal
