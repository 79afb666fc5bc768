// Cells of the histogram of a scan for the pixels of a row, compiled for each instruction set; the compiler vectorises it.
#pragma once

#include "kernel/interface.hpp"

#include <cstdint>
#include <cstring>

namespace mvde::internal {
namespace {

// A sector has cells for ranges, then one for what is free, then one for pixels without depth.
void scan_row(const ScanRow &row) {
    for (std::int64_t x = 0; x < row.count; ++x) {
        const float depth = row.depth[x];
        const float range = depth * row.range_factor[x], height = row.height + depth * row.height_factor[x];
        std::int32_t bits;
        std::memcpy(&bits, &range, sizeof bits);
        const std::int32_t from_first = (bits >> kScanCellShift) - row.first_cell;
        const std::int32_t cell = from_first < 0 ? 0 : from_first;
        const bool is_obstacle = (height > row.low) & (height < row.high) & (range <= row.farthest);
        const std::int32_t free_or_obstacle = is_obstacle ? cell : row.num_cells;
        row.cells[x] = row.sector_start[x] + (depth > 0.0F ? free_or_obstacle : row.num_cells + 1);
    }
}

}  // namespace
}  // namespace mvde::internal
