// The manifest beside an engine, read as strictly as mvde/manifest.py reads it and refused with the same words.
#pragma once

#include "session/json.hpp"
#include "mvde/mvde.h"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mvde::internal {

// A reason not to use an artefact; becomes a status and a message at the C boundary.
struct Refused : std::runtime_error {
    Refused(mvde_status which, const std::string &message) : std::runtime_error(message), status(which) {}
    mvde_status status;
};

struct FileRecord {
    std::string name, sha256;
    std::int64_t size_bytes = 0;
};

struct TensorSpec {
    std::string name, dtype, layout, colour, unit;
    std::vector<std::int64_t> shape;
};

struct EngineRecord {
    std::string id, backend, executed_precision, device, library_version, onnx_sha256;
    std::vector<std::string> cpu_features;
    std::vector<std::pair<std::string, std::string>> options;  // values as text
    std::vector<std::string> compute_capabilities;             // of the GPUs that it was built for

    std::string option(std::string_view name) const;  // "" where there is none
};

// What a session needs to know of an engine's parity: whether it was measured, and on which GPU ("": not on one).
struct ParityRecord {
    bool is_unmeasured = false;
    std::string state, gpu, compute_capability;
};

struct Manifest {
    std::string kind, name, depth_kind;
    TensorSpec input;
    std::vector<TensorSpec> outputs;
    std::int64_t patch_size = 0, grid_rows = 0, grid_columns = 0;
    double min_depth_m = 0.0, max_depth_m = 0.0;
    std::vector<std::string> stats;
    FileRecord file;
    std::vector<FileRecord> companions;
    EngineRecord engine;  // empty for a graph
    ParityRecord parity;

    std::string stem() const;  // NAME-HxW, with -bB for a batch
    std::int64_t batch() const { return input.shape[0]; }
    std::int64_t height() const { return input.shape[1]; }
    std::int64_t width() const { return input.shape[2]; }
};

// Throws Refused (MVDE_ERROR_MANIFEST) naming the key that is missing, unknown or wrong; `where` names the file.
Manifest parse_manifest(std::string_view text, const std::string &where);

}  // namespace mvde::internal
