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
    std::string name, dtype, layout, colour, role;
    std::optional<double> threshold;
    std::vector<std::int64_t> shape;
};

// How a frame enters the network; see PreprocessRecord in mvde/contract.py.
struct Preprocess {
    std::string fit, interpolation;
    std::int64_t multiple = 1, padding = 0;
    std::optional<double> bicubic_coefficient;
    bool antialias = true, align_corners = false;
    std::string text;  // all of the record, to compare two
};

// What graphs and engines both state.
struct Manifest {
    std::string name, depth_kind, unit;
    Preprocess preprocess;
    std::optional<double> canonical_focal;
    std::string focal_convention;  // "" where there is no canonical camera
    TensorSpec input;
    std::vector<TensorSpec> outputs;
    std::int64_t stats_patch = 0, grid_rows = 0, grid_columns = 0;
    double min_valid = 0.0, max_valid = 0.0;  // in the map's unit
    std::vector<std::string> stats;
    FileRecord file;
    std::vector<FileRecord> companions;
    std::string source_kind, source_sha256;  // of what it was made from

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
    std::string fp32_graph_sha256;  // of the graph that engines of any precision were made from
    EngineParity parity;
};

using AnyManifest = std::variant<GraphManifest, EngineManifest>;

// The common part of either kind of manifest.
const Manifest &common(const AnyManifest &manifest);

// Parses a manifest. Throws Refused (MVDE_ERROR_MANIFEST) naming the missing, unknown or invalid key; `where` is the file's
// name.
AnyManifest parse_manifest(std::string_view text, const std::string &where);

}  // namespace mvde::internal
