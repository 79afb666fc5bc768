// The columns of a session's statistics: their names, and what a multiplied map makes of them (mvde/stats.py).
#pragma once

#include "mvde/mvde.h"
#include "session/manifest.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace mvde::internal {

// Returns the name of a mvde_stat.
const char *name_of(std::int32_t stat);

// Returns the mvde_stat of that name among those that are computed of a map, or -1.
std::int32_t stat_of(const std::string &name);

// Returns the columns that the options choose, or those of the manifest. Throws Refused (MVDE_ERROR_ARGUMENT) for an unknown
// or repeated one, and for MVDE_CONF where the network gives no confidence.
std::vector<std::int32_t> chosen_columns(const mvde_session_options &options, const Manifest &manifest);

// Multiplies rows of statistics as if their map had been multiplied by `factor` > 0.
void scale_stats(float *stats, std::int64_t num_patches, const std::vector<std::int32_t> &columns, double factor);

}  // namespace mvde::internal
