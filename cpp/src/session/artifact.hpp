// An engine that `mvde build` wrote, checked as mvde/artifact.py and mvde/engines/store.py check it.
#pragma once

#include "session/backend.hpp"
#include "session/manifest.hpp"
#include "session/sealed_file.hpp"

#include <memory>
#include <string>

namespace mvde::internal {

struct Artifact {
    std::string path;    // of the engine's file
    std::string folder;  // that it lies in, without a slash at the end
    EngineManifest manifest;
    std::shared_ptr<const SealedFile> content;  // of the engine's file, which is not read again
};

// The engine at `path` (its folder, file or manifest) after comparing every file with its manifest. Where they differ and
// somebody is replacing the engine meanwhile, manifest and files are read again. Throws Refused.
Artifact load_artifact(const std::string &path);

// Throws Refused where this CPU lacks what the engine was built for, or its graph was exported anew since.
void check_cpu(const Artifact &artifact);
void check_graph(const Artifact &artifact);

// Throws Refused where the backend's library is not the version that built the engine.
void check_library(const Artifact &artifact, const mvde_backend &backend);
// Throws Refused where the engine is for other GPUs than this machine's.
void check_device(const Artifact &artifact, const mvde_backend_device &device);
// Throws Refused where nobody has measured the engine on a GPU like this machine's; `device` is NULL on a CPU.
void check_proved(const Artifact &artifact, const mvde_backend_device *device);

// The command that builds an engine like this one.
std::string build_command(const EngineManifest &manifest);

}  // namespace mvde::internal
