// mvde.hpp - C++17 API of libmvde: owning handles, views, and results instead of status codes or exceptions. Header-only.
// See mvde.h for units, thread safety and lifetimes.
//
//     auto resizer = mvde::Resizer::create(mvde::PixelFormat::nv12, {720, 1280}, {448, 448}, mvde::Fit::letterbox);
//     if (!resizer) return report(resizer.error());
//     resizer->resize(frame, {rgb.data(), rgb.size()});
//     auto done = mvde::patch_stats(mvde::depth_map(depth.data(), {448, 448}), 16, {MVDE_MEAN, MVDE_GRAD}, stats);
#pragma once

#include "mvde.h"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mvde {

// A mvde_status with its message: what was given, what was expected, what to do.
struct Error {
    int32_t status = MVDE_OK;
    std::string message;

    // The calling thread's last error (mvde_last_error).
    static Error last(int32_t status) { return {status, mvde_last_error()}; }
};

// A value or an error. Test `if (result)` first: value() of an error is undefined, as with std::expected's operator*.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : value_(std::make_unique<T>(std::move(value))) {}
    Result(Error error) : error_(std::move(error)) {}
    explicit operator bool() const { return value_ != nullptr; }
    T &value() { return *value_; }
    T &operator*() { return *value_; }
    T *operator->() { return value_.get(); }
    const Error &error() const { return error_; }

private:
    std::unique_ptr<T> value_;
    Error error_;
};

// Success or an error. Allocates only the message of an error.
template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}
    static Result of(int32_t status) { return status == MVDE_OK ? Result() : Result(Error::last(status)); }
    explicit operator bool() const { return error_.status == MVDE_OK; }
    const Error &error() const { return error_; }

private:
    Error error_;
};

// A non-owning view of contiguous elements, like std::span.
template <class T>
class View {
public:
    View() = default;
    View(T *first, std::size_t count) : data_(first), size_(count) {}
    template <class Container>
    View(Container &container) : data_(container.data()), size_(container.size()) {}
    T *data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

// Height and width in pixels.
struct Size {
    int64_t height = 0, width = 0;
};

enum class PixelFormat : int32_t { rgb = MVDE_RGB, bgr = MVDE_BGR, grey = MVDE_GREY, nv12 = MVDE_NV12, yuyv = MVDE_YUYV };
// `automatic` is the engine's own, for sessions only.
enum class Fit : int32_t {
    automatic = MVDE_FIT_DEFAULT,
    stretch = MVDE_STRETCH,
    letterbox = MVDE_LETTERBOX,
    crop = MVDE_CROP
};

// A thread pool that shares the work of one call at a time with the calling thread.
class Workers {
public:
    // `num_threads`: 1 to 256, calling thread included.
    static Result<Workers> create(int32_t num_threads) {
        mvde_workers *handle = nullptr;
        if (const int32_t status = mvde_workers_create(num_threads, &handle)) return Error::last(status);
        return Workers(handle);
    }
    mvde_workers *get() const { return handle_.get(); }

private:
    explicit Workers(mvde_workers *handle) : handle_(handle) {}
    struct Destroy {
        void operator()(mvde_workers *handle) const { mvde_workers_destroy(handle); }
    };
    std::unique_ptr<mvde_workers, Destroy> handle_;
};

// Resizes frames of one format and size to RGB at one resolution, and maps depth back. Serves one call at a time.
class Resizer {
public:
    // `source` is the frames' size, `target` the resolution to resize to, in pixels. Bilinear with antialiasing.
    static Result<Resizer> create(PixelFormat format, Size source, Size target, Fit fit = Fit::stretch) {
        mvde_resizer_options options;
        mvde_resizer_defaults(&options);
        options.fit = static_cast<int32_t>(fit);
        return create(format, source, target, options);
    }

    // With all `options`, which mvde_resizer_defaults() initialises.
    static Result<Resizer> create(PixelFormat format, Size source, Size target, const mvde_resizer_options &options) {
        mvde_resizer *handle = nullptr;
        const int32_t status = mvde_resizer_create(static_cast<int32_t>(format), source.height, source.width, target.height,
                                                   target.width, &options, &handle);
        if (status) return Error::last(status);
        return Resizer(handle, source, target);
    }

    // Resize `frame` to `rgb`: [target.height, target.width, 3] bytes, dense. `workers` may be nullptr.
    Result<void> resize(const mvde_frame &frame, View<uint8_t> rgb, mvde_workers *workers = nullptr) {
        if (rgb.size() < static_cast<std::size_t>(target_.height * target_.width * 3))
            return Error{MVDE_ERROR_CAPACITY, "rgb is smaller than target.height * target.width * 3 bytes"};
        return Result<void>::of(mvde_resize(handle_.get(), &frame, rgb.data(), 0, workers));
    }

    // Map `depth_m` (the target's size, metres) to `source_m` (the frame's size, metres). Pixels without depth, and those
    // outside the resized part, are `invalid_m`, NaN or 0; with NaN, the sky is +inf where it is in `depth_m`.
    Result<void> depth_to_source(View<const float> depth_m, View<float> source_m,
                                 float invalid_m = std::numeric_limits<float>::quiet_NaN(),
                                 mvde_workers *workers = nullptr) {
        if (depth_m.size() < static_cast<std::size_t>(target_.height * target_.width) ||
            source_m.size() < static_cast<std::size_t>(source_.height * source_.width))
            return Error{MVDE_ERROR_CAPACITY, "depth_m or source_m has fewer pixels than this resizer's sizes"};
        return Result<void>::of(
            mvde_depth_to_source(handle_.get(), depth_m.data(), 0, source_m.data(), 0, invalid_m, workers));
    }

    // The part of the frame that is resized, and the part of the target that it fills, in pixels.
    mvde_box source_box() const { return boxes().first; }
    mvde_box target_box() const { return boxes().second; }

private:
    Resizer(mvde_resizer *handle, Size source, Size target) : handle_(handle), source_(source), target_(target) {}
    std::pair<mvde_box, mvde_box> boxes() const {
        std::pair<mvde_box, mvde_box> both{};
        mvde_resizer_boxes(handle_.get(), &both.first, &both.second);
        return both;
    }
    struct Destroy {
        void operator()(mvde_resizer *handle) const { mvde_resizer_destroy(handle); }
    };
    std::unique_ptr<mvde_resizer, Destroy> handle_;
    Size source_, target_;
};

// The ray of every pixel of a camera's frames, which gives depth maps their points. Serves any number of calls at once.
class Rays {
public:
    // `distortion`: nullptr for rectified frames.
    static Result<Rays> create(const mvde_camera &camera, const mvde_distortion *distortion = nullptr) {
        mvde_rays *handle = nullptr;
        if (const int32_t status = mvde_rays_create(&camera, distortion, &handle)) return Error::last(status);
        return Rays(handle, {camera.height, camera.width});
    }

    // Number of floats of the points of every `step`-th row and column.
    std::size_t num_values(int32_t step = 1, bool has_colours = false) const {
        const int64_t count = mvde_num_point_values(size_.height, size_.width, step, has_colours);
        return count < 0 ? 0 : static_cast<std::size_t>(count);
    }

    // Compute the points of `depth_m`, metres of the camera's frame: num_values() floats. `colours`: that frame, whose
    // colours follow XYZ, or nullptr. See mvde_points.
    Result<void> points(View<const float> depth_m, View<float> points, int32_t step = 1, const mvde_frame *colours = nullptr,
                        mvde_workers *workers = nullptr) const {
        if (depth_m.size() < static_cast<std::size_t>(size_.height * size_.width))
            return Error{MVDE_ERROR_CAPACITY, "depth_m has fewer pixels than the camera's frames"};
        mvde_points_options options;
        mvde_points_defaults(&options);
        options.step = step;
        options.colours = colours;
        return Result<void>::of(mvde_points(handle_.get(), depth_m.data(), 0, &options, points.data(),
                                            static_cast<int64_t>(points.size()), workers));
    }
    Size size() const { return size_; }
    const mvde_rays *get() const { return handle_.get(); }

private:
    Rays(mvde_rays *handle, Size size) : handle_(handle), size_(size) {}
    struct Destroy {
        void operator()(mvde_rays *handle) const { mvde_rays_destroy(handle); }
    };
    std::unique_ptr<mvde_rays, Destroy> handle_;
    Size size_;
};

// Distances by bearing of depth maps of one camera and mounting. Serves one call at a time.
class Scanner {
public:
    // `rays` of the maps' camera; `box`: the pixels that show the frame, nullptr for all. See mvde_scanner_create.
    static Result<Scanner> create(const Rays &rays, const mvde_scan_settings &settings, const mvde_box *box = nullptr) {
        mvde_scanner *handle = nullptr;
        if (const int32_t status = mvde_scanner_create(rays.get(), box, &settings, &handle)) return Error::last(status);
        return Scanner(handle, rays.size());
    }

    // Properties of the scans; `reach_m` is valid as long as the scanner.
    mvde_scan_info info() const {
        mvde_scan_info info{};
        info.struct_size = sizeof info;
        mvde_scanner_query(handle_.get(), &info);
        return info;
    }

    // Compute info().num_bearings distances from depth in metres. See mvde_scan.
    Result<void> scan(View<const float> depth_m, View<float> ranges) {
        if (depth_m.size() < static_cast<std::size_t>(size_.height * size_.width))
            return Error{MVDE_ERROR_CAPACITY, "depth_m has fewer pixels than the camera's frames"};
        return Result<void>::of(
            mvde_scan(handle_.get(), depth_m.data(), 0, ranges.data(), static_cast<int64_t>(ranges.size())));
    }

private:
    Scanner(mvde_scanner *handle, Size size) : handle_(handle), size_(size) {}
    struct Destroy {
        void operator()(mvde_scanner *handle) const { mvde_scanner_destroy(handle); }
    };
    std::unique_ptr<mvde_scanner, Destroy> handle_;
    Size size_;
};

// Read the settings of a scan from a YAML file. See mvde_scan_read.
inline Result<mvde_scan_settings> read_scan_settings(const std::string &path) {
    mvde_scan_settings settings;
    if (const int32_t status = mvde_scan_read(path.c_str(), &settings)) return Error::last(status);
    return settings;
}

// Settings of steady depth: those of Python's Stabilization.
inline mvde_stabilization default_stabilization() {
    mvde_stabilization settings;
    mvde_stabilization_defaults(&settings);
    return settings;
}

// Makes the maps of one stream of frames steady over time. Serves one call at a time.
class Stabilizer {
public:
    // `depth_kind` of the maps. See mvde_stabilizer_create.
    static Result<Stabilizer> create(mvde_depth_kind depth_kind,
                                     const mvde_stabilization &settings = default_stabilization()) {
        mvde_stabilizer *handle = nullptr;
        if (const int32_t status = mvde_stabilizer_create(depth_kind, &settings, &handle)) return Error::last(status);
        return Stabilizer(handle);
    }

    // Make the map of `frame` steady in `steady`, dense, and return how many frames it goes back. See mvde_stabilize.
    Result<int32_t> update(const mvde_steady_frame &frame, View<float> steady) {
        if (steady.size() < static_cast<std::size_t>(frame.height * frame.width))
            return Error{MVDE_ERROR_CAPACITY, "steady has fewer pixels than the map"};
        int32_t num_steady = 0;
        const int32_t status = mvde_stabilize(handle_.get(), &frame, steady.data(), 0, &num_steady);
        if (status) return Error::last(status);
        return num_steady;
    }
    Result<void> reset() { return Result<void>::of(mvde_stabilizer_reset(handle_.get())); }

private:
    explicit Stabilizer(mvde_stabilizer *handle) : handle_(handle) {}
    struct Destroy {
        void operator()(mvde_stabilizer *handle) const { mvde_stabilizer_destroy(handle); }
    };
    std::unique_ptr<mvde_stabilizer, Destroy> handle_;
};

// Options of Session::open.
struct SessionOptions {
    PixelFormat format = PixelFormat::rgb;
    Size frame;  // of the camera, in pixels; {0, 0}: the model's input size
    Fit fit = Fit::automatic;
    int32_t num_threads = 0;  // for resizing and statistics, 1 to 256, calling thread included; 0: one per CPU, at most 4
    std::optional<mvde_camera> camera;  // of the frames; std::nullopt: the manifest's is assumed
    std::vector<int32_t> stats;         // mvde_stat of each column; empty: those of the manifest
    float invalid_m = std::numeric_limits<float>::quiet_NaN();  // value of invalid pixels: NaN or 0
    int64_t deadline_ms = 0;  // a result that takes longer is counted as late; 0: none
    std::string calibration_path;  // file of `mvde calibrate`; empty: none
    std::optional<mvde_distortion> distortion;  // of `camera`, for points; std::nullopt: rectified frames
    std::optional<mvde_scan_settings> scan;     // how the camera is mounted, for Outputs::ranges; std::nullopt: no scan
    std::optional<mvde_stabilization> stabilization;  // steady depth, such as default_stabilization(); std::nullopt: none
};

// Output buffers of a frame; an empty view is not wanted. Sizes: Session::num_depths() and num_stats().
struct Outputs {
    View<float> depth_m;      // in the map's unit, at the frame's pixels
    View<float> stats;        // [patches, columns]
    View<uint16_t> depth_mm;  // millimetres at the frame's pixels, 0 where invalid; for maps in metres
    mvde_tag tag{};           // of the frame that the results are of; written by infer() and wait()
    int32_t calibrated = MVDE_NOT_CALIBRATED;  // mvde_calibrated; written likewise
    View<float> points{};     // XYZ in metres at every `points_step`-th row and column: Session::num_point_values()
    int32_t points_step = 1;
    const mvde_frame *points_colours = nullptr;  // the frame, whose colours follow XYZ; nullptr: none
    View<float> ranges{};     // distances by bearing: Session::scan_info().num_bearings
    int32_t num_steady = 0;   // frames the depth goes back, of a session with a stabilization; written likewise

    // The same as a struct of the C API.
    mvde_outputs plain() const {
        mvde_outputs plain;
        mvde_outputs_defaults(&plain);
        if (depth_m.size()) plain.depth_m = depth_m.data();
        if (depth_mm.size()) plain.depth_mm = depth_mm.data();
        if (stats.size()) plain.stats = stats.data();
        plain.depth_capacity = static_cast<int64_t>(depth_m.size());
        plain.depth_mm_capacity = static_cast<int64_t>(depth_mm.size());
        plain.stats_capacity = static_cast<int64_t>(stats.size());
        if (points.size()) plain.points = points.data();
        plain.points_capacity = static_cast<int64_t>(points.size());
        plain.points_step = points_step;
        plain.points_colours = points_colours;
        if (ranges.size()) plain.ranges = ranges.data();
        plain.ranges_capacity = static_cast<int64_t>(ranges.size());
        return plain;
    }
};

// An engine written by `mvde build`: frames in, depth and patch statistics out. Serves one call at a time.
class Session {
public:
    // The options as a struct of the C API, which points into them.
    static mvde_session_options plain_of(const SessionOptions &options) {
        mvde_session_options plain;
        mvde_session_defaults(&plain);
        plain.format = static_cast<int32_t>(options.format);
        plain.frame_height = options.frame.height;
        plain.frame_width = options.frame.width;
        plain.fit = static_cast<int32_t>(options.fit);
        plain.num_threads = options.num_threads;
        plain.camera = options.camera ? &*options.camera : nullptr;
        plain.stats = options.stats.data();
        plain.num_stats = static_cast<int32_t>(options.stats.size());
        plain.invalid_m = options.invalid_m;
        plain.deadline_ms = options.deadline_ms;
        plain.distortion = options.distortion ? &*options.distortion : nullptr;
        plain.scan = options.scan ? &*options.scan : nullptr;
        plain.stabilization = options.stabilization ? &*options.stabilization : nullptr;
        if (!options.calibration_path.empty()) plain.calibration_path = options.calibration_path.c_str();
        return plain;
    }

    // `engine_path` is the engine's folder, file or manifest. See mvde_open.
    static Result<Session> open(const std::string &engine_path, const SessionOptions &options = {}) {
        const mvde_session_options plain = plain_of(options);
        mvde_session *handle = nullptr;
        if (const int32_t status = mvde_open(engine_path.c_str(), &plain, &handle)) return Error::last(status);
        return Session(handle);
    }

    // Compute what `outputs` has views for: depth (num_depths() values at the frame's pixels) and statistics (num_stats()).
    Result<void> infer(const mvde_frame &frame, Outputs &outputs) {
        mvde_outputs plain = outputs.plain();
        const int32_t status = mvde_infer(handle_.get(), &frame, &plain);
        outputs.tag = plain.tag;
        outputs.calibrated = plain.calibrated;
        outputs.num_steady = plain.num_steady;
        return Result<void>::of(status);
    }
    Result<void> infer(const mvde_frame &frame, View<float> depth_m, View<float> stats) {
        Outputs outputs{depth_m, stats, {}, {}};
        return infer(frame, outputs);
    }

    // Start inference on a frame and return without waiting; the memory of `frame` can then be reused. Follow with wait(),
    // from any thread.
    Result<void> infer_async(const mvde_frame &frame) { return Result<void>::of(mvde_infer_async(handle_.get(), &frame)); }

    // Wait up to `timeout_ms` milliseconds (negative: no limit) for the frame in flight and compute its results as infer()
    // does. After MVDE_ERROR_TIMEOUT it is still in flight.
    Result<void> wait(Outputs &outputs, int64_t timeout_ms = -1) {
        mvde_outputs plain = outputs.plain();
        const int32_t status = mvde_wait(handle_.get(), timeout_ms, &plain);
        outputs.tag = plain.tag;
        outputs.calibrated = plain.calibrated;
        outputs.num_steady = plain.num_steady;
        return Result<void>::of(status);
    }
    Result<void> wait(View<float> depth_m, View<float> stats, int64_t timeout_ms = -1) {
        Outputs outputs{depth_m, stats, {}, {}};
        return wait(outputs, timeout_ms);
    }

    // Bind device memory once, then enqueue frames on a cudaStream_t. The memory must outlive the binding. See
    // mvde_bind_device and mvde_infer_device.
    Result<void> bind_device(const mvde_frame &frame, View<float> depth_m, View<float> stats) {
        const mvde_outputs outputs = Outputs{depth_m, stats, {}, {}}.plain();
        return Result<void>::of(mvde_bind_device(handle_.get(), &frame, &outputs));
    }
    Result<void> infer_device(void *stream) { return Result<void>::of(mvde_infer_device(handle_.get(), stream)); }

    // Forget the frames so far: the next one begins anew, and may have any time. See mvde_session_reset.
    Result<void> reset() { return Result<void>::of(mvde_session_reset(handle_.get())); }

    // Properties of the session. Strings are valid as long as the session.
    mvde_session_info info() const {
        mvde_session_info info{};
        info.struct_size = sizeof info;
        mvde_session_query(handle_.get(), &info);
        return info;
    }

    // Properties of the scans of a session that was opened with `scan`; num_bearings is 0 without. See mvde_session_scan.
    mvde_scan_info scan_info() const {
        mvde_scan_info info{};
        info.struct_size = sizeof info;
        mvde_session_scan(handle_.get(), &info);
        return info;
    }

    // Results delivered, late ones, and frames refused because one was in flight.
    mvde_session_counters counters() const {
        mvde_session_counters counters{};
        counters.struct_size = sizeof counters;
        mvde_session_count(handle_.get(), &counters);
        return counters;
    }

    // Number of floats in a frame's depth map, and in its statistics.
    std::size_t num_depths() const {
        const mvde_session_info now = info();
        return static_cast<std::size_t>(now.frame_height * now.frame_width);
    }
    std::size_t num_stats() const {
        const mvde_session_info now = info();
        return static_cast<std::size_t>(now.grid_rows * now.grid_columns * now.num_stats);
    }
    std::size_t num_point_values(int32_t step = 1, bool has_colours = false) const {
        const mvde_session_info now = info();
        const int64_t count = mvde_num_point_values(now.frame_height, now.frame_width, step, has_colours);
        return count < 0 ? 0 : static_cast<std::size_t>(count);
    }
    mvde_session *get() const { return handle_.get(); }

private:
    explicit Session(mvde_session *handle) : handle_(handle) {}
    struct Close {
        void operator()(mvde_session *handle) const { mvde_close(handle); }
    };
    std::unique_ptr<mvde_session, Close> handle_;
};

// Engines of one model at several resolutions: each frame has the largest that holds a deadline. Serves one call at a time.
class Group {
public:
    // `grid` is that of the statistics, (rows, columns); {0, 0}: near the smallest engine's. See mvde_group_open.
    static Result<Group> open(const std::vector<std::string> &engine_paths, double deadline_ms,
                              const SessionOptions &options = {}, Size grid = {}) {
        std::vector<const char *> paths;
        for (const std::string &path : engine_paths) paths.push_back(path.c_str());
        const mvde_session_options plain = Session::plain_of(options);
        mvde_group *handle = nullptr;
        if (const int32_t status = mvde_group_open(paths.data(), static_cast<int32_t>(paths.size()), &plain, deadline_ms,
                                                   grid.height, grid.width, &handle))
            return Error::last(status);
        return Group(handle);
    }

    // Compute what `outputs` has views for, as Session::infer, of a frame that is `age_ms` old; `index` receives the engine
    // that was used, 0 for the smallest.
    Result<void> infer(const mvde_frame &frame, Outputs &outputs, double age_ms = 0.0, int32_t *index = nullptr) {
        mvde_outputs plain = outputs.plain();
        const int32_t status = mvde_group_infer(handle_.get(), &frame, age_ms, &plain, index);
        outputs.tag = plain.tag;
        outputs.calibrated = plain.calibrated;
        outputs.num_steady = plain.num_steady;
        return Result<void>::of(status);
    }

    // Forget the frames so far: the next one begins anew, and may have any time. See mvde_group_reset.
    Result<void> reset() { return Result<void>::of(mvde_group_reset(handle_.get())); }

    // Properties of engine `index`, 0 for the smallest; its session's strings are valid as long as the group.
    mvde_session_info info(int32_t index) const {
        mvde_session_info info{};
        info.struct_size = sizeof info;
        mvde_group_query(handle_.get(), index, &info, nullptr);
        return info;
    }
    mvde_group_engine engine(int32_t index) const {
        mvde_group_engine engine{};
        engine.struct_size = sizeof engine;
        mvde_group_query(handle_.get(), index, nullptr, &engine);
        return engine;
    }

    // What became of the frames.
    mvde_deadline_counters counters() const {
        mvde_deadline_counters counters{};
        counters.struct_size = sizeof counters;
        mvde_group_count(handle_.get(), &counters);
        return counters;
    }
    mvde_group *get() const { return handle_.get(); }

private:
    explicit Group(mvde_group *handle) : handle_(handle) {}
    struct Close {
        void operator()(mvde_group *handle) const { mvde_group_close(handle); }
    };
    std::unique_ptr<mvde_group, Close> handle_;
};

// A dense map and its dense RGB picture over the caller's memory, for Stabilizer::update; sizes in pixels.
inline mvde_steady_frame steady_frame(const uint8_t *rgb, Size picture, const float *map, Size size) {
    mvde_steady_frame frame;
    mvde_steady_frame_defaults(&frame);
    frame.rgb = rgb;
    frame.picture_height = picture.height;
    frame.picture_width = picture.width;
    frame.map = map;
    frame.height = size.height;
    frame.width = size.width;
    return frame;
}

// A dense frame over the caller's memory; `size` in pixels. NV12 and YUYV: BT.601, limited range.
inline mvde_frame frame(const uint8_t *data, PixelFormat format, Size size) {
    mvde_frame frame;
    mvde_frame_defaults(&frame);
    frame.data = data;
    frame.format = static_cast<int32_t>(format);
    frame.height = size.height;
    frame.width = size.width;
    return frame;
}

// A dense batch of float32 maps over the caller's memory; `size` in pixels. Not written if used as an input.
inline mvde_map depth_map(const float *data, Size size, int64_t batch = 1) {
    return {const_cast<float *>(data), MVDE_FLOAT32, 0, batch, size.height, size.width, 0, 0, 0};
}

// Default options: linear, scale 1, shift 0, reject, no bounds, NaN for invalid pixels, no mask, no confidence.
inline mvde_postprocess_options default_options() {
    mvde_postprocess_options options;
    mvde_postprocess_defaults(&options);
    return options;
}

// A statistics request; `patch_size` in pixels. `stats` and `out` must outlive it.
inline mvde_stats_request request(int32_t patch_size, View<const int32_t> stats, View<float> out) {
    mvde_stats_request request;
    mvde_stats_request_defaults(&request);
    request.patch_size = patch_size;
    request.num_stats = static_cast<int32_t>(stats.size());
    request.stats = stats.data();
    request.out = out.data();
    request.capacity = static_cast<int64_t>(out.size());
    return request;
}

// Convert raw network output to depth and statistics in one pass; either may be nullptr. See mvde_postprocess.
inline Result<void> postprocess(const mvde_map &raw, const mvde_postprocess_options &options, const mvde_map *depth,
                                const mvde_stats_request *wanted, mvde_workers *workers = nullptr) {
    return Result<void>::of(mvde_postprocess(&raw, &options, depth, wanted, workers));
}

// Compute patch statistics of a depth map in metres, without bounds: `out` is [batch, rows * columns, stats.size()].
inline Result<void> patch_stats(const mvde_map &depth, int32_t patch_size, std::initializer_list<int32_t> stats,
                                View<float> out, mvde_workers *workers = nullptr) {
    const mvde_stats_request wanted = request(patch_size, {stats.begin(), stats.size()}, out);
    return Result<void>::of(mvde_patch_stats(&depth, 0.0F, std::numeric_limits<float>::infinity(), &wanted, workers));
}

}  // namespace mvde
