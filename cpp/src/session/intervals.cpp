#include "session/intervals.hpp"

#include "session/columns.hpp"
#include "session/refused.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace mvde::internal {
namespace {

constexpr const char *kRemedy = "calibrate again with `mvde calibrate scale`";
constexpr std::size_t kMaxBins = 64;
constexpr double kLargestFactor = 1e6;

std::vector<double> numbers_of(const Json &plain, const char *key) {
    std::vector<double> found;
    for (const Json &item : plain.find(key)->items) found.push_back(item.number());
    return found;
}

// Returns the tuple as Python prints it.
std::string tuple_text(const std::vector<double> &numbers) {
    std::string text;
    for (const double number : numbers) text += (text.empty() ? "(" : ", ") + repr(number);
    return text.empty() ? "()" : text + (numbers.size() == 1 ? ",)" : ")");
}

void check_edges(const Json &plain, const std::string &where, const std::string &prefix) {
    const std::vector<double> edges = numbers_of(plain, "edges_m");
    const std::string key = prefix + "edges_m", most = "at most " + std::to_string(kMaxBins - 1) + " numbers";
    expect(edges.size() < kMaxBins, where, key.c_str(), std::to_string(edges.size()), most);
    bool is_ascending = true;
    for (std::size_t i = 0; i < edges.size(); ++i) is_ascending = is_ascending && (i ? edges[i - 1] : 0.0) < edges[i];
    expect(is_ascending, where, key.c_str(), tuple_text(edges), "ascending numbers above 0");
}

void check_factors(const Json &plain, const char *name, const std::string &where, const std::string &prefix) {
    const std::vector<double> factors = numbers_of(plain, name);
    const std::size_t count = plain.find("edges_m")->items.size() + 1;
    const std::string key = prefix + name;
    expect(factors.size() == count, where, key.c_str(), tuple_text(factors),
           std::to_string(count) + " numbers, one more than edges_m");
    const bool are_positive = std::all_of(factors.begin(), factors.end(),
                                          [](double one) { return 0 < one && one < kLargestFactor; });
    expect(are_positive, where, key.c_str(), tuple_text(factors), "numbers above 0 and below 1e+06");
}

void check_mean(const Json &plain, const std::string &where) {
    const std::string prefix = "intervals.mean.";
    check_edges(plain, where, prefix);
    check_factors(plain, "lo", where, prefix);
    check_factors(plain, "hi", where, prefix);
    const std::vector<double> low = numbers_of(plain, "lo"), high = numbers_of(plain, "hi");
    bool are_ordered = true;
    for (std::size_t i = 0; i < low.size(); ++i) are_ordered = are_ordered && low[i] <= high[i];
    expect(are_ordered, where, "intervals.mean.lo", tuple_text(low), "at most intervals.mean.hi");
}

void check_nearest(const Json &plain, const std::string &where) {
    check_edges(plain, where, "intervals.nearest.");
    check_factors(plain, "factors", where, "intervals.nearest.");
}

void check_intervals(const Json &plain, const std::string &where) {
    for (const char *key : {"coverage", "nearest_coverage"}) {
        const double share = plain.find(key)->number();
        const std::string name = std::string("intervals.") + key;
        expect(0 < share && share < 1, where, name.c_str(), repr(share), "a number between 0 and 1");
    }
    const std::vector<double> factors = numbers_of(plain, "camera_factor");
    expect(0 < factors[0] && factors[0] <= factors[1], where, "intervals.camera_factor", tuple_text(factors),
           "0 < least <= largest");
}

const Record kMean{{{"edges_m", list_of(kReal)}, {"lo", list_of(kReal)}, {"hi", list_of(kReal)}}, check_mean, kRemedy};
const Record kNearest{{{"edges_m", list_of(kReal)}, {"factors", list_of(kReal)}}, check_nearest, kRemedy};
const Record kHeldOut{{{"num_scenes", kInteger},
                       {"num_frames", kInteger},
                       {"num_patches", kInteger},
                       {"patches", kReal},
                       {"scenes", kReal},
                       {"worst_scenes", kReal},
                       {"bins", list_of(kReal)},
                       {"nearest", kReal},
                       {"width", kReal}},
                      nullptr,
                      kRemedy};
const Record kIntervals{{{"coverage", kReal},
                         {"nearest_coverage", kReal},
                         {"mean", record_of(kMean)},
                         {"nearest", record_of(kNearest)},
                         {"camera_factor", pair_of(kReal)},
                         {"held_out", record_of(kHeldOut)}},
                        check_intervals,
                        kRemedy};

bool is_interval(std::int32_t stat) { return stat == MVDE_LO || stat == MVDE_HI || stat == MVDE_NEAR; }

// Returns the statistic that an interval is a multiple of, and others themselves.
std::int32_t source_of(std::int32_t stat) { return stat == MVDE_NEAR ? MVDE_MIN : is_interval(stat) ? MVDE_MEAN : stat; }

const char *constant_of(std::int32_t stat) {
    return stat == MVDE_LO ? "MVDE_LO" : stat == MVDE_HI ? "MVDE_HI" : "MVDE_NEAR";
}

}  // namespace

float FactorTable::multiplied(float value) const {
    const double exact = value;
    const auto bin = std::upper_bound(edges_m.begin(), edges_m.end(), exact) - edges_m.begin();
    return static_cast<float>(exact * factors[static_cast<std::size_t>(bin)]);
}

const Record &intervals_record() { return kIntervals; }

Intervals intervals_of(const Json &plain) {
    const Json &mean = *plain.find("mean"), &nearest = *plain.find("nearest");
    const std::vector<double> factors = numbers_of(plain, "camera_factor");
    return {{numbers_of(mean, "edges_m"), numbers_of(mean, "lo")},
            {numbers_of(mean, "edges_m"), numbers_of(mean, "hi")},
            {numbers_of(nearest, "edges_m"), numbers_of(nearest, "factors")},
            factors[0],
            factors[1]};
}

IntervalColumns::IntervalColumns(std::vector<std::int32_t> chosen, const Intervals *intervals, bool is_calibrated,
                                 std::int64_t num_patches)
    : chosen_(std::move(chosen)), num_patches_(num_patches) {
    for (const std::int32_t stat : chosen_)
        if (!is_interval(stat)) base_.push_back(stat);
    for (const std::int32_t stat : chosen_) {
        const auto found = std::find(base_.begin(), base_.end(), source_of(stat));
        sources_.push_back(static_cast<std::size_t>(found - base_.begin()));
        if (found == base_.end()) base_.push_back(source_of(stat));
    }
    const auto first = std::find_if(chosen_.begin(), chosen_.end(), is_interval);
    if (first == chosen_.end()) return;
    const std::string what = std::string("options.stats has ") + constant_of(*first);
    if (!is_calibrated)
        throw Refused(MVDE_ERROR_ARGUMENT, what +
                                               ", which needs a calibration with intervals: make one with `mvde calibrate "
                                               "intervals`, and give it to mvde_open (options.calibration_path)");
    if (!intervals)
        throw Refused(MVDE_ERROR_INCOMPATIBLE,
                      what + ", but the calibration has no intervals; add them with `mvde calibrate intervals`");
    intervals_ = intervals;
    rows_.reset(new float[static_cast<std::size_t>(num_patches) * base_.size()]);
}

std::string IntervalColumns::names() const {
    std::string found;
    for (const std::int32_t stat : chosen_)
        if (is_interval(stat)) found += (found.empty() ? "" : ", ") + std::string(name_of(stat));
    return found;
}

void IntervalColumns::check_camera(bool has_camera, double factor, bool is_of_any_camera) const {
    if (!intervals_) return;
    if (!has_camera)
        throw Refused(MVDE_ERROR_INCOMPATIBLE, names() + " need the camera of the frame, since errors are others with "
                                                         "another field of view; give the camera");
    if (!is_of_any_camera || (intervals_->least_factor <= factor && factor <= intervals_->largest_factor)) return;
    char text[200];
    std::snprintf(text, sizeof text,
                  "the intervals are of cameras with f / f_canonical of %.3g to %.3g, but this frame has %.3g; calibrate "
                  "such frames with `mvde calibrate intervals`",
                  intervals_->least_factor, intervals_->largest_factor, factor);
    throw Refused(MVDE_ERROR_INCOMPATIBLE, text);
}

void IntervalColumns::write(float *out) const {
    const float *row = rows_.get();
    for (std::int64_t patch = 0; patch < num_patches_; ++patch, row += base_.size()) {
        for (std::size_t i = 0; i < chosen_.size(); ++i) {
            const float value = row[sources_[i]];
            switch (chosen_[i]) {
                case MVDE_LO: *out++ = intervals_->lo.multiplied(value); break;
                case MVDE_HI: *out++ = intervals_->hi.multiplied(value); break;
                case MVDE_NEAR: *out++ = intervals_->near.multiplied(value); break;
                default: *out++ = value;
            }
        }
    }
}

}  // namespace mvde::internal
