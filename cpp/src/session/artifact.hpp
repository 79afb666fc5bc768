// An engine written by `mvde build`, checked as in mvde/artifact.py and mvde/engines/store.py.
#pragma once

#include "session/backend.hpp"
#include "session/manifest.hpp"
#include "session/sealed_file.hpp"

#include <memory>
#include <string>

namespace mvde::internal {

struct Artifact {
    std::string path;    // of the engine's file
    std::string folder;  // that contains it, without a trailing slash
    EngineManifest manifest;
    std::shared_ptr<const SealedFile> content;  // of the engine's file; it is not read again
};

// Loads the engine at `path` (folder, file or manifest) and checks every file against its manifest. On a mismatch while the
// engine is being replaced, reads manifest and files again. Throws Refused.
Artifact load_artifact(const std::string &path);

// Throw Refused if this CPU lacks a required feature, or if the engine's graph has since been exported again.
void check_cpu(const Artifact &artifact);
void check_graph(const Artifact &artifact);

// Throws Refused if the backend's library version cannot run an engine built with the recorded one.
void check_library(const Artifact &artifact, const mvde_backend &backend);
// Throws Refused if the engine does not support this machine's GPU.
void check_device(const Artifact &artifact, const mvde_backend_device &device);
// Throws Refused if parity was not measured on a GPU like this machine's; `device` is NULL on a CPU.
void check_proved(const Artifact &artifact, const mvde_backend_device *device);

// Returns the command that builds an equivalent engine.
std::string build_command(const EngineManifest &manifest);

}  // namespace mvde::internal
