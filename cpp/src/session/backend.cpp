#include "session/backend.hpp"

#include "session/refused.hpp"

#include <dlfcn.h>

#include <cstring>
#include <string>

namespace mvde::internal {
namespace {

// Folder of the library (or program) that contains this code, with a trailing slash.
std::string own_folder() {
    Dl_info info;
    if (!dladdr(reinterpret_cast<const void *>(&mvde_version), &info) || !info.dli_fname) return "";
    const char *slash = std::strrchr(info.dli_fname, '/');
    return slash ? std::string(info.dli_fname, slash + 1) : "";
}

std::string load_error() {
    const char *reason = dlerror();
    return reason ? reason : "no reason given";
}

struct Known {
    const char *name, *file, *option;
};
constexpr Known kKnown[] = {
    {"openvino", "libmvde_openvino.so", "MVDE_BUILD_OPENVINO"},
    {"tensorrt", "libmvde_tensorrt.so", "MVDE_BUILD_TENSORRT"},
    {"tensorrt-rtx", "libmvde_tensorrt_rtx.so", "MVDE_BUILD_TENSORRT"},
};

const Known &known(const char *name) {
    for (const Known &one : kKnown)
        if (!std::strcmp(one.name, name)) return one;
    throw Refused(MVDE_ERROR_BACKEND, std::string("this version of libmvde has no ") + name +
                                          " engines; use openvino, tensorrt or tensorrt-rtx");
}

}  // namespace

const mvde_backend &find_backend(const char *name) {
    const Known &wanted = known(name);
    const std::string file = wanted.file;
    void *library = dlopen((own_folder() + file).c_str(), RTLD_NOW | RTLD_LOCAL);
    const std::string beside = library ? "" : load_error();
    if (!library) library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library)
        throw Refused(MVDE_ERROR_BACKEND, file + " cannot be loaded (" + beside + "); build it with -D" + wanted.option +
                                              "=ON and put it beside libmvde.so");
    auto *entry = reinterpret_cast<mvde_backend_function *>(dlsym(library, MVDE_BACKEND_ENTRY));
    const mvde_backend *backend = entry ? entry() : nullptr;
    if (!backend || backend->version != MVDE_BACKEND_VERSION)
        throw Refused(MVDE_ERROR_BACKEND, file + " is not a backend of this libmvde: build both from the same sources");
    return *backend;
}

}  // namespace mvde::internal
