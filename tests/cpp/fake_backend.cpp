// A backend for tests of the session: it stands beside the test's program as libmvde_openvino.so, says that it is 1.2.3,
// computes in fp32, and its depth is 0.5 m + the mean of the colours / 64. Of a blob that begins with "broken" it says so.
#include "backend.hpp"

#include <cstdio>
#include <fstream>
#include <string>

namespace {

struct Engine {
    mvde_backend_request request;
};

const char *library_version() { return "1.2.3"; }

std::int32_t load(const mvde_backend_request *request, void **engine, char *message, std::size_t capacity) {
    std::string content;
    std::ifstream(request->path) >> content;
    if (content == "broken") {
        std::snprintf(message, capacity, "the blob is broken");
        return 1;
    }
    *engine = new Engine{*request};
    return 0;
}

const char *executed_precision(void *) { return "fp32"; }

std::int32_t infer(void *engine, char *message, std::size_t capacity) {
    const mvde_backend_request &request = static_cast<Engine *>(engine)->request;
    if (request.images[0] == 255) {
        std::snprintf(message, capacity, "the device is on fire");
        return 1;
    }
    for (std::int64_t i = 0; i < request.height * request.width; ++i)
        request.depth[i] = 0.5F + static_cast<float>(request.images[3 * i] + request.images[3 * i + 1] + request.images[3 * i + 2]) / 192.0F;
    return 0;
}

void close(void *engine) { delete static_cast<Engine *>(engine); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const mvde_backend *mvde_backend_entry() {
    static const mvde_backend backend{MVDE_BACKEND_VERSION, library_version, load, executed_precision, infer, close};
    return &backend;
}
