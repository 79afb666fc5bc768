// What libmvde asks of an inference library. Each backend is a shared object of its own, libmvde_NAME.so, that exports
// mvde_backend_entry; libmvde loads it when an engine needs it, so that a robot carries only what it uses.
#pragma once

#include "kernel/interface.hpp"
#include "mvde/mvde.h"

#include <cstddef>
#include <cstdint>

#define MVDE_BACKEND_VERSION 3
#define MVDE_BACKEND_ENTRY "mvde_backend_entry"

extern "C" {

struct mvde_backend_option {
    const char *name, *value;
};

// An engine to load, and what a session does around it. Pointers are valid during the call, `content` as long as the
// engine that keeps it.
struct mvde_backend_request {
    const char *path;  // what errors call it; it is not read again, since it may have been replaced
    const std::uint8_t *content;  // its bytes, which were compared with the manifest's hash
    std::size_t size_bytes;
    const mvde_backend_option *options;
    std::size_t num_options;
    const char *input_name, *output_name;
    std::int64_t batch, height, width;
    std::int32_t patch_size, num_stats;
    const std::int32_t *stats;  // mvde_stat
    // How frames go in, for backends that resize on a device: their format and size, the part of them that is resized,
    // onto which part of the input, and with which weights (of 8-bit images).
    std::int32_t frame_format;
    std::int64_t frame_height, frame_width;
    mvde_box source, target;
    mvde::internal::Taps columns, rows;
};

// An engine that was loaded, and the host memory that it reads and writes from then on; both end with `close`.
struct mvde_backend_engine {
    void *engine;
    std::uint8_t *images;            // [batch, height, width, 3]
    float *depth;                    // [batch, height, width]
    const float *stats;  // [batch, patches, num_stats] of the depth inside `target`; NULL: libmvde computes them
    const char *executed_precision;  // what the library says it computes in; NULL: it was fixed when the engine was built
    const char *execution;  // how a frame runs, in a few words
    std::int32_t keeps_content;  // 1: it needs the request's `content` until `close`
};

// The GPU that engines run on.
struct mvde_backend_device {
    char name[256];
    char compute_capability[16];  // such as "8.9"
};

// Room for what goes wrong: a sentence without the file's name.
struct mvde_backend_message {
    char text[640];
};

// Functions that return an int32_t give MVDE_OK, or a mvde_status and a message. An engine serves one call at a time and
// one frame at a time: `start`, then `wait` until it does not give MVDE_ERROR_TIMEOUT. NULL: the backend cannot do it.
struct mvde_backend {
    std::uint32_t version;  // MVDE_BACKEND_VERSION
    const char *title;  // as the library's makers write it
    const char *(*library_version)();
    std::int32_t (*device)(mvde_backend_device *device, mvde_backend_message *message);  // NULL: it is the CPU
    std::int32_t (*load)(const mvde_backend_request *request, mvde_backend_engine *loaded, mvde_backend_message *message);
    std::int32_t (*infer)(void *engine, mvde_backend_message *message);
    std::int32_t (*start)(void *engine, mvde_backend_message *message);
    std::int32_t (*wait)(void *engine, std::int64_t timeout_ms, mvde_backend_message *message);  // below 0: no limit
    // `frame` is complete, with its strides and chroma plane; `execution` says how such frames run.
    std::int32_t (*bind_device)(void *engine, const mvde_frame *frame, const mvde_outputs *outputs, const char **execution,
                                mvde_backend_message *message);
    std::int32_t (*infer_device)(void *engine, void *stream, mvde_backend_message *message);
    void (*close)(void *engine);  // awaits a frame that runs
};

using mvde_backend_function = const mvde_backend *();

}  // extern "C"

namespace mvde::internal {

// The backend of that name, loaded once per process and never unloaded: from libmvde's own folder, or else from where
// the system looks for libraries. Throws Refused (MVDE_ERROR_BACKEND) where there is none, or one of another version.
const mvde_backend &find_backend(const char *name);

}  // namespace mvde::internal
