#include "image/filter.hpp"

#include <algorithm>
#include <cmath>

namespace mvde::internal {
namespace {

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

}  // namespace

// Same expressions as Pillow's precompute_coeffs, so that weights agree to the last bit.
Filter::Filter(std::int64_t num_inputs, std::int64_t num_outputs) {
    const double scale = static_cast<double>(num_inputs) / static_cast<double>(num_outputs);
    const double support = std::max(scale, 1.0);
    const double step = 1.0 / support;
    stride_ = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
    const auto outputs = static_cast<std::size_t>(num_outputs), stride = static_cast<std::size_t>(stride_);
    first_.resize(outputs);
    count_.resize(outputs);
    exact_.resize(outputs * stride);
    fixed_.resize(outputs * stride);
    for (std::size_t i = 0; i < outputs; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale;
        const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
        const auto end = std::min<std::int64_t>(static_cast<std::int64_t>(centre + support + 0.5), num_inputs);
        double *weights = &exact_[i * stride];
        double total = 0.0;
        for (std::int64_t x = 0; x < end - begin; ++x) {
            weights[x] = triangle((static_cast<double>(x + begin) - centre + 0.5) * step);
            total += weights[x];
        }
        for (std::int64_t x = 0; x < end - begin; ++x) {
            if (total != 0.0) weights[x] /= total;
            fixed_[i * stride + static_cast<std::size_t>(x)] = static_cast<std::int32_t>(0.5 + weights[x] * (1 << 22));
        }
        first_[i] = static_cast<std::int32_t>(begin);
        count_[i] = static_cast<std::int32_t>(end - begin);
    }
}

Taps Filter::taps() const {
    return {first_.data(), count_.data(), fixed_.data(), exact_.data(), stride_, static_cast<std::int64_t>(first_.size())};
}

}  // namespace mvde::internal
