// What a scan takes from camera and mounting alone, with the bits of mvde/runtime/scan_table.py.
#pragma once

#include "mvde/mvde.h"

#include <cstdint>
#include <vector>

namespace mvde::internal {

// Rays of a map's pixels per metre of depth. `right` has one value a column and `down` one a row, or both one a pixel.
struct ScanRays {
    std::int64_t height = 0, width = 0;
    std::vector<double> right, down;

    bool is_separable() const { return static_cast<std::int64_t>(right.size()) == width; }
    double right_of(std::int64_t y, std::int64_t x) const { return right[is_separable() ? x : y * width + x]; }
    double down_of(std::int64_t y, std::int64_t x) const { return down[is_separable() ? y : y * width + x]; }
};

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

ScanRays pinhole_rays(const mvde_camera &camera);

// The pixels in `box` show the frame. The settings are checked. Throws Refused (MVDE_ERROR_ARGUMENT) if no sector sees the
// heights of obstacles, or one has fewer pixels than the support.
ScanTable scan_table(const ScanRays &rays, const mvde_box &box, const mvde_scan_settings &settings);

}  // namespace mvde::internal
