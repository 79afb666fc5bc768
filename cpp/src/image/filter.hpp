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

private:
    void antialias(std::int64_t num_inputs, const Resampling &resampling);
    void interpolate(std::int64_t num_inputs, const Resampling &resampling);

    std::vector<std::int32_t> first_, count_, fixed_;
    std::vector<double> exact_;
    std::int64_t stride_;
};

}  // namespace mvde::internal
