// The taps of a resampled row: inputs and weights of each output. mvde/resampling.py is the specification.
#pragma once

#include "kernel/interface.hpp"

#include <cstdint>
#include <vector>

namespace mvde::internal {

struct Resampling {
    bool is_bicubic = false, antialias = true, align_corners = false;
    double coefficient = -0.5;  // of the bicubic kernel

    // Half of the kernel's width in pixels, before it is widened.
    int reach() const { return is_bicubic ? 2 : 1; }
    double weight(double distance) const;
};

class Filter {
public:
    Filter(std::int64_t num_inputs, std::int64_t num_outputs, const Resampling &resampling = {});
    Taps taps() const;
    PairedTaps paired() const;    // the same taps, for RGB rows
    GroupedTaps grouped() const;  // the same taps, for rows of depth

private:
    void antialias(std::int64_t num_inputs, const Resampling &resampling);
    void interpolate(std::int64_t num_inputs, const Resampling &resampling);
    void pair(std::int64_t num_inputs);
    void group(std::int64_t num_inputs);

    std::vector<std::int32_t> first_, count_, fixed_;
    std::vector<double> exact_;
    std::vector<std::int16_t> halves_;
    std::int64_t stride_, most_ = 0, num_paired_ = 0;  // most_: taps of an output
    std::vector<std::int32_t> group_start_, group_lanes_;
    std::vector<double> group_weights_;
};

}  // namespace mvde::internal
