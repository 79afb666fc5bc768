// The triangle filter, widened when downscaling: inputs and weights of each output.
#pragma once

#include "kernel/interface.hpp"

#include <cstdint>
#include <vector>

namespace mvde::internal {

class Filter {
public:
    Filter(std::int64_t num_inputs, std::int64_t num_outputs);
    Taps taps() const;

private:
    std::vector<std::int32_t> first_, count_, fixed_;
    std::vector<double> exact_;
    std::int64_t stride_;
};

}  // namespace mvde::internal
