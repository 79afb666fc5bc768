// State of one stream of frames: its steady depth, and the picture that it belongs to. With the bits of
// mvde/runtime/stabilize.py.
#pragma once

#include "steady/domain.hpp"
#include "steady/picture_motion.hpp"

#include <limits>
#include <memory>
#include <optional>
#include <vector>

namespace mvde::internal {

// Returns a mvde_status with its message.
std::int32_t check_stabilization(const mvde_stabilization &settings);

class Stabilizer {
public:
    // The settings are checked.
    Stabilizer(mvde_depth_kind kind, const mvde_stabilization &settings);

    // Allocates what maps and pictures of up to these sizes need.
    void reserve(std::int64_t height, std::int64_t width, std::int64_t picture_width);

    // Checks a frame's time (NaN: not known) against the last one's.
    std::int32_t check_time(double time_s) const;

    // Makes `raw` steady, in `out` of a row stride in floats, which may be the same memory. The time is checked. Allocates
    // nothing within the sizes that were reserved.
    void update(const Kernel &kernel, const Picture &picture, const Grid &raw, std::int64_t view, double time_s, float *out,
                std::int64_t out_stride);

    // Forgets the past: the next frame begins anew.
    void reset();

    // Frames since it began anew, the last one included.
    std::int32_t num_frames() const { return num_frames_; }

private:
    struct Past {
        std::int64_t height = 0, width = 0, picture_height = 1, picture_width = 1, view = 0;
        bool exists = false;
    };

    void begin(const Kernel &kernel, const Grid &raw, float *out, std::int64_t out_stride);
    void go_on(const Kernel &kernel, const Grid &raw, const Motion &motion, double aspect, float *out,
               std::int64_t out_stride);
    bool goes_on(const Picture &picture, const Grid &raw, std::int64_t view) const;
    std::optional<Motion> motion(const Kernel &kernel, double aspect);
    void resample(const Kernel &kernel, std::int64_t height, std::int64_t width);
    void follow(const Kernel &kernel, const Motion &motion, double aspect);
    void enter(const Kernel &kernel, const Grid &raw, float *out) const;
    void blend(const Kernel &kernel);

    const mvde_stabilization settings_;
    const std::unique_ptr<SteadyDomain> domain_;
    MotionEstimator estimator_;
    std::vector<float> past_, moved_, mapped_, columns_, cross_rows_, ranges_;
    std::vector<float> thumbnail_, now_;
    Past of_past_;
    double time_s_ = std::numeric_limits<double>::quiet_NaN();
    std::int32_t num_frames_ = 0;
};

}  // namespace mvde::internal
