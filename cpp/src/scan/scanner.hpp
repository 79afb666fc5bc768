// Distances by bearing of depth maps: a table, and a histogram of ranges for each sector.
#pragma once

#include "kernel/interface.hpp"
#include "scan/table.hpp"

#include <vector>

namespace mvde::internal {

class Scanner {
public:
    // The settings are checked. Throws as scan_table() does.
    Scanner(const Rays &rays, const mvde_box &box, const mvde_scan_settings &settings);

    std::int64_t height() const { return table_.height; }
    std::int64_t width() const { return table_.width; }
    std::int32_t num_bearings() const { return table_.num_bearings(); }
    void describe(mvde_scan_info &info) const;  // all but struct_size

    // Computes `ranges` [num_bearings] from depth of the table's size, with a row stride in bytes.
    void scan(const Kernel &kernel, const float *depth, std::int64_t row_stride, float *ranges);

private:
    void count_row(const Kernel &kernel, const float *depth, std::int64_t y);
    float range_of(const std::uint32_t *cells) const;

    const mvde_scan_settings settings_;
    const ScanTable table_;
    std::vector<std::uint32_t> counts_;  // of each sector's cells, and of one more for pixels without use
};

}  // namespace mvde::internal
