// Settings of a scan, with the file, limits and words of mvde/runtime/scan_settings.py.
#pragma once

#include "mvde/mvde.h"

#include <string>

namespace mvde::internal {

// Throws Refused (MVDE_ERROR_ARGUMENT) for a value outside its limits; `height_m` has no default.
void check_settings(const mvde_scan_settings &settings);

// Lower bound of obstacles over the floor in metres: `min_height_m`, or its default.
double lowest_m(const mvde_scan_settings &settings);

// Reads the file `path`; the settings are not checked. Throws Refused (MVDE_ERROR_ARGUMENT) naming the problem.
mvde_scan_settings read_settings(const char *path);

}  // namespace mvde::internal
