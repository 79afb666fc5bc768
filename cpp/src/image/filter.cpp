#include "image/filter.hpp"

#include <algorithm>
#include <cmath>

namespace mvde::internal {

// The triangle, or Keys' cubic in Pillow's order of operations.
double Resampling::weight(double distance) const {
    const double x = std::abs(distance);
    if (!is_bicubic) return std::max(0.0, 1.0 - x);
    if (x < 1.0) return ((coefficient + 2.0) * x - (coefficient + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * coefficient;
    return 0.0;
}

Filter::Filter(std::int64_t num_inputs, std::int64_t num_outputs, const Resampling &resampling) {
    const double scale = static_cast<double>(num_inputs) / static_cast<double>(num_outputs);
    stride_ = resampling.antialias ? static_cast<std::int64_t>(std::ceil(resampling.reach() * std::max(scale, 1.0))) * 2 + 1
                                   : 2 * resampling.reach();
    const auto outputs = static_cast<std::size_t>(num_outputs);
    first_.resize(outputs);
    count_.resize(outputs);
    exact_.resize(outputs * static_cast<std::size_t>(stride_));
    fixed_.resize(exact_.size());
    if (resampling.antialias) {
        antialias(num_inputs, resampling);
    } else {
        interpolate(num_inputs, resampling);
    }
    for (std::size_t i = 0; i < exact_.size(); ++i)
        fixed_[i] = static_cast<std::int32_t>((exact_[i] < 0.0 ? -0.5 : 0.5) + exact_[i] * (1 << 22));
}

// Same expressions as Pillow's precompute_coeffs, so that weights agree to the last bit.
void Filter::antialias(std::int64_t num_inputs, const Resampling &resampling) {
    const double scale = static_cast<double>(num_inputs) / static_cast<double>(first_.size());
    const double widening = std::max(scale, 1.0), support = resampling.reach() * widening, step = 1.0 / widening;
    for (std::size_t i = 0; i < first_.size(); ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale;
        const auto begin = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
        const auto end = std::min<std::int64_t>(static_cast<std::int64_t>(centre + support + 0.5), num_inputs);
        double *weights = &exact_[i * static_cast<std::size_t>(stride_)];
        double total = 0.0;
        for (std::int64_t x = 0; x < end - begin; ++x) {
            weights[x] = resampling.weight((static_cast<double>(x + begin) - centre + 0.5) * step);
            total += weights[x];
        }
        for (std::int64_t x = 0; x < end - begin && total != 0.0; ++x) weights[x] /= total;
        first_[i] = static_cast<std::int32_t>(begin);
        count_[i] = static_cast<std::int32_t>(end - begin);
    }
}

// The weights of torch and OpenCV without antialiasing: taps beyond the border count for the border.
void Filter::interpolate(std::int64_t num_inputs, const Resampling &resampling) {
    const auto num_outputs = static_cast<double>(first_.size());
    const double scale = static_cast<double>(num_inputs) / num_outputs;
    const double aligned = num_outputs > 1.0 ? static_cast<double>(num_inputs - 1) / (num_outputs - 1.0) : 0.0;
    const int reach = resampling.reach();
    for (std::size_t i = 0; i < first_.size(); ++i) {
        const auto index = static_cast<double>(i);
        const double centre = resampling.align_corners ? index * aligned : (index + 0.5) * scale - 0.5;
        const double whole = std::floor(centre), fraction = centre - whole;
        const auto input = [&](int offset) {
            return std::clamp<std::int64_t>(static_cast<std::int64_t>(whole) + offset, 0, num_inputs - 1);
        };
        const std::int64_t first = input(1 - reach);
        double *weights = &exact_[i * static_cast<std::size_t>(stride_)];
        for (int offset = 1 - reach; offset <= reach; ++offset)
            weights[input(offset) - first] += resampling.weight(offset - fraction);
        first_[i] = static_cast<std::int32_t>(first);
        count_[i] = static_cast<std::int32_t>(input(reach) - first + 1);
    }
}

Taps Filter::taps() const {
    return {first_.data(), count_.data(), fixed_.data(), exact_.data(), stride_, static_cast<std::int64_t>(first_.size())};
}

}  // namespace mvde::internal
