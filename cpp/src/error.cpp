#include "error.hpp"

#include "session/classic_numbers.hpp"

#include <cstdarg>
#include <cstdio>

namespace mvde::internal {
namespace {

thread_local char last_error[MVDE_ERROR_BYTES] = "";

}  // namespace

int fail(mvde_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const ClassicCNumbers classic;
    std::vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

int32_t mvde_version(void) { return MVDE_VERSION; }

const char *mvde_last_error(void) { return last_error; }

const char *mvde_strerror(int32_t status) {
    switch (status) {
        case MVDE_OK: return "success";
        case MVDE_ERROR_ARGUMENT: return "an argument is NULL, unknown or out of range";
        case MVDE_ERROR_SHAPE: return "sizes do not match the patch size or each other, or overflow 64 bits";
        case MVDE_ERROR_ALIGNMENT: return "a pointer or stride is not a multiple of its element's size";
        case MVDE_ERROR_OVERLAP: return "an output overlaps the input or another output";
        case MVDE_ERROR_CAPACITY: return "the output buffer is too small";
        case MVDE_ERROR_KERNEL: return "the requested kernel is unknown or not supported by this CPU";
        case MVDE_ERROR_MEMORY: return "out of memory";
        case MVDE_ERROR_BUSY: return "the handle is in use by another call";
        case MVDE_ERROR_THREAD: return "the operating system could not start a thread";
        case MVDE_ERROR_ARTIFACT: return "no engine at the path, or it cannot be read";
        case MVDE_ERROR_MANIFEST: return "the engine's manifest is missing, malformed, or unusable for a session";
        case MVDE_ERROR_HASH: return "a file's checksum or size differs from its manifest";
        case MVDE_ERROR_INCOMPATIBLE: return "the engine was built for another machine, library version or graph";
        case MVDE_ERROR_BACKEND: return "the inference library is missing, or a call to it failed";
        case MVDE_ERROR_TIMEOUT: return "inference has not finished; the frame is still in flight";
        case MVDE_ERROR_IDLE: return "no frame is in flight, or no device memory is bound";
        case MVDE_ERROR_CLOSED: return "the handle is closed or invalid";
        case MVDE_ERROR_NO_DEVICE: return "the engine needs a GPU, and no usable one was found";
        case MVDE_ERROR_UNSUPPORTED: return "not supported by this engine's backend";
        case MVDE_ERROR_FORKED: return "the parent process used the inference library before fork()";
        default: return "not a status of libmvde";
    }
}

}  // extern "C"
