#include "steady/domain.hpp"

#include "steady/order.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mvde::internal {
namespace {

constexpr std::int64_t kCells = 12, kPatches = kCells * kCells, kLeastPatches = 12;
constexpr double kUnit = 65536.0, kLeastShare = 0.7, kLeastZoom = 0.1, kLeastSpread = 1e-4;
constexpr double kLogSpan = 1.4;  // difference of logarithms that a difference of the map's span stands for
constexpr int kFitSteps = 5;

double wide(std::int64_t value) { return static_cast<double>(value); }

// Means of maps over the patches in which they are mostly known.
class PatchMeans {
public:
    void reserve(std::int64_t width) {
        if (known_.size() < static_cast<std::size_t>(width))
            for (std::vector<std::int32_t> *row : {&known_, &units_[0], &units_[1]})
                row->resize(static_cast<std::size_t>(width));
    }

    // Means of `values` less `past`; returns the number of patches.
    std::int64_t of_difference(const Kernel &kernel, const Grid &values, const Grid &past) {
        return collect<1>(values, [&](std::int64_t y) {
            kernel.steady->units_of_difference(values.row(y), past.row(y), values.width, units_[0].data(), known_.data());
        });
    }

    // Means of both.
    std::int64_t of_both(const Kernel &kernel, const Grid &values, const Grid &past) {
        return collect<2>(values, [&](std::int64_t y) {
            kernel.steady->units_of_both(values.row(y), past.row(y), values.width, units_[0].data(), units_[1].data(),
                                         known_.data());
        });
    }

    double *means(int map) { return means_[map]; }

private:
    template <int kMaps, class Convert>
    std::int64_t collect(const Grid &map, Convert convert) {
        std::int64_t num_patches = 0;
        for (std::int64_t row = 0; row < kCells; ++row) {
            const Cell rows = cell_of(row, map.height, kCells);
            std::int64_t counts[kCells] = {}, sums[kMaps][kCells] = {};
            for (std::int64_t y = rows.first; y < rows.last; ++y) {
                convert(y);
                for (std::int64_t i = 0; i < kCells; ++i) {
                    const Cell columns = cell_of(i, map.width, kCells);
                    counts[i] += sum_of(known_, columns);
                    for (int k = 0; k < kMaps; ++k) sums[k][i] += sum_of(units_[k], columns);
                }
            }
            for (std::int64_t i = 0; i < kCells; ++i) {
                const std::int64_t size = rows.size() * cell_of(i, map.width, kCells).size();
                if (!(wide(counts[i]) >= kLeastShare * wide(size))) continue;
                for (int k = 0; k < kMaps; ++k) means_[k][num_patches] = wide(sums[k][i]) / (wide(counts[i]) * kUnit);
                ++num_patches;
            }
        }
        return num_patches;
    }

    // At most 5462 pixels a row of 2^20 units each: a row may pass 32 bits.
    static std::int64_t sum_of(const std::vector<std::int32_t> &row, const Cell &columns) {
        constexpr std::int64_t kChunk = 1024;
        std::int64_t sum = 0;
        for (std::int64_t first = columns.first; first < columns.last; first += kChunk) {
            const std::int64_t last = std::min(first + kChunk, columns.last);
            std::int32_t part = 0;
            for (std::int64_t x = first; x < last; ++x) part += row[static_cast<std::size_t>(x)];
            sum += part;
        }
        return sum;
    }

    std::vector<std::int32_t> known_, units_[2];
    double means_[2][kPatches];
};

// Logarithms: of distances, or of inverse depth that is 0 at infinity.
class LogDomain final : public SteadyDomain {
public:
    explicit LogDomain(float sign) : sign_(sign) {}
    float log_per_unit() const override { return 1.0F; }
    void begin(const Grid &) override {}
    void reserve(std::int64_t, std::int64_t width) override { patches_.reserve(width); }

    void enter(const Kernel &kernel, const float *raw, std::int64_t count, float *out) const override {
        kernel.steady->log(raw, count, out);
    }
    void leave(const Kernel &kernel, const float *values, const float *raw, std::int64_t count, float *out) const override {
        kernel.steady->leave_log(values, raw, count, out);
    }
    float nearer(const Kernel &kernel, double zoom) const override {
        float grown = static_cast<float>(std::max(1.0 + zoom, kLeastZoom));
        kernel.steady->log(&grown, 1, &grown);
        return grown * sign_;
    }
    void align(const Kernel &kernel, float *values, const Grid &past, const Opening &opening) override {
        const std::int64_t count = patches_.of_difference(kernel, {values, past.height, past.width, past.width}, past);
        if (count < kLeastPatches) return;
        const double shift = lower_median(patches_.means(0), count);
        const auto change = static_cast<float>((1.0 - opening.of(std::abs(shift))) * shift);
        kernel.steady->subtract(values, past.height * past.width, change);
    }

private:
    const float sign_;
    PatchMeans patches_;
};

// Scale and shift of y = scale * x + shift, robustly. `scratch`: as many values as there are.
struct Line {
    double scale = 1.0, shift = 0.0;
};

Line robust_line(const double *x, const double *y, std::int64_t count, double *scratch) {
    Line line;
    for (std::int64_t i = 0; i < count; ++i) scratch[i] = y[i] - x[i];
    line.shift = lower_median(scratch, count);
    double weights[kPatches];
    for (int step = 0; step < kFitSteps; ++step) {
        const auto left = [&](std::int64_t i) { return (line.scale * x[i] + line.shift) - y[i]; };
        for (std::int64_t i = 0; i < count; ++i) scratch[i] = std::abs(left(i));
        const double spread = 3.0 * lower_median(scratch, count) + 1e-3;
        double total = 0, sum_x = 0, sum_y = 0, spread_x = 0, product = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            const double ratio = left(i) / spread, weight = 1.0 / (1.0 + ratio * ratio);
            weights[i] = weight * weight;
            total += weights[i];
            sum_x += weights[i] * x[i];
            sum_y += weights[i] * y[i];
        }
        const double mean_x = sum_x / total, mean_y = sum_y / total;
        for (std::int64_t i = 0; i < count; ++i) {
            const double away = x[i] - mean_x;
            spread_x += weights[i] * away * away;
            product += weights[i] * away * (y[i] - mean_y);
        }
        const double slope = spread_x > kLeastSpread * total ? product / spread_x : 1.0;
        line.scale = std::min(std::max(slope, 0.5), 2.0);
        line.shift = mean_y - line.scale * mean_x;
    }
    return line;
}

// The map itself in units of its span: of inverse depth up to scale and shift.
class AffineDomain final : public SteadyDomain {
public:
    float log_per_unit() const override { return static_cast<float>(kLogSpan); }

    void reserve(std::int64_t height, std::int64_t width) override {
        patches_.reserve(width);
        const auto num_pixels = static_cast<std::size_t>(height * width);
        if (known_.size() < num_pixels) known_.resize(num_pixels);
    }

    // Takes the tenths of the map as origin and, to a power of two, as unit.
    void begin(const Grid &raw) override {
        std::int64_t count = 0;
        for (std::int64_t y = 0; y < raw.height; ++y)
            for (std::int64_t x = 0; x < raw.width; ++x) {
                const float value = raw.row(y)[x];
                if (value > 0.0F && value < std::numeric_limits<float>::infinity())
                    known_[static_cast<std::size_t>(count++)] = value;
            }
        if (!count) return;
        const std::int64_t tenth = count / 10, high_at = count - 1 - tenth;
        const auto at = [&](std::int64_t index) { return known_.begin() + index; };
        std::nth_element(known_.begin(), at(high_at), at(count));
        const float high = *at(high_at);
        std::nth_element(known_.begin(), at(tenth), at(count));
        origin_ = *at(tenth);
        int exponent = 0;
        const float span = high - origin_;
        std::frexp(span, &exponent);
        unit_ = span > 0.0F ? std::ldexp(1.0F, exponent) : 1.0F;
    }

    void enter(const Kernel &kernel, const float *raw, std::int64_t count, float *out) const override {
        kernel.steady->affine(raw, count, origin_, 1.0F / unit_, out);
    }
    void leave(const Kernel &kernel, const float *values, const float *raw, std::int64_t count, float *out) const override {
        kernel.steady->leave_affine(values, raw, count, origin_, unit_, out);
    }
    float nearer(const Kernel &, double) const override { return -0.0F; }

    void align(const Kernel &kernel, float *values, const Grid &past, const Opening &opening) override {
        const std::int64_t count = patches_.of_both(kernel, {values, past.height, past.width, past.width}, past);
        if (count < kLeastPatches) return;
        const double *const x = patches_.means(0);
        double scratch[kPatches];
        const Line line = robust_line(x, patches_.means(1), count, scratch);
        for (std::int64_t i = 0; i < count; ++i) scratch[i] = std::abs((line.scale * x[i] + line.shift) - x[i]);
        const double moved = lower_median(scratch, count) * kLogSpan;
        kernel.steady->line(values, past.height * past.width, static_cast<float>(line.scale), static_cast<float>(line.shift),
                            static_cast<float>(1.0 - opening.of(moved)));
    }

private:
    float origin_ = 0.0F, unit_ = 1.0F;
    PatchMeans patches_;
    std::vector<float> known_;
};

}  // namespace

double Opening::of(double change) const {
    return gain + (1.0 - gain) * std::min(std::max((change - opens) / (full - opens), 0.0), 1.0);
}

std::unique_ptr<SteadyDomain> SteadyDomain::of(mvde_depth_kind kind) {
    if (kind == MVDE_INVERSE_RELATIVE) return std::make_unique<AffineDomain>();
    return std::make_unique<LogDomain>(kind == MVDE_INVERSE_CANONICAL ? -1.0F : 1.0F);
}

}  // namespace mvde::internal
