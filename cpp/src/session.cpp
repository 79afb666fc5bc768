// mvde_session: a camera frame -> the model's input -> the engine -> depth at the frame's pixels and patch statistics.
#include "artifact.hpp"
#include "backend.hpp"
#include "error.hpp"

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace {

using mvde::fail;
using mvde::Refused;

constexpr std::int64_t kMaxSide = 1 << 16;
constexpr std::int64_t kMaxPixels = 1 << 28;
constexpr const char *kStatNames[] = {"mean", "var", "grad", "min", "max", "valid"};  // mvde_stat

struct CloseResizer {
    void operator()(mvde_resizer *resizer) const { mvde_resizer_destroy(resizer); }
};
struct CloseWorkers {
    void operator()(mvde_workers *workers) const { mvde_workers_destroy(workers); }
};

std::int32_t stat_of(const std::string &name) {
    for (std::int32_t stat = 0; stat < 6; ++stat)
        if (name == kStatNames[stat]) return stat;
    return -1;
}

// What a session needs beyond what every manifest must say.
void check_usable(const mvde::Artifact &artifact) {
    const mvde::Manifest &manifest = artifact.manifest;
    const auto expect = [&](bool holds, const std::string &what) {
        if (!holds) throw Refused(MVDE_ERROR_MANIFEST, artifact.path + ": " + what);
    };
    const mvde::TensorSpec &input = manifest.input, &output = manifest.outputs[0];
    expect(manifest.batch() == 1, "it takes " + std::to_string(manifest.batch()) +
                                      " images per call, but a session one frame; export it with a batch of 1");
    expect(input.dtype == "uint8" && input.layout == "BHWC" && input.colour == "RGB",
           "its input is " + input.dtype + " " + input.layout + " " + input.colour + ", but expected uint8 BHWC RGB");
    expect(manifest.height() <= kMaxSide && manifest.width() <= kMaxSide && manifest.height() * manifest.width() <= kMaxPixels,
           "its input is too large: expected at most 65536 pixels a side and 2^28 in all");
    const std::vector<std::int64_t> shape{1, manifest.height(), manifest.width()};
    expect(output.shape == shape && output.dtype == "float32", "its first output must be float32 and as large as its input");
    expect(!manifest.stats.empty() && manifest.stats.size() <= 6, "it must name 1 to 6 statistics");
    for (const std::string &name : manifest.stats) expect(stat_of(name) >= 0, "unknown statistic '" + name + "'");
}

void require(std::int32_t status) {
    if (status) throw Refused(static_cast<mvde_status>(status), mvde_last_error());
}

}  // namespace

struct mvde_session {
    mvde_session(const char *path, const mvde_session_options &options) : artifact(mvde::load_artifact(path)) {
        mvde::check_cpu(artifact);
        backend = &mvde::find_backend(artifact.manifest.engine.backend.c_str());
        library_version = backend->library_version();
        mvde::check_library(artifact, library_version);
        mvde::check_graph(artifact);
        check_usable(artifact);
        const mvde::Manifest &manifest = artifact.manifest;
        frame_height = options.frame_height ? options.frame_height : manifest.height();
        frame_width = options.frame_width ? options.frame_width : manifest.width();
        create_buffers(options);
        load_engine();
    }
    mvde_session(const mvde_session &) = delete;
    mvde_session &operator=(const mvde_session &) = delete;

    void create_buffers(const mvde_session_options &options) {
        const std::int64_t height = artifact.manifest.height(), width = artifact.manifest.width();
        mvde_resizer *new_resizer = nullptr;
        require(mvde_resizer_create(options.format, frame_height, frame_width, height, width, options.fit, &new_resizer));
        resizer.reset(new_resizer);
        mvde_resizer_boxes(new_resizer, nullptr, &seen);
        if (options.num_threads > 1) {
            mvde_workers *new_workers = nullptr;
            require(mvde_workers_create(options.num_threads, &new_workers));
            workers.reset(new_workers);
        }
        image.resize(static_cast<std::size_t>(height * width * 3));
        depth.resize(static_cast<std::size_t>(height * width));
        for (const std::string &name : artifact.manifest.stats) stats.push_back(stat_of(name));
    }

    void load_engine() {
        const mvde::EngineRecord &record = artifact.manifest.engine;
        std::vector<mvde_backend_option> options;
        for (const auto &[name, value] : record.options) options.push_back({name.c_str(), value.c_str()});
        const mvde_backend_request request{artifact.path.c_str(), options.data(), options.size(), 1,
                                           artifact.manifest.height(), artifact.manifest.width(), image.data(), depth.data()};
        char message[640] = "";
        void *loaded = nullptr;
        if (backend->load(&request, &loaded, message, sizeof message))
            throw Refused(MVDE_ERROR_INCOMPATIBLE, "OpenVINO cannot load " + artifact.path + ": " + message +
                                                       "; build it again with `mvde build`");
        engine = {loaded, backend->close};
        executed_precision = backend->executed_precision(loaded);
        if (executed_precision != record.executed_precision)
            throw Refused(MVDE_ERROR_INCOMPATIBLE, artifact.path + " was built to compute in " + record.executed_precision +
                                                       ", but computes in " + executed_precision +
                                                       " here; build it again: mvde build --engine " + record.id);
    }

    std::int64_t num_stats() const {
        return artifact.manifest.grid_rows * artifact.manifest.grid_columns * static_cast<std::int64_t>(stats.size());
    }

    // 0 (invalid) outside the image, so that the bars of a letterbox have no statistics.
    void clear_bars() {
        const std::int64_t width = artifact.manifest.width();
        for (std::int64_t y = 0; y < artifact.manifest.height(); ++y) {
            float *row = depth.data() + y * width;
            const bool is_bar = y < seen.top || y >= seen.bottom;
            std::fill(row, row + (is_bar ? width : seen.left), 0.0F);
            std::fill(row + seen.right, row + width, 0.0F);
        }
    }

    std::int32_t infer(const mvde_frame &frame, float *depth_m, float *out) {
        if (const std::int32_t status = mvde_resize(resizer.get(), &frame, image.data(), 0, workers.get())) return status;
        char message[640] = "";
        if (backend->infer(engine.get(), message, sizeof message))
            return fail(MVDE_ERROR_BACKEND, "OpenVINO failed to run %s: %s", artifact.manifest.engine.id.c_str(), message);
        clear_bars();
        if (out) {
            const mvde_map map{depth.data(), MVDE_FLOAT32, 0, 1, artifact.manifest.height(), artifact.manifest.width(), 0, 0, 0};
            const mvde_stats_request request{static_cast<std::int32_t>(artifact.manifest.patch_size),
                                             static_cast<std::int32_t>(stats.size()), stats.data(), out, num_stats()};
            const float no_bound = std::numeric_limits<float>::infinity();
            if (const std::int32_t status = mvde_patch_stats(&map, 0.0F, no_bound, &request, workers.get())) return status;
        }
        return depth_m ? mvde_depth_to_source(resizer.get(), depth.data(), 0, depth_m, 0, workers.get()) : MVDE_OK;
    }

    mvde::Artifact artifact;
    const mvde_backend *backend = nullptr;
    std::string library_version, executed_precision;
    std::int64_t frame_height = 0, frame_width = 0;
    std::unique_ptr<mvde_resizer, CloseResizer> resizer;
    std::unique_ptr<mvde_workers, CloseWorkers> workers;
    mvde_box seen{};
    std::vector<std::uint8_t> image;  // [H, W, 3] at the model's resolution
    std::vector<float> depth;         // [H, W] at the model's resolution, metres
    std::vector<std::int32_t> stats;  // mvde_stat
    std::unique_ptr<void, void (*)(void *)> engine{nullptr, nullptr};  // closed also where opening fails after it
    char last_error[MVDE_ERROR_BYTES] = "";
    std::atomic<bool> busy{false};
};

namespace {

std::int32_t check_options(const mvde_session_options &options) {
    if (options.struct_size != sizeof options)
        return fail(MVDE_ERROR_ARGUMENT, "options.struct_size is %u: start from mvde_session_defaults()", options.struct_size);
    if (options.num_threads < 1 || options.num_threads > 256)
        return fail(MVDE_ERROR_ARGUMENT, "options.num_threads is %d: expected 1 to 256", options.num_threads);
    return MVDE_OK;
}

std::int32_t check_outputs(const mvde_session &session, const mvde_outputs &outputs) {
    const std::int64_t num_pixels = session.frame_height * session.frame_width, num_stats = session.num_stats();
    if (!outputs.depth_m && !outputs.stats)
        return fail(MVDE_ERROR_ARGUMENT, "outputs.depth_m and outputs.stats are NULL: nothing to compute");
    if (outputs.depth_m && outputs.depth_capacity < num_pixels)
        return fail(MVDE_ERROR_CAPACITY, "depth_capacity is %" PRId64 ", but the frame has %" PRId64 " pixels",
                    outputs.depth_capacity, num_pixels);
    if (outputs.stats && outputs.stats_capacity < num_stats)
        return fail(MVDE_ERROR_CAPACITY, "stats_capacity is %" PRId64 ", but the statistics are %" PRId64 " floats",
                    outputs.stats_capacity, num_stats);
    return MVDE_OK;
}

std::int32_t run(mvde_session &session, const mvde_frame *frame, const mvde_outputs *outputs) {
    if (!frame || !outputs) return fail(MVDE_ERROR_ARGUMENT, "frame or outputs is NULL");
    if (const std::int32_t status = check_outputs(session, *outputs)) return status;
    return session.infer(*frame, outputs->depth_m, outputs->stats);
}

}  // namespace

extern "C" {

void mvde_session_defaults(mvde_session_options *options) {
    if (options) *options = {sizeof *options, MVDE_RGB, 0, 0, MVDE_STRETCH, 1};
}

int32_t mvde_open(const char *engine_path, const mvde_session_options *options, mvde_session **session) {
    if (!session) return fail(MVDE_ERROR_ARGUMENT, "session is NULL: expected the address of a handle");
    *session = nullptr;
    if (!engine_path || !*engine_path) return fail(MVDE_ERROR_ARGUMENT, "engine_path is NULL or empty");
    mvde_session_options chosen;
    mvde_session_defaults(&chosen);
    if (options) chosen = *options;
    if (const int32_t status = check_options(chosen)) return status;
    try {
        *session = new mvde_session(engine_path, chosen);
        return MVDE_OK;
    } catch (const Refused &error) {
        return fail(error.status, "%s", error.what());
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory to open %s", engine_path);
    } catch (const std::exception &error) {
        return fail(MVDE_ERROR_ARTIFACT, "cannot open %s: %s", engine_path, error.what());
    }
}

void mvde_close(mvde_session *session) { delete session; }

int32_t mvde_infer(mvde_session *session, const mvde_frame *frame, const mvde_outputs *outputs) {
    if (!session) return fail(MVDE_ERROR_ARGUMENT, "session is NULL: open one with mvde_open");
    if (session->busy.exchange(true)) return fail(MVDE_ERROR_BUSY, "the session is in use by another call: give each thread its own");
    const int32_t status = run(*session, frame, outputs);
    if (status) std::snprintf(session->last_error, sizeof session->last_error, "%s", mvde_last_error());
    session->busy.store(false);
    return status;
}

const char *mvde_session_error(const mvde_session *session) { return session ? session->last_error : ""; }

int32_t mvde_session_query(const mvde_session *session, mvde_session_info *info) {
    if (!session || !info) return fail(MVDE_ERROR_ARGUMENT, "session or info is NULL");
    if (info->struct_size != sizeof *info)
        return fail(MVDE_ERROR_ARGUMENT, "info.struct_size is %u: expected sizeof(mvde_session_info)", info->struct_size);
    const mvde::Manifest &manifest = session->artifact.manifest;
    info->num_stats = static_cast<int32_t>(session->stats.size());
    info->frame_height = session->frame_height;
    info->frame_width = session->frame_width;
    info->model_height = manifest.height();
    info->model_width = manifest.width();
    info->grid_rows = manifest.grid_rows;
    info->grid_columns = manifest.grid_columns;
    info->patch_size = static_cast<int32_t>(manifest.patch_size);
    for (std::size_t i = 0; i < 6; ++i) info->stats[i] = i < session->stats.size() ? session->stats[i] : -1;
    info->is_metric = manifest.depth_kind == "metric";
    info->min_depth_m = static_cast<float>(manifest.min_depth_m);
    info->max_depth_m = static_cast<float>(manifest.max_depth_m);
    info->name = manifest.name.c_str();
    info->unit = manifest.outputs[0].unit.c_str();
    info->engine_id = manifest.engine.id.c_str();
    info->backend = manifest.engine.backend.c_str();
    info->library_version = session->library_version.c_str();
    info->executed_precision = session->executed_precision.c_str();
    info->device = manifest.engine.device.c_str();
    return MVDE_OK;
}

}  // extern "C"
