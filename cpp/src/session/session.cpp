#include "session/session.hpp"

#include "error.hpp"
#include "image/frame.hpp"
#include "kernel/map.hpp"
#include "image/resizer.hpp"

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstring>
#include <limits>

namespace mvde::internal {
namespace {

constexpr std::int64_t kMaxSide = 1 << 16;
constexpr std::int64_t kMaxPixels = 1 << 28;
constexpr const char *kStatNames[] = {"mean", "var", "grad", "min", "max", "valid"};  // mvde_stat

std::int32_t stat_of(const std::string &name) {
    for (std::int32_t stat = 0; stat < 6; ++stat)
        if (name == kStatNames[stat]) return stat;
    return -1;
}

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
    expect(!manifest.stats.empty() && manifest.stats.size() <= 6, "it must name 1 to 6 statistics");
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

Extent extent_of(const float *data, std::int64_t count) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    return data ? Extent{address, address + static_cast<std::uintptr_t>(count) * sizeof(float)} : Extent{};
}

// Checks the frame, and that it does not overlap the outputs.
std::int32_t check_apart(const mvde_frame &frame, Extent depth, Extent stats) {
    mvde_frame complete;
    Extent luma, chroma;
    if (const std::int32_t status = check_frame(frame, complete, luma, chroma)) return status;
    for (const Extent read : {luma, chroma})
        if (overlaps(read, depth) || overlaps(read, stats))
            return fail(MVDE_ERROR_OVERLAP, "the frame and the outputs overlap");
    return MVDE_OK;
}

std::int32_t check_floats(const char *name, const float *data, std::int64_t capacity, std::int64_t count, const char *what) {
    if (!data) return MVDE_OK;
    if (capacity < count)
        return fail(MVDE_ERROR_CAPACITY, "%s_capacity is %" PRId64 ", but %s %" PRId64 " floats", name, capacity, what,
                    count);
    if (reinterpret_cast<std::uintptr_t>(data) % sizeof(float))
        return fail(MVDE_ERROR_ALIGNMENT, "outputs.%s: its pointer must be a multiple of 4 bytes", name);
    return MVDE_OK;
}

}  // namespace

Session::Session(const char *path, const mvde_session_options &options) : artifact_(load_artifact(path)) {
    check_cpu(artifact_);
    backend_ = &find_backend(artifact_.manifest.engine.backend.c_str());
    library_version_ = backend_->library_version();
    check_library(artifact_, *backend_);
    require_unforked();
    if (backend_->device) find_device();
    check_graph(artifact_);
    check_proved(artifact_, backend_->device ? &device_ : nullptr);
    check_usable(artifact_);
    for (const std::string &name : artifact_.manifest.stats) stats_.push_back(stat_of(name));
    create_resizer(options);
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
    require(mvde_resizer_create(options.format, frame_height_, frame_width_, height, width, &resizing, &resizer));
    resizer_.reset(resizer);
    mvde_resizer_boxes(resizer, nullptr, &seen_);
    if (options.num_threads > 1) {
        mvde_workers *workers = nullptr;
        require(mvde_workers_create(options.num_threads, &workers));
        workers_.reset(workers);
    }
}

void Session::load_engine(const mvde_session_options &session) {
    const EngineManifest &manifest = artifact_.manifest;
    const EngineRecord &record = manifest.engine;
    std::vector<mvde_backend_option> options;
    for (const auto &[name, value] : record.options) options.push_back({name.c_str(), value.c_str()});
    const ResizePlan plan = plan_of(resizer_.get());
    const mvde_backend_request request{artifact_.path.c_str(),
                                       artifact_.content->data(),
                                       artifact_.content->size_bytes(),
                                       options.data(),
                                       options.size(),
                                       manifest.input.name.c_str(),
                                       manifest.outputs[0].name.c_str(),
                                       1,
                                       manifest.height(),
                                       manifest.width(),
                                       static_cast<std::int32_t>(manifest.stats_patch),
                                       static_cast<std::int32_t>(stats_.size()),
                                       stats_.data(),
                                       session.format,
                                       frame_height_,
                                       frame_width_,
                                       plan.source,
                                       plan.target,
                                       plan.columns,
                                       plan.rows,
                                       plan.padding};
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

std::int64_t Session::num_stats() const {
    return artifact_.manifest.grid_rows * artifact_.manifest.grid_columns * static_cast<std::int64_t>(stats_.size());
}

std::int32_t Session::infer(const mvde_frame &frame, const mvde_outputs &outputs) {
    if (const std::int32_t status = check_idle()) return status;
    const std::int64_t num_pixels = frame_height_ * frame_width_;
    if (const std::int32_t status = check_outputs(outputs, num_pixels)) return status;
    const Extent depth = extent_of(outputs.depth_m, num_pixels), stats = extent_of(outputs.stats, num_stats());
    if (const std::int32_t status = check_apart(frame, depth, stats)) return status;
    if (const std::int32_t status = mvde_resize(resizer_.get(), &frame, engine_.images, 0, workers_.get())) return status;
    mvde_backend_message message{};
    if (const std::int32_t status = backend_->infer(engine_.engine, &message)) return failed(status, message);
    return finish(outputs);
}

std::int32_t Session::start(const mvde_frame &frame) {
    if (const std::int32_t status = check_idle()) return status;
    if (const std::int32_t status = mvde_resize(resizer_.get(), &frame, engine_.images, 0, workers_.get())) return status;
    mvde_backend_message message{};
    if (const std::int32_t status = backend_->start(engine_.engine, &message)) return failed(status, message);
    is_in_flight_ = true;
    return MVDE_OK;
}

std::int32_t Session::wait(std::int64_t timeout_ms, const mvde_outputs &outputs) {
    if (!is_in_flight_) return fail(MVDE_ERROR_IDLE, "no frame is in flight: begin one with mvde_infer_async");
    if (const std::int32_t status = check_outputs(outputs, frame_height_ * frame_width_)) return status;
    mvde_backend_message message{};
    const std::int32_t status = backend_->wait(engine_.engine, timeout_ms, &message);
    if (status == MVDE_ERROR_TIMEOUT)
        return fail(MVDE_ERROR_TIMEOUT, "%s was not done after %" PRId64 " ms; the frame is still in flight: wait again",
                    artifact_.manifest.engine.id.c_str(), timeout_ms);
    is_in_flight_ = false;
    return status ? failed(status, message) : finish(outputs);
}

std::int32_t Session::bind_device(const mvde_frame &frame, const mvde_outputs &outputs) {
    if (const std::int32_t status = check_idle()) return status;
    if (!backend_->bind_device)
        return fail(MVDE_ERROR_UNSUPPORTED, "%s engines do not take device memory: use mvde_infer", backend_->title);
    const std::int64_t num_pixels = artifact_.manifest.height() * artifact_.manifest.width();
    if (const std::int32_t status = check_outputs(outputs, num_pixels)) return status;
    const Extent depth = extent_of(outputs.depth_m, num_pixels), stats = extent_of(outputs.stats, num_stats());
    if (const std::int32_t status = check_apart(frame, depth, stats)) return status;
    mvde_frame complete;
    Extent luma, chroma;
    if (const std::int32_t status = check_frame(frame, complete, luma, chroma)) return status;
    if (const std::int32_t status = check_fits(resizer_.get(), frame)) return status;
    is_bound_ = false;
    mvde_backend_message message{};
    const std::int32_t status = backend_->bind_device(engine_.engine, &complete, &outputs, &engine_.execution, &message);
    if (status) return failed(status, message);
    is_bound_ = true;
    return MVDE_OK;
}

std::int32_t Session::infer_device(void *stream) {
    if (const std::int32_t status = check_idle()) return status;
    if (!backend_->infer_device)
        return fail(MVDE_ERROR_UNSUPPORTED, "%s engines do not take device memory: use mvde_infer", backend_->title);
    if (!is_bound_) return fail(MVDE_ERROR_IDLE, "no device memory is bound: bind it with mvde_bind_device");
    mvde_backend_message message{};
    const std::int32_t status = backend_->infer_device(engine_.engine, stream, &message);
    return status ? failed(status, message) : MVDE_OK;
}

void Session::describe(mvde_session_info &info) const {
    const EngineManifest &manifest = artifact_.manifest;
    info.num_stats = static_cast<std::int32_t>(stats_.size());
    info.frame_height = frame_height_;
    info.frame_width = frame_width_;
    info.model_height = manifest.height();
    info.model_width = manifest.width();
    info.grid_rows = manifest.grid_rows;
    info.grid_columns = manifest.grid_columns;
    info.patch_size = static_cast<std::int32_t>(manifest.stats_patch);
    for (std::size_t i = 0; i < 6; ++i) info.stats[i] = i < stats_.size() ? stats_[i] : -1;
    info.is_metric = manifest.unit == "m";
    info.min_depth_m = static_cast<float>(manifest.min_valid);
    info.max_depth_m = static_cast<float>(manifest.max_valid);
    info.name = manifest.name.c_str();
    info.unit = manifest.unit.c_str();
    info.engine_id = manifest.engine.id.c_str();
    info.backend = manifest.engine.backend.c_str();
    info.library_version = library_version_.c_str();
    info.executed_precision = engine_.executed_precision;
    info.execution = engine_.execution;
    info.device = device_.name[0] ? device_.name : manifest.engine.device.c_str();
}

std::int32_t Session::check_idle() const {
    if (!is_in_flight_) return MVDE_OK;
    return fail(MVDE_ERROR_BUSY, "a frame is in flight: take its results with mvde_wait first, or alternate two sessions");
}

std::int32_t Session::check_outputs(const mvde_outputs &outputs, std::int64_t num_pixels) const {
    if (!outputs.depth_m && !outputs.stats)
        return fail(MVDE_ERROR_ARGUMENT, "outputs.depth_m and outputs.stats are NULL: nothing to compute");
    std::int32_t status = check_floats("depth", outputs.depth_m, outputs.depth_capacity, num_pixels, "the map has");
    if (status) return status;
    status = check_floats("stats", outputs.stats, outputs.stats_capacity, num_stats(), "the statistics are");
    if (status) return status;
    if (overlaps(extent_of(outputs.depth_m, num_pixels), extent_of(outputs.stats, num_stats())))
        return fail(MVDE_ERROR_OVERLAP, "outputs.depth_m and outputs.stats overlap");
    return MVDE_OK;
}

std::int32_t Session::finish(const mvde_outputs &outputs) {
    if (outputs.stats)
        if (const std::int32_t status = write_stats(outputs.stats)) return status;
    if (!outputs.depth_m) return MVDE_OK;
    return mvde_depth_to_source(resizer_.get(), engine_.depth, 0, outputs.depth_m, 0, workers_.get());
}

std::int32_t Session::write_stats(float *out) {
    if (engine_.stats) {
        std::memcpy(out, engine_.stats, static_cast<std::size_t>(num_stats()) * sizeof(float));
        return MVDE_OK;
    }
    clear_bars();
    const Manifest &manifest = artifact_.manifest;
    const mvde_map map{engine_.depth, MVDE_FLOAT32, 0, 1, manifest.height(), manifest.width(), 0, 0, 0};
    const mvde_stats_request request{static_cast<std::int32_t>(manifest.stats_patch),
                                     static_cast<std::int32_t>(stats_.size()), stats_.data(), out, num_stats()};
    return mvde_patch_stats(&map, 0.0F, std::numeric_limits<float>::infinity(), &request, workers_.get());
}

std::int32_t Session::failed(std::int32_t status, const mvde_backend_message &message) const {
    return fail(static_cast<mvde_status>(status), "%s failed to run %s: %s", backend_->title,
                artifact_.manifest.engine.id.c_str(), message.text);
}

// Zeroes (invalidates) depth outside the image, so that letterbox padding has no statistics.
void Session::clear_bars() {
    const std::int64_t width = artifact_.manifest.width();
    for (std::int64_t y = 0; y < artifact_.manifest.height(); ++y) {
        float *row = engine_.depth + y * width;
        const bool is_bar = y < seen_.top || y >= seen_.bottom;
        std::fill(row, row + (is_bar ? width : seen_.left), 0.0F);
        std::fill(row + seen_.right, row + width, 0.0F);
    }
}

}  // namespace mvde::internal
