// libmvde_tensorrt.so and libmvde_tensorrt_rtx.so: the TensorRT (10.3 to 11.x) and TensorRT-RTX backends.
#include "gpu_engine.hpp"
#include "session/backend_message.hpp"

#include <cstdio>
#include <exception>
#include <string>

namespace mvde::internal::gpu {
namespace {

// Calls the backend; no exception escapes.
template <class Call>
std::int32_t guarded(mvde_backend_message *message, Call call) {
    try {
        call();
        return MVDE_OK;
    } catch (const Failure &error) {
        return fail(error.status, error.what(), message);
    } catch (const std::exception &error) {
        return fail(MVDE_ERROR_BACKEND, error.what(), message);
    }
}

Engine &of(void *engine) { return *static_cast<Engine *>(engine); }

const char *library_version() {
    static const std::string version = Plan::library_version();
    return version.c_str();
}

std::int32_t device(mvde_backend_device *found, mvde_backend_message *message) {
    return guarded(message, [&] {
        const Device here = current_device();
        std::snprintf(found->name, sizeof found->name, "%s", here.name.c_str());
        std::snprintf(found->compute_capability, sizeof found->compute_capability, "%d.%d", here.major, here.minor);
    });
}

std::int32_t load(const mvde_backend_request *request, mvde_backend_engine *loaded, mvde_backend_message *message) {
    return guarded(message, [&] { *loaded = (new Engine(*request))->view(); });
}

std::int32_t start(void *engine, mvde_backend_message *message) {
    return guarded(message, [&] { of(engine).start(); });
}

std::int32_t wait(void *engine, std::int64_t timeout_ms, mvde_backend_message *message) {
    bool is_done = true;
    const std::int32_t status = guarded(message, [&] { is_done = of(engine).wait(timeout_ms); });
    return is_done ? status : MVDE_ERROR_TIMEOUT;
}

std::int32_t infer(void *engine, mvde_backend_message *message) {
    const std::int32_t status = start(engine, message);
    return status ? status : wait(engine, -1, message);
}

std::int32_t bind_device(void *engine, const mvde_frame *frame, const mvde_outputs *outputs, const char **execution,
                         mvde_backend_message *message) {
    return guarded(message, [&] {
        of(engine).bind_device(*frame, *outputs);
        *execution = of(engine).view().execution;
    });
}

std::int32_t infer_device(void *engine, void *stream, mvde_backend_message *message) {
    return guarded(message, [&] { of(engine).infer_device(static_cast<cudaStream_t>(stream)); });
}

void close(void *engine) { delete &of(engine); }

}  // namespace
}  // namespace mvde::internal::gpu

using namespace mvde::internal::gpu;

extern "C" __attribute__((visibility("default"))) const mvde_backend *mvde_backend_entry() {
    static const mvde_backend backend{MVDE_BACKEND_VERSION,
                                      MVDE_TENSORRT_TITLE,
                                      library_version,
                                      device,
                                      load,
                                      infer,
                                      start,
                                      wait,
                                      bind_device,
                                      infer_device,
                                      close};
    return &backend;
}
