// What a scan takes from camera and mounting alone, with the bits of mvde/runtime/scan_table.py.
#pragma once

#include "image/rays.hpp"
#include "mvde/mvde.h"

#include <cstdint>
#include <vector>

namespace mvde::internal {

struct ScanTable {
    std::int64_t height = 0, width = 0;  // of the map
    // Of each pixel. Those without use have the sector after the last.
    std::vector<std::int32_t> sector_start;
    std::vector<float> range_factor, height_factor;
    std::vector<float> reach_m;  // of each sector
    std::vector<float> range_m;  // told for each cell
    double angle_min = 0.0, angle_increment = 0.0;
    std::int32_t support = 1, first_cell = 0;

    std::int32_t num_bearings() const { return static_cast<std::int32_t>(reach_m.size()); }
    std::int32_t num_cells() const { return static_cast<std::int32_t>(range_m.size()); }
    std::int32_t cells_a_sector() const { return num_cells() + 2; }  // see kernel/scan.hpp
};

// `rays` are those of the map's camera; the pixels in `box` show the frame. The settings are checked. Throws Refused (MVDE_ERROR_ARGUMENT) if no sector sees the
// heights of obstacles, or one has fewer pixels than the support.
ScanTable scan_table(const Rays &rays, const mvde_box &box, const mvde_scan_settings &settings);

}  // namespace mvde::internal
