// The interface of inference backends. Each backend is a shared library, libmvde_NAME.so, that exports mvde_backend_entry.
// libmvde loads it on demand, so that a robot needs only the backends it uses.
#pragma once

#include "kernel/interface.hpp"
#include "mvde/mvde.h"

#include <cstddef>
#include <cstdint>

#define MVDE_BACKEND_VERSION 6
#define MVDE_BACKEND_MAX_OUTPUTS 4  // one of each role
#define MVDE_BACKEND_ENTRY "mvde_backend_entry"

extern "C" {

struct mvde_backend_option {
    const char *name, *value;
};

// The engine to load and its session's parameters. Pointers are valid during the call; `content` is valid as long as the
// engine if it keeps it.
struct mvde_backend_request {
    const char *path;  // for error messages only: the file may have been replaced
    const std::uint8_t *content;  // the file's bytes, checked against the manifest's hash
    std::size_t size_bytes;
    const mvde_backend_option *options;
    std::size_t num_options;
    const char *input_name;
    const char *output_names[MVDE_BACKEND_MAX_OUTPUTS];  // depth first
    std::int32_t num_outputs;
    std::int64_t batch, height, width;
    std::int32_t patch_size, num_stats;  // 0 statistics: libmvde computes them
    const std::int32_t *stats;  // mvde_stat
    // Frame resizing, for backends that resize on a device: frame format and size, source box, target box and filter taps
    // (for 8-bit images), value of the padding outside the target box.
    std::int32_t frame_format;
    std::int64_t frame_height, frame_width;
    mvde_box source, target;
    mvde::internal::Taps columns, rows;
    std::uint8_t padding;
    float map_scale;  // of the depth and statistics in bound device memory; the host buffers hold the network's own
};

// A loaded engine and its host buffers. All are valid until `close`.
struct mvde_backend_engine {
    void *engine;
    std::uint8_t *images;  // [batch, height, width, 3]
    float *maps[MVDE_BACKEND_MAX_OUTPUTS];  // of the request's outputs, each [batch, height, width]
    const float *stats;  // [batch, patches, num_stats] of the depth inside `target`; NULL: computed by libmvde
    const char *executed_precision;  // as reported by the library; NULL: fixed when the engine was built
    const char *execution;  // how frames are executed, in a few words
    std::int32_t keeps_content;  // 1: it uses the request's `content` until `close`
};

// The GPU that engines run on.
struct mvde_backend_device {
    char name[256];
    char compute_capability[16];  // such as "8.9"
};

// Buffer for an error message: one sentence, without the file's name.
struct mvde_backend_message {
    char text[640];
};

// Functions that return int32_t return MVDE_OK, or a mvde_status and a message. An engine serves one call and one frame at
// a time: `start`, then `wait` until it returns something other than MVDE_ERROR_TIMEOUT. NULL: not supported.
struct mvde_backend {
    std::uint32_t version;  // MVDE_BACKEND_VERSION
    const char *title;  // the library's name as its vendor writes it
    const char *(*library_version)();
    std::int32_t (*device)(mvde_backend_device *device, mvde_backend_message *message);  // NULL: the CPU
    std::int32_t (*load)(const mvde_backend_request *request, mvde_backend_engine *loaded, mvde_backend_message *message);
    std::int32_t (*infer)(void *engine, mvde_backend_message *message);
    std::int32_t (*start)(void *engine, mvde_backend_message *message);
    std::int32_t (*wait)(void *engine, std::int64_t timeout_ms, mvde_backend_message *message);  // negative: no limit
    // `frame` has its strides and chroma plane filled in; `execution` receives how such frames are executed.
    std::int32_t (*bind_device)(void *engine, const mvde_frame *frame, const mvde_outputs *outputs, const char **execution,
                                mvde_backend_message *message);
    std::int32_t (*infer_device)(void *engine, void *stream, mvde_backend_message *message);
    void (*close)(void *engine);  // waits for a frame in flight
};

using mvde_backend_function = const mvde_backend *();

}  // extern "C"

namespace mvde::internal {

// Returns the backend of that name, loaded once per process and never unloaded, from libmvde's folder or else the system's
// search path. Throws Refused (MVDE_ERROR_BACKEND) if it is missing or of another version.
const mvde_backend &find_backend(const char *name);

}  // namespace mvde::internal
