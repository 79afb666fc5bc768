#include "backend.hpp"

#include "manifest.hpp"

#include <dlfcn.h>

#include <cstring>
#include <string>

namespace {

// The folder of the library (or program) that this code is in, with a slash at the end.
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

}  // namespace

const mvde_backend &mvde::find_backend(const char *name) {
    if (std::strcmp(name, "openvino") != 0)
        throw Refused(MVDE_ERROR_BACKEND, std::string("this version of libmvde has no ") + name + " engines; use openvino");
    const std::string file = std::string("libmvde_") + name + ".so";
    void *library = dlopen((own_folder() + file).c_str(), RTLD_NOW | RTLD_LOCAL);
    const std::string beside = library ? "" : load_error();
    if (!library) library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library)
        throw Refused(MVDE_ERROR_BACKEND, file + " cannot be loaded (" + beside +
                                              "); build it with -DMVDE_BUILD_OPENVINO=ON and put it beside libmvde.so");
    auto *entry = reinterpret_cast<mvde_backend_function *>(dlsym(library, MVDE_BACKEND_ENTRY));
    const mvde_backend *backend = entry ? entry() : nullptr;
    if (!backend || backend->version != MVDE_BACKEND_VERSION)
        throw Refused(MVDE_ERROR_BACKEND, file + " is not a backend of this libmvde: build both from the same sources");
    return *backend;
}
