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
    most_ = *std::max_element(count_.begin(), count_.end());
    pair(num_inputs);
    group(num_inputs);
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

// Halves of the weights, and how many outputs may be computed from them: one that reads whole quads of pixels, 16 bytes at a
// time, must find them in the row, and the last one has no byte after it in the output.
void Filter::pair(std::int64_t num_inputs) {
    constexpr std::int64_t kQuad = 4, kBytes = 16;
    const auto outputs = static_cast<std::int64_t>(first_.size()), num_quads = paired().num_quads;
    const auto fits = [&](std::int64_t x) {
        return 3 * (first_[static_cast<std::size_t>(x)] + kQuad * (num_quads - 1)) + kBytes <= 3 * num_inputs;
    };
    while (num_paired_ + 2 < outputs && fits(num_paired_ + 1)) num_paired_ += 2;  // first inputs never decrease
    halves_.resize(static_cast<std::size_t>(2 * kQuad * num_quads * num_paired_));
    for (std::int64_t x = 0; x < num_paired_; ++x) {
        const std::int32_t *weights = &fixed_[static_cast<std::size_t>(x * stride_)];
        std::int16_t *halves = &halves_[static_cast<std::size_t>(2 * kQuad * (x / 2 * 2 * num_quads + x % 2))];
        for (std::int64_t i = 0; i < count_[static_cast<std::size_t>(x)]; ++i) {
            std::int16_t *quad = halves + i / kQuad * 4 * kQuad + i % kQuad;
            quad[0] = static_cast<std::int16_t>(weights[i] >> kLowWeightBits);
            quad[kQuad] = static_cast<std::int16_t>(weights[i] & ((1 << kLowWeightBits) - 1));
        }
    }
}

// Groups of outputs of an enlarged row. Near the end of the row they start so that all eight inputs are in it.
void Filter::group(std::int64_t num_inputs) {
    constexpr std::int32_t kInputs = 8;
    if (most_ > 2 || num_inputs < kInputs) return;
    for (std::size_t x = 0; x + kDepthGroup <= first_.size(); x += kDepthGroup) {
        const std::int32_t start = std::min(first_[x], static_cast<std::int32_t>(num_inputs) - kInputs);
        if (first_[x + kDepthGroup - 1] + 2 > start + kInputs && first_[x + kDepthGroup - 1] + 1 < num_inputs) return;
        group_start_.push_back(start);
        for (std::int32_t tap = 0; tap < 2; ++tap)
            for (std::size_t i = x; i < x + kDepthGroup; ++i) {
                group_lanes_.push_back(std::min(first_[i] + tap - start, kInputs - 1));
                group_weights_.push_back(tap < stride_ ? exact_[i * static_cast<std::size_t>(stride_) + tap] : 0.0);
            }
    }
}

PairedTaps Filter::paired() const { return {halves_.data(), (most_ + 3) / 4, num_paired_, (most_ + 1) / 2 % 2 == 1}; }

GroupedTaps Filter::grouped() const {
    return {group_start_.data(), group_lanes_.data(), group_weights_.data(),
            static_cast<std::int64_t>(group_start_.size()) * kDepthGroup};
}

Taps Filter::taps() const {
    return {first_.data(), count_.data(), fixed_.data(), exact_.data(), stride_, static_cast<std::int64_t>(first_.size())};
}

}  // namespace mvde::internal
