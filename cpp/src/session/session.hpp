// A session: camera frame -> model input -> inference -> depth at the frame's pixels and patch statistics.
#pragma once

#include "floor/floor.hpp"
#include "forks.hpp"
#include "image/rays.hpp"
#include "scan/scanner.hpp"
#include "session/anchors.hpp"
#include "session/artifact.hpp"
#include "session/backend.hpp"
#include "session/calibration.hpp"
#include "session/intervals.hpp"
#include "session/network_maps.hpp"
#include "session/outputs.hpp"
#include "steady/stabilizer.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mvde::internal {

// How a frame's map becomes depth of `kind`: scale * x, or 1 / (scale * x + shift).
struct View {
    mvde_depth_kind kind = MVDE_METRIC;
    Metres metres;
    bool is_reciprocal = false;
    mvde_calibrated calibrated = MVDE_NOT_CALIBRATED;

    // Whether depth is a multiple of the map, so that statistics of the map can be scaled.
    bool is_scaling() const { return !is_reciprocal; }
    bool is_metric() const { return kind == MVDE_METRIC || kind == MVDE_METRIC_FOCAL; }
};

// Serves one call at a time, which the handle ensures. Functions return a mvde_status and set mvde_last_error().
class Session {
public:
    // Throws Refused if the artefact, this machine or the backend is unsuitable.
    Session(const char *path, const mvde_session_options &options);
    Session(Artifact artifact, const mvde_session_options &options);
    ~Session();
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;

    std::int32_t infer(const mvde_frame &frame, mvde_outputs &outputs);
    std::int32_t start(const mvde_frame &frame);
    std::int32_t wait(std::int64_t timeout_ms, mvde_outputs &outputs);
    std::int32_t bind_device(const mvde_frame &frame, const mvde_outputs &outputs);
    std::int32_t infer_device(void *stream);
    void describe(mvde_session_info &info) const;
    std::int32_t describe_scan(mvde_scan_info &info) const;
    std::int32_t mount(const mvde_mounting *mounting);
    void count(mvde_session_counters &counters) const;
    std::int32_t reset();

    // Shares the steady depth of another session, of the same camera and model at another resolution, in the unit of its map.
    // Throws Refused for calibrations that differ in the camera or in having a scale.
    void go_on_with(const Session &other);

    // Counts a frame that was refused; allowed while another call uses the session.
    void drop() const { ++num_dropped_; }

    // Whether the session was opened by a parent process, before fork(); it can then only be closed.
    bool is_inherited() const { return forks_ != num_forks(); }
    const char *library() const { return backend_->title; }

    // What a group of sessions with a deadline needs: runs the network on a black picture; what the last frame's network
    // took; the patch, in pixels of the network's input; and multiplies the statistic `grad`, where it is a column.
    std::int32_t run_blank(double &network_ms);
    double network_ms() const { return network_ms_; }
    std::int64_t patch_size() const { return artifact_.manifest.stats_patch; }
    void scale_grad(float *stats, float factor) const;

    char last_error[MVDE_ERROR_BYTES] = "";

private:
    void require_unforked() const;
    void find_device();
    void choose_columns(const mvde_session_options &options);
    void create_resizer(const mvde_session_options &options);
    void calibrate(const mvde_session_options &options);
    void place_camera(const mvde_camera *camera, const mvde_distortion *lens);
    std::int32_t view_frame();
    void load_engine(const mvde_session_options &options);
    std::int64_t num_patches() const;
    std::int64_t num_stats() const;
    std::int32_t check_idle() const;
    std::int32_t accept();
    std::int32_t check_results(const mvde_outputs &outputs, bool has_anchors, OutputExtents &extents) const;
    void place_scan(const mvde_scan_settings &settings, const mvde_distortion *lens);
    void place_stabilizer(const mvde_stabilization &settings);
    void reserve_stabilizer();
    void check_calibrated_as(const Session &other) const;
    std::int32_t check_time(double time_s) const;
    std::int32_t stabilize();
    void place_floor(const mvde_mounting &mounting, const mvde_distortion *lens);
    std::int32_t scale_by_floor();
    std::int32_t check_ranges(bool has_anchors) const;
    std::int32_t write_ranges(float *ranges);
    std::int32_t check_metres(const char *output, bool has_anchors) const;
    std::int32_t check_points(const mvde_outputs &outputs, bool has_anchors, const OutputExtents &extents) const;
    std::int32_t resize(const mvde_frame &frame, const OutputExtents &extents);
    std::int32_t finish(mvde_outputs &outputs);
    std::int32_t run();
    std::int32_t postprocess(float *stats);
    std::int32_t write_depth(const mvde_outputs &outputs);
    std::int32_t failed(std::int32_t status, const mvde_backend_message &message) const;

    struct CloseResizer {
        void operator()(mvde_resizer *resizer) const { mvde_resizer_destroy(resizer); }
    };
    struct CloseWorkers {
        void operator()(mvde_workers *workers) const { mvde_workers_destroy(workers); }
    };

    Artifact artifact_;
    const mvde_backend *backend_ = nullptr;
    std::string library_version_;
    mvde_backend_device device_{};  // empty on the CPU
    std::int32_t format_ = MVDE_RGB, fit_ = MVDE_STRETCH;
    std::int64_t frame_height_ = 0, frame_width_ = 0;
    mvde_box source_box_{}, target_box_{};
    bool camera_assumed_ = false;
    double camera_factor_ = 1.0;
    std::optional<mvde_camera> camera_;  // of the frames, given or assumed
    std::optional<Rays> rays_;           // of that camera
    std::optional<Scanner> scanner_;     // of the network's input
    std::shared_ptr<Stabilizer> stabilizer_;  // nullptr: each frame for itself; shared in a group, as its scale
    Metres map_unit_;  // scale and shift by which the map gets the unit of that of another session in the group
    double time_s_ = 0.0;                // of the last frame
    std::optional<Rays> floor_rays_;     // of the network's input, where the floor gives depth its scale
    std::optional<mvde_mounting> mounting_, frame_mounting_;  // of the next frames, and of the last one, if known
    std::shared_ptr<SteadyScale> steady_scale_ = std::make_shared<SteadyScale>();  // by the floor, of `stabilizer_`
    mvde_floor floor_{sizeof(mvde_floor), MVDE_FLOOR_OFF, 1.0, 0.0, 0.0};  // of the last frame
    std::optional<Calibration> calibration_;
    View own_;      // of frames without anchors
    View view_;     // of the last frame
    Anchors anchors_;  // of the last frame
    float invalid_m_ = 0.0F;
    std::int64_t deadline_ms_ = 0;
    std::unique_ptr<mvde_resizer, CloseResizer> resizer_;
    std::unique_ptr<mvde_workers, CloseWorkers> workers_;
    std::unique_ptr<float[]> depth_;  // of the frame's camera, at the network's resolution
    std::unique_ptr<float[]> metres_;  // at the frame's pixels, for outputs without depth_m
    std::optional<IntervalColumns> columns_;
    std::vector<std::int32_t> stats_;  // mvde_stat of what is computed of a map
    std::optional<NetworkMaps> maps_;
    mvde_backend_engine engine_{};     // with its buffers; depth is the network's map
    std::chrono::steady_clock::time_point accepted_{};  // of the last frame
    mvde_tag tag_{};
    double network_ms_ = 0.0;  // of the last frame
    std::atomic<std::int64_t> num_frames_{0}, num_late_{0};
    mutable std::atomic<std::int64_t> num_dropped_{0};
    const unsigned forks_ = num_forks();
    bool is_in_flight_ = false;
    bool is_bound_ = false;
};

}  // namespace mvde::internal
