// Error messages of backends.
#pragma once

#include "session/backend.hpp"

#include <cstdio>
#include <sstream>
#include <string>

namespace mvde::internal {

// Writes the message on one line, truncated as in Python, and returns the status.
inline std::int32_t fail(mvde_status status, const std::string &message, mvde_backend_message *out) {
    std::istringstream words(message);
    std::string line;
    for (std::string word; words >> word && line.size() < 500;) line += (line.empty() ? "" : " ") + word;
    std::snprintf(out->text, sizeof out->text, "%s", line.substr(0, 500).c_str());
    return status;
}

}  // namespace mvde::internal
