// The C API of sessions: handles and argument checks. No exception escapes.
#include "error.hpp"
#include "float_environment.hpp"
#include "forks.hpp"
#include "handles.hpp"
#include "session/classic_numbers.hpp"
#include "session/frame_camera.hpp"
#include "session/session.hpp"
#include "session/session_options.hpp"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <new>

namespace mvde::internal {
namespace {

using Sessions = Handles<Session, mvde_session, 1024>;

// Never destroyed: at process exit, an open session must not outlive its inference library.
Sessions &sessions() {
    static Sessions &all = *new Sessions;
    static const bool watches = (at_fork([] { all.drop_holds(); }), true);
    static_cast<void>(watches);
    return all;
}

std::int32_t refuse(Sessions::Access access) {
    if (access == Sessions::Access::busy)
        return fail(MVDE_ERROR_BUSY, "the session is in use by another call: give each thread its own");
    return fail(MVDE_ERROR_CLOSED, "the session was closed, or did not come from mvde_open");
}

std::int32_t refuse_inherited(const Session &session) {
    return fail(MVDE_ERROR_FORKED,
                "the session was opened before this process was forked, and the threads of %s do not survive that: "
                "start the child by exec (in Python: spawn), or open sessions in children only",
                session.library());
}

// Runs a call that modifies the session, and stores its error message in the handle.
template <class Call>
std::int32_t with(mvde_session *handle, Call call) {
    if (!handle) return fail(MVDE_ERROR_ARGUMENT, "session is NULL: open one with mvde_open");
    const Sessions::Hold session = sessions().change(handle);
    if (session.access() != Sessions::Access::granted) return refuse(session.access());
    const FloatEnvironment environment;
    const std::int32_t status = session->is_inherited() ? refuse_inherited(*session) : call(*session);
    if (status) std::snprintf(session->last_error, sizeof session->last_error, "%s", mvde_last_error());
    return status;
}

// The same for a call that takes a frame, which is dropped if the session is in use.
template <class Call>
std::int32_t with_frame(mvde_session *handle, Call call) {
    bool is_called = false;
    const std::int32_t status = with(handle, [&](Session &open) { return is_called = true, call(open); });
    if (status != MVDE_ERROR_BUSY || is_called) return status;
    const Sessions::Hold session = sessions().read(handle);
    if (session.access() == Sessions::Access::granted) session->drop();
    return status;
}

}  // namespace

std::int32_t check_options(const mvde_session_options &options) {
    if (options.struct_size != sizeof options)
        return fail(MVDE_ERROR_ARGUMENT, "options.struct_size is %u: start from mvde_session_defaults()",
                    options.struct_size);
    if (!options.frame_height != !options.frame_width)
        return fail(MVDE_ERROR_ARGUMENT,
                    "options.frame_height is %" PRId64 " and frame_width %" PRId64
                    ": give both, or 0 for both (frames of the model's input size)",
                    options.frame_height, options.frame_width);
    if (options.num_threads < 0 || options.num_threads > 256)
        return fail(MVDE_ERROR_ARGUMENT, "options.num_threads is %d: expected 1 to 256, or 0 for one per CPU, at most 4",
                    options.num_threads);
    if (!std::isnan(options.invalid_m) && options.invalid_m != 0.0F)
        return fail(MVDE_ERROR_ARGUMENT, "options.invalid_m is %g: expected NaN or 0",
                    static_cast<double>(options.invalid_m));
    if (options.deadline_ms < 0)
        return fail(MVDE_ERROR_ARGUMENT, "options.deadline_ms is %" PRId64 ": expected milliseconds, or 0 for none",
                    options.deadline_ms);
    if (options.distortion && !options.camera)
        return fail(MVDE_ERROR_ARGUMENT, "options.distortion is of no camera: give options.camera too");
    if (options.scan && options.scan->struct_size != sizeof *options.scan)
        return fail(MVDE_ERROR_ARGUMENT, "options.scan->struct_size is %u: start from mvde_scan_defaults()",
                    options.scan->struct_size);
    if (options.stabilization)
        if (const std::int32_t status = check_stabilization(*options.stabilization)) return status;
    return options.distortion ? check_lens(*options.distortion) : MVDE_OK;
}

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

void mvde_session_defaults(mvde_session_options *options) {
    if (!options) return;
    *options = {};
    options->struct_size = sizeof *options;
    options->fit = MVDE_FIT_DEFAULT;
    options->invalid_m = std::numeric_limits<float>::quiet_NaN();
}

int32_t mvde_open(const char *engine_path, const mvde_session_options *options, mvde_session **session) {
    if (!session) return fail(MVDE_ERROR_ARGUMENT, "session is NULL: expected the address of a handle");
    *session = nullptr;
    if (!engine_path || !*engine_path) return fail(MVDE_ERROR_ARGUMENT, "engine_path is NULL or empty");
    const FloatEnvironment environment;
    mvde_session_options chosen;
    mvde_session_defaults(&chosen);
    if (options) chosen = *options;
    if (const int32_t status = check_options(chosen)) return status;
    try {
        const ClassicNumbers classic;
        if (chosen.camera) check_camera(*chosen.camera);
        *session = sessions().add(std::make_unique<Session>(engine_path, chosen));
        return *session ? MVDE_OK : fail(MVDE_ERROR_MEMORY, "1024 sessions are open: close one first");
    } catch (const Refused &error) {
        return fail(error.status, "%s", error.what());
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory to open %s", engine_path);
    } catch (const std::exception &error) {
        return fail(MVDE_ERROR_ARTIFACT, "cannot open %s: %s", engine_path, error.what());
    }
}

void mvde_close(mvde_session *session) {
    if (session) sessions().close(session);
}

void mvde_outputs_defaults(mvde_outputs *outputs) {
    if (!outputs) return;
    *outputs = {};
    outputs->struct_size = sizeof *outputs;
    outputs->points_step = 1;
}

int32_t mvde_infer(mvde_session *session, const mvde_frame *frame, mvde_outputs *outputs) {
    return with_frame(session, [&](Session &open) -> std::int32_t {
        if (!frame || !outputs) return fail(MVDE_ERROR_ARGUMENT, "frame or outputs is NULL");
        return open.infer(*frame, *outputs);
    });
}

int32_t mvde_infer_async(mvde_session *session, const mvde_frame *frame) {
    return with_frame(session, [&](Session &open) -> std::int32_t {
        return frame ? open.start(*frame) : fail(MVDE_ERROR_ARGUMENT, "frame is NULL");
    });
}

int32_t mvde_wait(mvde_session *session, int64_t timeout_ms, mvde_outputs *outputs) {
    return with(session, [&](Session &open) -> std::int32_t {
        return outputs ? open.wait(timeout_ms, *outputs) : fail(MVDE_ERROR_ARGUMENT, "outputs is NULL");
    });
}

int32_t mvde_bind_device(mvde_session *session, const mvde_frame *frame, const mvde_outputs *outputs) {
    return with(session, [&](Session &open) -> std::int32_t {
        if (!frame || !outputs) return fail(MVDE_ERROR_ARGUMENT, "frame or outputs is NULL");
        return open.bind_device(*frame, *outputs);
    });
}

int32_t mvde_infer_device(mvde_session *session, void *stream) {
    return with(session, [&](Session &open) { return open.infer_device(stream); });
}

int32_t mvde_session_reset(mvde_session *session) {
    return with(session, [&](Session &open) { return open.reset(); });
}

const char *mvde_session_error(const mvde_session *session) {
    const Sessions::Hold open = sessions().read(session);
    return session && open.access() == Sessions::Access::granted ? open->last_error : "";
}

int32_t mvde_session_query(const mvde_session *session, mvde_session_info *info) {
    if (!session || !info) return fail(MVDE_ERROR_ARGUMENT, "session or info is NULL");
    if (info->struct_size != sizeof *info)
        return fail(MVDE_ERROR_ARGUMENT, "info.struct_size is %u: expected sizeof(mvde_session_info)", info->struct_size);
    const Sessions::Hold open = sessions().read(session);
    if (open.access() != Sessions::Access::granted) return refuse(open.access());
    const FloatEnvironment environment;
    open->describe(*info);
    return MVDE_OK;
}

int32_t mvde_session_scan(const mvde_session *session, mvde_scan_info *info) {
    if (!session || !info) return fail(MVDE_ERROR_ARGUMENT, "session or info is NULL");
    if (info->struct_size != sizeof *info)
        return fail(MVDE_ERROR_ARGUMENT, "info.struct_size is %u: expected sizeof(mvde_scan_info)", info->struct_size);
    const Sessions::Hold open = sessions().read(session);
    if (open.access() != Sessions::Access::granted) return refuse(open.access());
    const FloatEnvironment environment;
    return open->describe_scan(*info);
}

int32_t mvde_session_count(const mvde_session *session, mvde_session_counters *counters) {
    if (!session || !counters) return fail(MVDE_ERROR_ARGUMENT, "session or counters is NULL");
    if (counters->struct_size != sizeof *counters)
        return fail(MVDE_ERROR_ARGUMENT, "counters.struct_size is %u: expected sizeof(mvde_session_counters)",
                    counters->struct_size);
    const Sessions::Hold open = sessions().read(session);
    if (open.access() != Sessions::Access::granted) return refuse(open.access());
    open->count(*counters);
    return MVDE_OK;
}

}  // extern "C"
