// Sessions of one model at several resolutions with a deadline: mvde/runtime/on_time.py in C++.
#pragma once

#include "session/deadline.hpp"
#include "session/engine_set.hpp"
#include "session/session.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace mvde::internal {

// Serves one call at a time, which the handle ensures. Functions return a mvde_status and set mvde_last_error().
class Group {
public:
    // Throws Refused if the engines do not belong together, or as Session does. `grid` {0, 0}: near the smallest engine's.
    Group(const char *const *paths, std::int64_t num_engines, const mvde_session_options &options, double deadline_ms,
          PatchGrid grid);

    // Infers a frame that is `age_ms` old with the largest engine in time; `index` receives which, 0 for the smallest.
    std::int32_t infer(const mvde_frame &frame, double age_ms, mvde_outputs &outputs, std::int32_t &index);

    // Forgets the frames that steady depth goes back.
    std::int32_t reset() { return members_[0].session->reset(); }

    std::int64_t num_engines() const { return static_cast<std::int64_t>(members_.size()); }
    const Session &session(std::int64_t index) const { return *members_[static_cast<std::size_t>(index)].session; }
    const DeadlinePolicy &policy() const { return *policy_; }
    std::int64_t memory_bytes(std::int64_t index) const { return members_[static_cast<std::size_t>(index)].memory_bytes; }
    std::int64_t num_frames(std::int64_t index) const { return members_[static_cast<std::size_t>(index)].num_frames; }

private:
    struct Member {
        std::unique_ptr<Session> session;
        std::int64_t memory_bytes = 0, num_frames = 0;
    };

    std::vector<double> costs_ms();

    std::vector<Member> members_;  // from the smallest resolution to the largest
    std::optional<DeadlinePolicy> policy_;
};

}  // namespace mvde::internal
