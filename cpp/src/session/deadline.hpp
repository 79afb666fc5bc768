// Which of several engines infers the next frame: mvde/runtime/deadline.py in C++, with the same decisions.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace mvde::internal {

// Not thread-safe. Allocates in its constructor only.
class DeadlinePolicy {
public:
    // `costs_ms` are what the networks take alone, from the smallest engine to the largest. Throws Refused
    // (MVDE_ERROR_ARGUMENT) for no or too many, and for a cost or deadline that is not above 0.
    DeadlinePolicy(const double *costs_ms, std::int64_t num_engines, double deadline_ms);

    // Engine of the next frame, 0 for the smallest; `age_ms` is how old the frame is already.
    std::int32_t choose(double age_ms);

    // Notes what a frame of engine `index` took: the network alone, and all from its capture. Returns whether it was late.
    bool observe(std::int32_t index, double network_ms, double latency_ms, double age_ms);

    std::int32_t level() const { return level_; }
    std::int64_t num_engines() const { return static_cast<std::int64_t>(engines_.size()); }
    double cost_ms(std::int64_t index) const { return engines_[static_cast<std::size_t>(index)].cost_ms; }
    double deadline_ms() const { return deadline_ms_; }
    std::int64_t num_frames() const { return num_frames_; }
    std::int64_t num_late() const { return num_late_; }
    std::int64_t num_unheld() const { return num_unheld_; }
    std::int64_t num_switches() const { return num_switches_; }
    bool is_unheld() const { return is_unheld_; }

private:
    static constexpr std::int64_t kHoldFrames = 10;

    struct Engine {
        double cost_ms = 0.0, failed_load = 0.0;
        std::int64_t wait = 0, retry = 0;
    };
    struct Frame {
        double load = 0.0, other_ms = 0.0;
    };

    const Frame &back(std::int64_t frames) const;
    std::int64_t num_kept() const;
    double worst_load() const;
    double expected_ms(std::int32_t index, std::int64_t num_frames) const;
    std::int32_t largest(std::int32_t most, std::int64_t num_frames, double limit_ms) const;
    void go_down(std::int32_t level);
    void go_up(double limit_ms);
    bool is_waiting(const Engine &engine) const;
    void switch_to(std::int32_t level);

    std::vector<Engine> engines_;
    double deadline_ms_;
    std::array<Frame, kHoldFrames> frames_{};  // the last ones, in a ring
    std::int64_t num_observed_ = 0, since_switch_ = 0, credit_ = 0, unheld_in_a_row_ = 0;
    std::int32_t level_ = 0, trial_ = 0;  // trial: -1 where none
    double trial_load_ = 1.0;
    std::int64_t num_frames_ = 0, num_late_ = 0, num_unheld_ = 0, num_switches_ = 0;
    bool is_unheld_ = false;
};

// Throws Refused (MVDE_ERROR_ARGUMENT) unless it is a finite number above 0.
double check_deadline(double deadline_ms);

}  // namespace mvde::internal
