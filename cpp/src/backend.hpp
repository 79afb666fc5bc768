// What libmvde asks of an inference library. Each backend is a shared object of its own, libmvde_NAME.so, that exports
// mvde_backend_entry; libmvde loads it when an engine needs it, so that a robot carries only what it uses.
#pragma once

#include <cstddef>
#include <cstdint>

#define MVDE_BACKEND_VERSION 1
#define MVDE_BACKEND_ENTRY "mvde_backend_entry"

extern "C" {

struct mvde_backend_option {
    const char *name, *value;
};

// An engine to load, and the session's buffers that it reads and writes from then on.
struct mvde_backend_request {
    const char *path;
    const mvde_backend_option *options;
    std::size_t num_options;
    std::int64_t batch, height, width;
    std::uint8_t *images;  // [batch, height, width, 3]
    float *depth;          // [batch, height, width]
};

// Functions that return an int32_t give 0, or write a sentence into `message` (of `capacity` bytes) and give another.
struct mvde_backend {
    std::uint32_t version;  // MVDE_BACKEND_VERSION
    const char *(*library_version)();
    std::int32_t (*load)(const mvde_backend_request *request, void **engine, char *message, std::size_t capacity);
    const char *(*executed_precision)(void *engine);  // valid as long as the engine
    std::int32_t (*infer)(void *engine, char *message, std::size_t capacity);
    void (*close)(void *engine);
};

using mvde_backend_function = const mvde_backend *();

}  // extern "C"

namespace mvde {

// The backend of that name, loaded once per process and never unloaded: from libmvde's own folder, or else from where
// the system looks for libraries. Throws Refused (MVDE_ERROR_BACKEND) where there is none, or one of another version.
const mvde_backend &find_backend(const char *name);

}  // namespace mvde
