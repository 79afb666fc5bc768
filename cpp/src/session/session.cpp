#include "session/session.hpp"

#include "error.hpp"
#include "image/points.hpp"
#include "image/resizer.hpp"
#include "session/columns.hpp"
#include "session/frame_camera.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>

namespace mvde::internal {
namespace {

constexpr std::int64_t kMaxSide = 1 << 16;
constexpr std::int64_t kMaxPixels = 1 << 28;
// Checks a session's requirements beyond those of every manifest.
void check_usable(const Artifact &artifact) {
    const Manifest &manifest = artifact.manifest;
    const auto expect = [&](bool holds, const std::string &what) {
        if (!holds) throw Refused(MVDE_ERROR_MANIFEST, artifact.path + ": " + what);
    };
    const TensorSpec &input = manifest.input, &output = manifest.outputs[0];
    expect(manifest.batch() == 1, "it takes " + std::to_string(manifest.batch()) +
                                      " images per call, but a session one frame; export it with a batch of 1");
    expect(input.dtype == "uint8" && input.layout == "BHWC" && input.colour == "RGB",
           "its input is " + input.dtype + " " + input.layout + " " + input.colour + ", but expected uint8 BHWC RGB");
    expect(manifest.height() <= kMaxSide && manifest.width() <= kMaxSide &&
               manifest.height() * manifest.width() <= kMaxPixels,
           "its input is too large: expected at most 65536 pixels a side and 2^28 in all");
    const std::vector<std::int64_t> shape{1, manifest.height(), manifest.width()};
    expect(output.shape == shape && output.dtype == "float32", "its first output must be float32 and as large as its input");
    expect(!manifest.stats.empty() && manifest.stats.size() <= 7, "it must name 1 to 7 statistics");
    for (const std::string &name : manifest.stats) expect(stat_of(name) >= 0, "unknown statistic '" + name + "'");
}

void require(std::int32_t status) {
    if (status) throw Refused(static_cast<mvde_status>(status), mvde_last_error());
}

mvde_resizer_options resizing_of(const Preprocess &preprocess, std::int32_t fit) {
    mvde_resizer_options options;
    mvde_resizer_defaults(&options);
    options.fit = fit != MVDE_FIT_DEFAULT ? fit : preprocess.fit == "letterbox" ? MVDE_LETTERBOX : MVDE_STRETCH;
    options.interpolation = preprocess.interpolation == "bicubic" ? MVDE_BICUBIC : MVDE_BILINEAR;
    if (preprocess.bicubic_coefficient) options.bicubic_coefficient = static_cast<float>(*preprocess.bicubic_coefficient);
    options.antialias = preprocess.antialias;
    options.align_corners = preprocess.align_corners;
    options.multiple = static_cast<std::int32_t>(preprocess.multiple);
    options.padding = static_cast<std::int32_t>(preprocess.padding);
    return options;
}

// Threads for resizing and statistics, as in mvde/runtime/fitter.py: a frame takes about 1 ms, so more than four cost more in
// wake-ups than they gain.
std::int32_t default_threads() {
    cpu_set_t set;
    const auto count = sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set))
                                                                   : std::thread::hardware_concurrency();
    return static_cast<std::int32_t>(std::clamp(count, 1U, 4U));
}

}  // namespace

Session::Session(const char *path, const mvde_session_options &options) : Session(load_artifact(path), options) {}

Session::Session(Artifact artifact, const mvde_session_options &options) : artifact_(std::move(artifact)) {
    if (options.calibration_path) calibration_ = read_calibration(options.calibration_path);
    check_cpu(artifact_);
    backend_ = &find_backend(artifact_.manifest.engine.backend.c_str());
    library_version_ = backend_->library_version();
    check_library(artifact_, *backend_);
    require_unforked();
    if (backend_->device) find_device();
    check_graph(artifact_);
    check_proved(artifact_, backend_->device ? &device_ : nullptr);
    check_usable(artifact_);
    choose_columns(options);
    create_resizer(options);
    calibrate(options);
    if (options.stabilization) place_stabilizer(*options.stabilization);
    load_engine(options);
}

// In a forked child, a library that the parent has used would wait for its threads forever.
void Session::require_unforked() const {
    static std::atomic<unsigned> first_use[3];  // per backend: number of forks at its first use, plus 1
    static std::atomic<const mvde_backend *> backends[3];
    for (int i = 0; i < 3; ++i) {
        const mvde_backend *none = nullptr;
        if (!backends[i].compare_exchange_strong(none, backend_) && none != backend_) continue;
        unsigned unused = 0;
        if (first_use[i].compare_exchange_strong(unused, num_forks() + 1) || unused == num_forks() + 1) return;
        throw Refused(MVDE_ERROR_FORKED,
                      "cannot open " + artifact_.path + ": " + backend_->title +
                          " was used before this process was forked, and its threads do not survive that: start the "
                          "child by exec (in Python: spawn), or open sessions in children only");
    }
}

void Session::find_device() {
    mvde_backend_message message{};
    if (const std::int32_t status = backend_->device(&device_, &message))
        throw Refused(static_cast<mvde_status>(status),
                      std::string(backend_->title) + " cannot run " + artifact_.path + ": " + message.text);
    check_device(artifact_, device_);
}

Session::~Session() {
    if (!is_inherited()) backend_->close(engine_.engine);  // waits for the library's threads
}

void Session::create_resizer(const mvde_session_options &options) {
    const std::int64_t height = artifact_.manifest.height(), width = artifact_.manifest.width();
    frame_height_ = options.frame_height ? options.frame_height : height;
    frame_width_ = options.frame_width ? options.frame_width : width;
    mvde_resizer *resizer = nullptr;
    const mvde_resizer_options resizing = resizing_of(artifact_.manifest.preprocess, options.fit);
    format_ = options.format;
    fit_ = resizing.fit;
    invalid_m_ = options.invalid_m;
    deadline_ms_ = options.deadline_ms;
    require(mvde_resizer_create(options.format, frame_height_, frame_width_, height, width, &resizing, &resizer));
    resizer_.reset(resizer);
    mvde_resizer_boxes(resizer, &source_box_, &target_box_);
    const std::int32_t num_threads = options.num_threads ? options.num_threads : default_threads();
    if (num_threads > 1) {
        mvde_workers *workers = nullptr;
        require(mvde_workers_create(num_threads, &workers));
        workers_.reset(workers);
    }
}

void Session::load_engine(const mvde_session_options &session) {
    const EngineManifest &manifest = artifact_.manifest;
    const EngineRecord &record = manifest.engine;
    std::vector<mvde_backend_option> options;
    for (const auto &[name, value] : record.options) options.push_back({name.c_str(), value.c_str()});
    const ResizePlan plan = plan_of(resizer_.get());
    mvde_backend_request request{artifact_.path.c_str(),
                                 artifact_.content->data(),
                                 artifact_.content->size_bytes(),
                                 options.data(),
                                 options.size(),
                                 manifest.input.name.c_str(),
                                 {},
                                 static_cast<std::int32_t>(manifest.outputs.size()),
                                 1,
                                 manifest.height(),
                                 manifest.width(),
                                 static_cast<std::int32_t>(manifest.stats_patch),
                                 maps_->needs_others() || stabilizer_ ? 0 : static_cast<std::int32_t>(stats_.size()),
                                 stats_.data(),
                                 session.format,
                                 frame_height_,
                                 frame_width_,
                                 plan.source,
                                 plan.target,
                                 plan.columns,
                                 plan.rows,
                                 plan.padding,
                                 static_cast<float>(own_.metres.scale)};
    for (std::size_t i = 0; i < manifest.outputs.size(); ++i) request.output_names[i] = manifest.outputs[i].name.c_str();
    mvde_backend_message message{};
    mvde_backend_engine loaded{};
    const std::int32_t status = backend_->load(&request, &loaded, &message);
    if (status == MVDE_ERROR_NO_DEVICE)
        throw Refused(MVDE_ERROR_NO_DEVICE,
                      std::string(backend_->title) + " cannot run " + artifact_.path + ": " + message.text);
    if (status)
        throw Refused(static_cast<mvde_status>(status), std::string(backend_->title) + " cannot load " + artifact_.path +
                                                            ": " + message.text + "; build it again with `mvde build`");
    if (!loaded.executed_precision) loaded.executed_precision = record.executed_precision.c_str();
    if (record.executed_precision != loaded.executed_precision) {
        const std::string executed = loaded.executed_precision;
        backend_->close(loaded.engine);
        throw Refused(MVDE_ERROR_INCOMPATIBLE, artifact_.path + " was built to compute in " + record.executed_precision +
                                                   ", but computes in " + executed +
                                                   " here; build it again: " + "mvde build --engine " + record.id);
    }
    engine_ = loaded;
    if (!engine_.keeps_content) artifact_.content.reset();
}

std::int64_t Session::num_patches() const { return artifact_.manifest.grid_rows * artifact_.manifest.grid_columns; }

std::int64_t Session::num_stats() const { return num_patches() * static_cast<std::int64_t>(columns_->chosen().size()); }

std::int32_t Session::infer(const mvde_frame &frame, mvde_outputs &outputs) {
    if (const std::int32_t status = accept()) return status;
    OutputExtents extents;
    if (const std::int32_t status = check_results(outputs, frame.num_anchors > 0, extents)) return status;
    if (const std::int32_t status = resize(frame, extents)) return status;
    if (const std::int32_t status = run()) return status;
    return finish(outputs);
}

std::int32_t Session::start(const mvde_frame &frame) {
    if (const std::int32_t status = accept()) return status;
    if (const std::int32_t status = resize(frame, {})) return status;
    mvde_backend_message message{};
    if (const std::int32_t status = backend_->start(engine_.engine, &message)) return failed(status, message);
    is_in_flight_ = true;
    return MVDE_OK;
}

std::int32_t Session::wait(std::int64_t timeout_ms, mvde_outputs &outputs) {
    if (!is_in_flight_) return fail(MVDE_ERROR_IDLE, "no frame is in flight: begin one with mvde_infer_async");
    OutputExtents extents;
    if (const std::int32_t status = check_results(outputs, !anchors_.empty(), extents)) return status;
    mvde_backend_message message{};
    const std::int32_t status = backend_->wait(engine_.engine, timeout_ms, &message);
    if (status == MVDE_ERROR_TIMEOUT)
        return fail(MVDE_ERROR_TIMEOUT, "%s was not done after %" PRId64 " ms; the frame is still in flight: wait again",
                    artifact_.manifest.engine.id.c_str(), timeout_ms);
    is_in_flight_ = false;
    return status ? failed(status, message) : finish(outputs);
}

void Session::describe(mvde_session_info &info) const {
    const EngineManifest &manifest = artifact_.manifest;
    info.num_stats = static_cast<std::int32_t>(columns_->chosen().size());
    info.frame_height = frame_height_;
    info.frame_width = frame_width_;
    info.model_height = manifest.height();
    info.model_width = manifest.width();
    info.grid_rows = manifest.grid_rows;
    info.grid_columns = manifest.grid_columns;
    info.patch_size = static_cast<std::int32_t>(manifest.stats_patch);
    for (std::size_t i = 0; i < MVDE_MAX_STATS; ++i)
        info.stats[i] = i < columns_->chosen().size() ? columns_->chosen()[i] : -1;
    info.depth_kind = own_.kind;
    info.calibrated = own_.calibrated;
    info.camera_assumed = camera_assumed_;
    info.camera_factor = camera_factor_;
    if (camera_) info.camera = *camera_;
    else info.camera = {};
    info.min_valid = static_cast<float>(manifest.min_valid);
    info.max_valid = static_cast<float>(manifest.max_valid);
    info.fit = fit_;
    info.source_box = source_box_;
    info.target_box = target_box_;
    info.name = manifest.name.c_str();
    info.unit = calibration_ ? "m" : manifest.unit.c_str();
    info.engine_id = manifest.engine.id.c_str();
    info.backend = manifest.engine.backend.c_str();
    info.library_version = library_version_.c_str();
    info.executed_precision = engine_.executed_precision;
    info.execution = engine_.execution;
    info.device = device_.name[0] ? device_.name : manifest.engine.device.c_str();
}

void Session::count(mvde_session_counters &counters) const {
    counters.num_frames = num_frames_.load();
    counters.num_late = num_late_.load();
    counters.num_dropped = num_dropped_.load();
}

std::int32_t Session::check_idle() const {
    if (!is_in_flight_) return MVDE_OK;
    return fail(MVDE_ERROR_BUSY, "a frame is in flight: take its results with mvde_wait first, or alternate two sessions");
}

// Begins a frame: its time counts from here, and it is dropped if another one is in flight.
std::int32_t Session::accept() {
    const std::int32_t status = check_idle();
    if (status) drop();
    else accepted_ = std::chrono::steady_clock::now();
    return status;
}

std::int32_t Session::resize(const mvde_frame &frame, const OutputExtents &extents) {
    mvde_frame complete;
    if (const std::int32_t status = check_apart(frame, extents, complete)) return status;
    if (const std::int32_t status = check_frame_is(frame, format_, frame_height_, frame_width_)) return status;
    if (const std::int32_t status = anchors_.take(frame, frame_height_, frame_width_)) return status;
    if (const std::int32_t status = check_time(frame.time_s)) return status;
    tag_ = frame.tag;
    time_s_ = frame.time_s;
    frame_mounting_ = mounting_;
    return mvde_resize(resizer_.get(), &frame, engine_.images, 0, workers_.get());
}

std::int32_t Session::finish(mvde_outputs &outputs) {
    if (const std::int32_t status = stabilize()) return status;
    if (const std::int32_t status = view_frame()) return status;
    const bool has_intervals = outputs.stats && columns_->has_intervals();
    if (const std::int32_t status = postprocess(has_intervals ? columns_->rows() : outputs.stats)) return status;
    if (has_intervals) columns_->write(outputs.stats);
    if (outputs.ranges)
        if (const std::int32_t status = write_ranges(outputs.ranges)) return status;
    if (outputs.depth_m || outputs.depth_mm || outputs.points)
        if (const std::int32_t status = write_depth(outputs)) return status;
    outputs.tag = tag_;
    outputs.calibrated = view_.calibrated;
    outputs.num_steady = stabilizer_ ? stabilizer_->num_frames() : 0;
    outputs.floor = floor_;
    ++num_frames_;
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - accepted_;
    if (deadline_ms_ && took.count() > static_cast<double>(deadline_ms_)) ++num_late_;
    return MVDE_OK;
}

// Converts the network's map to depth of the frame's camera at the network's resolution, and its statistics if `stats` is
// not NULL, in one pass. Statistics that the engine computed are of the map, and scaled here.
std::int32_t Session::postprocess(float *stats) {
    const Manifest &manifest = artifact_.manifest;
    const bool computes = stats && !(engine_.stats && view_.is_scaling() && !stabilizer_);
    if (computes) maps_->clear_bars(engine_.maps[0], target_box_);
    maps_->mask_depth(engine_.maps);
    mvde_postprocess_options options;
    mvde_postprocess_defaults(&options);
    options.scale = static_cast<float>(view_.metres.scale);
    options.shift = static_cast<float>(view_.metres.shift);
    options.conversion = view_.is_reciprocal ? MVDE_INVERSE : MVDE_LINEAR;
    // An inverse map is 0 where it gives no distance; depth has no such value.
    if (is_inverse(view_.kind)) options.invalid_m = 0.0F;
    maps_->set_options(engine_.maps, options);
    const mvde_map raw{engine_.maps[0], MVDE_FLOAT32, 0, 1, manifest.height(), manifest.width(), 0, 0, 0};
    const mvde_map depth{depth_.get(), MVDE_FLOAT32, 0, 1, manifest.height(), manifest.width(), 0, 0, 0};
    const mvde_stats_request request{sizeof(mvde_stats_request),
                                     static_cast<std::int32_t>(manifest.stats_patch),
                                     static_cast<std::int32_t>(stats_.size()),
                                     stats_.data(),
                                     stats,
                                     num_patches() * static_cast<std::int64_t>(stats_.size())};
    if (const auto status = mvde_postprocess(&raw, &options, &depth, computes ? &request : nullptr, workers_.get()))
        return status;
    if (is_inverse(view_.kind)) maps_->mark_invalid(engine_.maps, depth_.get());
    if (!stats || computes) return MVDE_OK;
    std::memcpy(stats, engine_.stats, static_cast<std::size_t>(num_patches()) * stats_.size() * sizeof(float));
    if (view_.metres.scale != 1.0) scale_stats(stats, num_patches(), stats_, view_.metres.scale);
    return MVDE_OK;
}

// Maps depth to the frame's pixels, and computes what follows from it there.
std::int32_t Session::write_depth(const mvde_outputs &outputs) {
    float *const depth = outputs.depth_m ? outputs.depth_m : metres_.get();
    if (const std::int32_t status = mvde_depth_to_source(resizer_.get(), depth_.get(), 0, depth, 0, invalid_m_,
                                                         workers_.get()))
        return status;
    if (outputs.points) {
        const mvde_points_options options{sizeof options, outputs.points_step, outputs.points_colours};
        const std::int64_t capacity = outputs.points_capacity;
        if (const auto status = write_points(*rays_, depth, 0, options, outputs.points, capacity, workers_.get()))
            return status;
    }
    if (!outputs.depth_mm) return MVDE_OK;
    const mvde_map metres{depth, MVDE_FLOAT32, 0, 1, frame_height_, frame_width_, 0, 0, 0};
    const mvde_map millimetres{outputs.depth_mm, MVDE_UINT16, 0, 1, frame_height_, frame_width_, 0, 0, 0};
    return mvde_postprocess(&metres, nullptr, &millimetres, nullptr, workers_.get());
}

std::int32_t Session::failed(std::int32_t status, const mvde_backend_message &message) const {
    return fail(static_cast<mvde_status>(status), "%s failed to run %s: %s", backend_->title,
                artifact_.manifest.engine.id.c_str(), message.text);
}

}  // namespace mvde::internal
