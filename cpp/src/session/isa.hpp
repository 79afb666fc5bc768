// Instructions of this CPU, and those of them that oneDNN uses below a user's cap, as in mvde/engines/isa.py.
#pragma once

#include <string>
#include <vector>

namespace mvde::internal {

// Returns the features listed in /proc/cpuinfo (x86 and Arm name the line differently).
std::vector<std::string> cpu_features();

// Returns the user's cap as "VARIABLE=VALUE"; empty without one.
std::string onednn_cap();

// Returns the features of this CPU that oneDNN uses.
std::vector<std::string> onednn_features();

}  // namespace mvde::internal
