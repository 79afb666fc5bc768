// An engine folder for tests: a manifest and a matching file, until the test changes either.
#pragma once

#include "session/digest.hpp"
#include "session/sha256.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace engine_folder {

inline std::string hash(const std::string &text) {
    mvde::internal::Sha256 digest;
    digest.update(text.data(), text.size());
    return digest.hexadecimal();
}

// Returns `text` with its only occurrence of `from` replaced by `to`.
inline std::string with(std::string text, const std::string &from, const std::string &to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos || text.find(from, at + 1) != std::string::npos) std::abort();
    return text.replace(at, from.size(), to);
}

// Returns the text with its digest corrected, if it ends in one.
inline std::string stamped(std::string text) {
    const std::size_t at = mvde::internal::digest_at(text);
    return at == std::string::npos ? text : text.replace(at, 64, mvde::internal::digest_of(text, at));
}

constexpr const char *kDigestKey = R"(, "digest": "0000000000000000000000000000000000000000000000000000000000000000"})";

// Parity records of an engine that was measured and of one that was not.
constexpr const char *kMeasured =
    R"("measured": {"max_rel": 0.1, "mean_rel": 0.0001, "p99_rel": 0.001, "max_abs_m": 0.2, "num_images": 1})";
constexpr const char *kUnmeasured = R"("measured": null)";

// Parity record of a graph.
constexpr const char *kGraphParity =
    R"({"reference": "a model", "candidate": "a graph", "tolerance_max_rel": 0.0001, "photos": ["one"], "measured": )"
    R"({"max_rel": 1e-5, "mean_rel": 1e-6, "p99_rel": 1e-6, "max_abs_m": 1e-5, "num_images": 1, "stats": {"var": 0}}})";

// The first keys of a manifest of either kind.
inline std::string common_keys(const std::string &kind, const std::string &file, const std::string &content) {
    return R"({
  "schema_version": 2, "kind": ")" +
           kind + R"(", "name": "tiny", "created": "2026-01-01T00:00:00+00:00",
  "inputs": [{"name": "image", "shape": [1, 32, 48, 3], "dtype": "uint8", "layout": "BHWC", "colour": "RGB"}],
  "outputs": [{"name": "depth", "shape": [1, 32, 48], "dtype": "float32", "role": "depth"}],
  "depth_kind": "metric", "unit": "m", "valid_range": [0.5, 4],
  "preprocess": {"fit": "stretch", "multiple": 1, "interpolation": "bilinear", "antialias": true, "padding": 128,
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "pixel_range": 1, "colour": "RGB"},
  "stats_patch": 16, "grid": [2, 3],
  "stats": ["mean", "var", "grad"], "opset": 20, "source": {"kind": "mvde", "name": "shipped", "sha256": "", "config": {"a": [1, null]}},
  "file": {"name": ")" +
           file + R"(", "sha256": ")" + hash(content) + R"(", "size_bytes": )" + std::to_string(content.size()) +
           R"(}, "tools": {"mvde": "0.1.0"})";
}

inline std::string graph_manifest(const std::string &content) {
    return stamped(common_keys("onnx", "tiny-32x48.onnx", content) + R"(, "parity": )" + kGraphParity + kDigestKey + "\n");
}

inline std::string manifest(const std::string &content) {
    return stamped(common_keys("engine", "engine.blob", content) + R"(, "parity": {"reference": "the fp32 graph",
    "tolerance": {"mean_rel": 0.001, "p99_rel": 0.01, "patch_mean": 0.001}, "export": )" +
                   kGraphParity + ", " + kMeasured + R"(},
  "engine": {"id": "openvino:fp32", "backend": "openvino", "precision": "fp32", "executed_precision": "fp32",
    "device": "a CPU", "library_version": "1.2.3", "cpu_features": [], "options": {"INFERENCE_NUM_THREADS": 1},
    "onnx_sha256": ""})" +
                   kDigestKey);
}

// The outputs of a manifest.
constexpr const char *kDepthOutput = R"([{"name": "depth", "shape": [1, 32, 48], "dtype": "float32", "role": "depth"}])";

// A folder ROOT/engines/tiny among the temporary files, removed by the destructor.
class Folder {
public:
    Folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "mvde-test-XXXXXX").string();
        if (!mkdtemp(pattern.data())) std::abort();
        root = pattern;
        path = root / "engines/tiny";
        std::filesystem::create_directories(path);
        write("engine.blob", content);
        write("engine.json", manifest(content));
    }
    ~Folder() { std::filesystem::remove_all(root); }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;

    // Writes a file; a manifest gets its correct digest.
    void write(const std::string &name, const std::string &text) const {
        std::ofstream(path / name, std::ios::binary)
            << (std::filesystem::path(name).extension() == ".json" ? stamped(text) : text);
    }
    void spoil(const std::string &from, const std::string &to) const {
        write("engine.json", with(manifest(content), from, to));
    }

    const std::string content = "the compiled model";
    std::filesystem::path root, path;
};

}  // namespace engine_folder
