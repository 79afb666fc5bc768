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
        case MVDE_ERROR_SHAPE: return "sizes do not fit the patch, each other, or 64-bit arithmetic";
        case MVDE_ERROR_ALIGNMENT: return "a pointer or stride is not a multiple of its element's size";
        case MVDE_ERROR_OVERLAP: return "an output overlaps the input or another output";
        case MVDE_ERROR_CAPACITY: return "the output buffer is too small";
        case MVDE_ERROR_KERNEL: return "the kernel asked for is unknown or cannot run on this CPU";
        case MVDE_ERROR_MEMORY: return "out of memory";
        case MVDE_ERROR_BUSY: return "the handle is in use by another call";
        case MVDE_ERROR_THREAD: return "the operating system would not start a thread";
        case MVDE_ERROR_ARTIFACT: return "there is no engine at the path, or it cannot be read";
        case MVDE_ERROR_MANIFEST: return "the engine's manifest is missing, malformed, or not one that a session can run";
        case MVDE_ERROR_HASH: return "a file is not the one that its manifest describes";
        case MVDE_ERROR_INCOMPATIBLE: return "the engine was built for another machine, library version or graph";
        case MVDE_ERROR_BACKEND: return "the inference library is missing or failed";
        case MVDE_ERROR_TIMEOUT: return "the engine is not done yet; the frame is still in flight";
        case MVDE_ERROR_IDLE: return "there is nothing to wait for or to run";
        case MVDE_ERROR_CLOSED: return "the handle was closed, or is none";
        case MVDE_ERROR_NO_DEVICE: return "the engine needs a GPU, and there is none that works";
        case MVDE_ERROR_UNSUPPORTED: return "this engine's backend cannot do it";
        case MVDE_ERROR_FORKED: return "the inference library was used before this process was forked";
        default: return "not a status of libmvde";
    }
}

}  // extern "C"
