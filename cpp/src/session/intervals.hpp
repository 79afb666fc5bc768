// Intervals of a calibration, read as strictly as in mvde/calibration/interval_record.py, and the columns that they give
// (mvde/calibration/interval_columns.py), bit-equal.
#pragma once

#include "session/schema.hpp"

#include "mvde/mvde.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace mvde::internal {

// Factors by bins of a value in metres: bin 0 is below the first edge, and an edge belongs to the bin above it.
struct FactorTable {
    std::vector<double> edges_m, factors;

    // Returns the value times the factor of its bin, rounded once; 0 stays 0.
    float multiplied(float value) const;
};

struct Intervals {
    FactorTable lo, hi, near;  // of a patch's mean, and of its minimum
    double least_factor = 0.0, largest_factor = 0.0;  // f / f_canonical of the calibrated frames
};

// The record of a calibration's key "intervals".
const Record &intervals_record();

// Returns the intervals of a valid record.
Intervals intervals_of(const Json &plain);

// The columns of a session's statistics: those that were chosen, and those of a map that they are computed from.
class IntervalColumns {
public:
    // `chosen` are mvde_stat; `intervals` may be NULL where none of them is one, and must outlive this object otherwise.
    // Throws Refused for columns that need intervals without them: MVDE_ERROR_ARGUMENT where `is_calibrated` is false.
    IntervalColumns(std::vector<std::int32_t> chosen, const Intervals *intervals, bool is_calibrated,
                    std::int64_t num_patches);

    const std::vector<std::int32_t> &chosen() const { return chosen_; }
    const std::vector<std::int32_t> &base() const { return base_; }
    bool has_intervals() const { return intervals_ != nullptr; }
    std::string names() const;  // of the intervals among the columns, as in messages

    // Throws Refused (MVDE_ERROR_INCOMPATIBLE) unless intervals hold for frames of a camera with this f / f_canonical;
    // `is_of_any_camera`: they were calibrated with several.
    void check_camera(bool has_camera, double factor, bool is_of_any_camera) const;

    // Rows of base columns for the patches, to be filled before write(); valid where there are intervals.
    float *rows() const { return rows_.get(); }

    // Writes the chosen columns of the rows.
    void write(float *out) const;

private:
    std::vector<std::int32_t> chosen_, base_;
    std::vector<std::size_t> sources_;  // place in base_ of what each chosen column is computed from
    const Intervals *intervals_ = nullptr;
    std::int64_t num_patches_;
    std::unique_ptr<float[]> rows_;
};

}  // namespace mvde::internal
