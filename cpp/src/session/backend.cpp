#include "session/backend.hpp"

#include "session/refused.hpp"

#include <dlfcn.h>
#include <unistd.h>

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

// What to do about a library that cannot be loaded: `is_there` if the file is beside libmvde.
std::string way_out(const Known &wanted, bool is_there) {
    const std::string built = std::string("-D") + wanted.option + "=ON";
    if (!is_there) return "build it with " + built + " and put it beside libmvde.so";
    if (!std::strcmp(wanted.name, "openvino"))
        return "it needs the release of OpenVINO that it was built for (with mvde's wheel: pip install 'mvde[native]'); "
               "for another one build mvde with " +
               built;
    return "it needs the libraries that it was built for; for others build mvde with " + built;
}

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
    const bool is_there = !access((own_folder() + file).c_str(), F_OK);
    if (!library) library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library)
        throw Refused(MVDE_ERROR_BACKEND, file + " cannot be loaded (" + beside + "); " + way_out(wanted, is_there));
    auto *entry = reinterpret_cast<mvde_backend_function *>(dlsym(library, MVDE_BACKEND_ENTRY));
    const mvde_backend *backend = entry ? entry() : nullptr;
    if (!backend || backend->version != MVDE_BACKEND_VERSION)
        throw Refused(MVDE_ERROR_BACKEND, file + " is not a backend of this libmvde: build both from the same sources");
    return *backend;
}

}  // namespace mvde::internal
