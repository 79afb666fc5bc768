#include "session/deadline.hpp"

#include "mvde/mvde.h"
#include "session/classic_numbers.hpp"
#include "session/refused.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

namespace mvde::internal {
namespace {

// As in mvde/runtime/deadline.py, which says why.
constexpr double kStayShare = 0.95, kUpShare = 0.85, kClearedShare = 0.8;
constexpr std::int64_t kRecentFrames = 2, kRetryFrames = 60, kMostRetryFrames = 1920;
constexpr std::int64_t kLateCostsFrames = 120, kMostCreditFrames = 360, kUnheldFrames = 10, kMostEngines = 16;

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

bool is_positive(double value) { return value > 0.0 && std::isfinite(value); }

}  // namespace

double check_deadline(double deadline_ms) {
    if (is_positive(deadline_ms)) return deadline_ms;
    throw Refused(MVDE_ERROR_ARGUMENT, "a deadline is a number of milliseconds above 0, but got " + number(deadline_ms));
}

DeadlinePolicy::DeadlinePolicy(const double *costs_ms, std::int64_t num_engines, double deadline_ms)
    : deadline_ms_(check_deadline(deadline_ms)), credit_(kLateCostsFrames) {
    if (num_engines < 1 || num_engines > kMostEngines)
        throw Refused(MVDE_ERROR_ARGUMENT, "a deadline chooses among 1 to " + std::to_string(kMostEngines) +
                                               " engines, but got " + std::to_string(num_engines));
    for (std::int64_t i = 0; i < num_engines; ++i) {
        if (!is_positive(costs_ms[i]))
            throw Refused(MVDE_ERROR_ARGUMENT,
                          "what an engine takes is a number of milliseconds above 0, but got " + number(costs_ms[i]));
        engines_.push_back({costs_ms[i], 0.0, 0, kRetryFrames});
    }
    level_ = trial_ = largest(static_cast<std::int32_t>(num_engines - 1), kRecentFrames, kUpShare * deadline_ms_);
}

std::int32_t DeadlinePolicy::choose(double age_ms) {
    const std::int32_t level = largest(level_, kRecentFrames, kStayShare * deadline_ms_ - age_ms);
    if (level < level_) go_down(level);
    else if (since_switch_ >= kHoldFrames && credit_ >= 0) go_up(kUpShare * deadline_ms_ - age_ms);
    return level_;
}

bool DeadlinePolicy::observe(std::int32_t index, double network_ms, double latency_ms, double age_ms) {
    Frame &frame = frames_[static_cast<std::size_t>(num_observed_++ % kHoldFrames)];
    frame.load = network_ms / engines_[static_cast<std::size_t>(index)].cost_ms;
    frame.other_ms = std::max(latency_ms - age_ms - network_ms, 0.0);
    for (Engine &engine : engines_) engine.wait = std::max<std::int64_t>(engine.wait - 1, 0);
    ++since_switch_;
    if (trial_ >= 0 && since_switch_ >= kHoldFrames) {
        engines_[static_cast<std::size_t>(trial_)].retry = kRetryFrames;
        trial_ = -1;
    }
    const bool is_late = latency_ms > deadline_ms_;
    // Late for having waited only, behind one that no engine held: not held either.
    const bool is_behind_unheld = is_late && unheld_in_a_row_ > 0;
    const bool is_unheld = index == 0 && (latency_ms - age_ms > deadline_ms_ || is_behind_unheld);
    credit_ = std::min(credit_ + 1, kMostCreditFrames) - (is_late && !is_unheld ? kLateCostsFrames : 0);
    ++num_frames_;
    num_late_ += is_late;
    num_unheld_ += is_unheld;
    unheld_in_a_row_ = is_unheld ? unheld_in_a_row_ + 1 : 0;
    is_unheld_ = is_unheld_ || unheld_in_a_row_ == kUnheldFrames;
    return is_late;
}

std::int64_t DeadlinePolicy::num_kept() const { return std::min(num_observed_, kHoldFrames); }

// The frame observed `frames` frames ago, 1 for the last one.
const DeadlinePolicy::Frame &DeadlinePolicy::back(std::int64_t frames) const {
    return frames_[static_cast<std::size_t>((num_observed_ - frames) % kHoldFrames)];
}

double DeadlinePolicy::worst_load() const {
    double worst = 0.0;
    for (std::int64_t i = 1; i <= num_kept(); ++i) worst = std::max(worst, back(i).load);
    return worst;
}

// Longest that the last frames would have taken on this engine.
double DeadlinePolicy::expected_ms(std::int32_t index, std::int64_t num_frames) const {
    const double cost_ms = engines_[static_cast<std::size_t>(index)].cost_ms;
    if (num_observed_ == 0) return cost_ms;
    double longest = 0.0;
    for (std::int64_t i = 1; i <= std::min(num_frames, num_kept()); ++i)
        longest = std::max(longest, back(i).other_ms + back(i).load * cost_ms);
    return longest;
}

// The largest engine up to `most` that is expected within the limit, or the smallest.
std::int32_t DeadlinePolicy::largest(std::int32_t most, std::int64_t num_frames, double limit_ms) const {
    for (std::int32_t index = most; index > 0; --index)
        if (expected_ms(index, num_frames) <= limit_ms) return index;
    return 0;
}

void DeadlinePolicy::go_down(std::int32_t level) {
    if (trial_ == level_) {
        Engine &engine = engines_[static_cast<std::size_t>(level_)];
        engine.wait = engine.retry;
        engine.retry = std::min(2 * engine.retry, kMostRetryFrames);
        engine.failed_load = trial_load_;
    }
    switch_to(level);
}

void DeadlinePolicy::go_up(double limit_ms) {
    for (auto index = static_cast<std::int32_t>(engines_.size()) - 1; index > level_; --index) {
        if (expected_ms(index, kHoldFrames) > limit_ms || is_waiting(engines_[static_cast<std::size_t>(index)])) continue;
        switch_to(index);
        trial_ = index;
        trial_load_ = worst_load();
        return;
    }
}

bool DeadlinePolicy::is_waiting(const Engine &engine) const {
    return engine.wait > 0 && worst_load() > kClearedShare * engine.failed_load;
}

void DeadlinePolicy::switch_to(std::int32_t level) {
    level_ = level;
    since_switch_ = 0;
    trial_ = -1;
    ++num_switches_;
}

}  // namespace mvde::internal
