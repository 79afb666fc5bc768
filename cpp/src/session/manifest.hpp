// The manifest of a graph or an engine, validated as strictly as in mvde/manifest.py, with the same messages.
#pragma once

#include "session/refused.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mvde::internal {

struct FileRecord {
    std::string name, sha256;
    std::int64_t size_bytes = 0;
};

struct TensorSpec {
    std::string name, dtype, layout, colour, unit;
    std::vector<std::int64_t> shape;
};

// What manifests of graphs and engines have in common.
struct Manifest {
    std::string name, depth_kind;
    TensorSpec input;
    std::vector<TensorSpec> outputs;
    std::int64_t patch_size = 0, grid_rows = 0, grid_columns = 0;
    double min_depth_m = 0.0, max_depth_m = 0.0;
    std::vector<std::string> stats;
    FileRecord file;
    std::vector<FileRecord> companions;

    std::string stem() const;  // NAME-HxW, with -bB for a batch
    std::int64_t batch() const { return input.shape[0]; }
    std::int64_t height() const { return input.shape[1]; }
    std::int64_t width() const { return input.shape[2]; }
};

struct GraphManifest : Manifest {};

struct EngineRecord {
    std::string id, backend, executed_precision, device, library_version, onnx_sha256;
    std::vector<std::string> cpu_features;
    std::vector<std::pair<std::string, std::string>> options;  // values as text
    std::vector<std::string> compute_capabilities;             // of the GPUs that it was built for

    std::string option(std::string_view name) const;  // "" if not set
};

// The GPU on which parity was measured.
struct DeviceRecord {
    std::string gpu, compute_capability;
};

// What a session needs of the parity record: whether it was measured, and on which GPU (none: on the CPU).
struct EngineParity {
    bool is_measured = false;
    std::optional<DeviceRecord> measured_on;
};

struct EngineManifest : Manifest {
    EngineRecord engine;
    EngineParity parity;
};

using AnyManifest = std::variant<GraphManifest, EngineManifest>;

// The common part of either kind of manifest.
const Manifest &common(const AnyManifest &manifest);

// Parses a manifest. Throws Refused (MVDE_ERROR_MANIFEST) naming the missing, unknown or invalid key; `where` is the file's
// name.
AnyManifest parse_manifest(std::string_view text, const std::string &where);

}  // namespace mvde::internal
