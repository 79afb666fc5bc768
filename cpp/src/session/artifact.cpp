#include "session/artifact.hpp"

#include "session/isa.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <map>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace mvde::internal {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxManifestBytes = 1 << 24;
// How long to retry an engine that is being replaced: a writer without pauses leaves a few milliseconds in which manifest
// and files agree, so tens of attempts may fail.
constexpr std::chrono::seconds kLongest(5);
constexpr std::chrono::milliseconds kPatience(500), kPause(3);

std::string read_text(const fs::path &path) {
    const std::string where = path.string();
    try {
        return read_small(where, kMaxManifestBytes);
    } catch (const std::system_error &error) {
        if (error.code() == std::errc::no_such_file_or_directory)
            throw Refused(MVDE_ERROR_MANIFEST, "there is no manifest " + where +
                                                   "; an artefact is a file and its manifest: copy both, or write them with "
                                                   "`mvde export` or `mvde build`");
        throw Refused(MVDE_ERROR_MANIFEST, "cannot read the manifest " + where + ": " + error.code().message());
    } catch (const std::runtime_error &error) {
        throw Refused(MVDE_ERROR_MANIFEST, "cannot read the manifest " + where + ": " + error.what());
    }
}

AnyManifest read_manifest(const fs::path &path) { return parse_manifest(read_text(path), path.string()); }

// Returns the file's content, checked against the record.
std::shared_ptr<const SealedFile> verified(const fs::path &path, const FileRecord &record, const std::string &command) {
    const auto refuse = [&](const std::string &message) { throw Refused(MVDE_ERROR_HASH, path.string() + message); };
    const auto check_is_there = [&] {
        std::error_code error;
        if (!fs::is_regular_file(path, error) && (!error || error == std::errc::no_such_file_or_directory))
            refuse(", which its manifest describes, is missing; copy it too or run `" + command + "` again");
    };
    check_is_there();
    std::shared_ptr<const SealedFile> content;
    try {
        content = sealed_file(path.string());
    } catch (const Refused &) {
        check_is_there();  // it may just have been replaced by a file of another name
        throw;
    }
    const auto size_bytes = static_cast<std::int64_t>(content->size_bytes());
    if (size_bytes != record.size_bytes)
        refuse(" has " + std::to_string(size_bytes) + " bytes, but its manifest states " +
               std::to_string(record.size_bytes) + " (truncated, or replaced?); copy it again or run `" + command +
               "` again");
    const std::string &actual = content->sha256();
    if (actual != record.sha256)
        refuse(" has SHA-256 " + actual.substr(0, 12) + "…, but its manifest states " + record.sha256.substr(0, 12) +
               "…: it is not the file that was measured; copy it again or run `" + command + "` again");
    return content;
}

// Fingerprint of a folder's state. Hidden files are ignored: they belong to an unfinished writer.
using Stamps = std::map<std::string, std::tuple<ino_t, std::int64_t, std::int64_t, off_t>>;

Stamps stamps_of(const fs::path &folder) {
    Stamps stamps;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        struct stat about;
        if (name[0] != '.' && ::stat(entry->path().c_str(), &about) == 0)
            stamps[name] = {about.st_ino, about.st_mtim.tv_sec, about.st_mtim.tv_nsec, about.st_size};
    }
    return stamps;
}

// Whether the folder's files have changed; gives a writer in progress a moment to make its next change.
bool has_changed(const fs::path &folder, const Stamps &before) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (stamps_of(folder) == before) {
        if (std::chrono::steady_clock::now() >= until) return false;
        std::this_thread::sleep_for(kPause);
    }
    return true;
}

// Whether a version matches the recorded one; Python's packages may omit the build number ("10.3.0").
bool is_version(const std::string &version, const std::string &recorded) {
    return version == recorded || version.rfind(recorded + ".", 0) == 0;
}

// The leading numeric components of a version.
std::vector<int> numbers_of(const std::string &version) {
    std::vector<int> numbers;
    const char *at = version.data(), *const end = at + version.size();
    for (int number = 0; at < end; ++at) {
        const auto read = std::from_chars(at, end, number);
        if (read.ec != std::errc()) break;
        numbers.push_back(number);
        at = read.ptr;
        if (at == end) break;
    }
    return numbers;
}

// A version-compatible TensorRT plan runs in the same major version, from the version that built it onwards.
bool runs_in(const EngineRecord &engine, const std::string &version) {
    const std::vector<int> built = numbers_of(engine.library_version), here = numbers_of(version);
    const bool is_same_major = !built.empty() && !here.empty() && built[0] == here[0];
    return engine.option("version_compatible") == "True" && is_same_major && built <= here;
}

// Whether a plan for the recorded compute capabilities runs on a GPU with compute capability `here`.
bool runs_on(const EngineRecord &engine, const std::string &here) {
    if (engine.option("hardware") == "ampere-plus") return numbers_of(here) >= std::vector<int>{8, 0};
    const std::vector<std::string> &built_for = engine.compute_capabilities;
    return std::find(built_for.begin(), built_for.end(), here) != built_for.end();
}

std::string joined(const std::vector<std::string> &texts) {
    std::string all;
    for (const std::string &text : texts) all += (all.empty() ? "" : ", ") + text;
    return all;
}

// Whether the record describes the file `given`, or the content to be renamed to it: an interrupted replacement of
// engine.blob leaves engine.1a2b3c4d.blob, as written by mvde/publish.py.
bool is_named(const FileRecord &record, const fs::path &given) {
    const std::string name = given.filename().string(), stem = given.stem().string();
    return record.name == name || record.name == stem + "." + record.sha256.substr(0, 8) + name.substr(stem.size());
}

// Loads the engine from the current state of manifest and files.
Artifact load_once(const std::string &path, const fs::path &where) {
    const fs::path given(path);
    const AnyManifest any = read_manifest(where);
    const Manifest &manifest = common(any);
    const auto *engine = std::get_if<EngineManifest>(&any);
    const fs::path file = where.parent_path() / manifest.file.name;
    if (!fs::is_directory(given) && given.extension() != ".json" && !is_named(manifest.file, given))
        throw Refused(MVDE_ERROR_HASH,
                      where.string() + " describes " + manifest.file.name + ", not " + given.filename().string());
    const std::string command = engine ? "mvde build" : "mvde export";
    auto content = verified(file, manifest.file, command);
    for (const FileRecord &record : manifest.companions) verified(where.parent_path() / record.name, record, command);
    if (!engine)
        throw Refused(MVDE_ERROR_ARTIFACT,
                      file.string() + " is an ONNX graph, not an engine; build one: mvde build " + file.string());
    return {file.string(), where.parent_path().string(), *engine, std::move(content)};
}

}  // namespace

Artifact load_artifact(const std::string &path) {
    const fs::path given(path);
    std::error_code error;
    const fs::file_status status = fs::status(given, error);
    if (!fs::exists(status)) {
        if (status.type() == fs::file_type::none)
            throw Refused(MVDE_ERROR_ARTIFACT, "cannot read " + path + ": " + error.message());
        throw Refused(MVDE_ERROR_ARTIFACT, "there is no engine at " + path + "; `mvde build` writes engines to engines/");
    }
    fs::path where = fs::is_directory(status) ? given / "engine.json" : given;
    where.replace_extension(".json");
    const fs::path folder = where.has_parent_path() ? where.parent_path() : fs::path(".");
    const auto until = std::chrono::steady_clock::now() + kLongest;
    while (std::chrono::steady_clock::now() < until) {
        const Stamps before = stamps_of(folder);
        try {
            return load_once(path, where);
        } catch (const Refused &refused) {
            if (refused.status != MVDE_ERROR_HASH || !has_changed(folder, before)) throw;
        }
    }
    return load_once(path, where);
}

void check_cpu(const Artifact &artifact) {
    const EngineRecord &engine = artifact.manifest.engine;
    const std::vector<std::string> has = cpu_features(), used = engine.backend == "openvino" ? onednn_features() : has;
    const auto lacks = [](const std::vector<std::string> &features, const std::string &one) {
        return std::find(features.begin(), features.end(), one) == features.end();
    };
    std::string missing;
    bool is_capped = true;
    for (const std::string &feature : engine.cpu_features) {
        if (!lacks(used, feature)) continue;
        missing += (missing.empty() ? "" : ", ") + feature;
        is_capped = is_capped && !lacks(has, feature);
    }
    if (missing.empty()) return;
    const std::string why = is_capped ? "which " + onednn_cap() + " switches off; unset it, or" : "which this one lacks;";
    throw Refused(MVDE_ERROR_INCOMPATIBLE, artifact.folder + " was built for a CPU with " + missing + ", " + why +
                                               " build it again here: " + build_command(artifact.manifest));
}

void check_library(const Artifact &artifact, const mvde_backend &backend) {
    const EngineRecord &engine = artifact.manifest.engine;
    const std::string version = backend.library_version();
    if (is_version(version, engine.library_version) || runs_in(engine, version)) return;
    // Python words this differently for libraries that need a GPU, so both wordings are kept.
    const std::string built = backend.device ? " cannot run here: it was built with " + std::string(backend.title)
                                             : " was built with " + engine.backend;
    throw Refused(MVDE_ERROR_INCOMPATIBLE, artifact.folder + built + " " + engine.library_version + ", but " + version +
                                               " is installed; build it again here: " + build_command(artifact.manifest));
}

void check_device(const Artifact &artifact, const mvde_backend_device &device) {
    const EngineRecord &engine = artifact.manifest.engine;
    if (!runs_on(engine, device.compute_capability))
        throw Refused(MVDE_ERROR_INCOMPATIBLE, artifact.folder + " cannot run here: it was built for compute capability " +
                                                   joined(engine.compute_capabilities) + ", but " + device.name + " has " +
                                                   device.compute_capability +
                                                   "; build it again here: " + build_command(artifact.manifest));
}

void check_proved(const Artifact &artifact, const mvde_backend_device *device) {
    const EngineParity &parity = artifact.manifest.parity;
    const std::string prove = "; measure it on this machine: mvde prove " + artifact.folder;
    if (!parity.is_measured)
        throw Refused(MVDE_ERROR_INCOMPATIBLE,
                      artifact.folder + " has parity not measured: no device when it was built" + prove);
    if (!parity.measured_on) return;
    const DeviceRecord &was = *parity.measured_on;
    if (device && was.gpu == device->name && was.compute_capability == device->compute_capability) return;
    const std::string now = device ? std::string(device->name) + ", " + device->compute_capability : "no GPU";
    throw Refused(MVDE_ERROR_INCOMPATIBLE, artifact.folder + " was measured on " + was.gpu + ", " + was.compute_capability +
                                               ", but this machine has " + now + prove);
}

void check_graph(const Artifact &artifact) {
    const fs::path root = fs::canonical(artifact.path).parent_path().parent_path().parent_path();
    const fs::path stem = root / "export" / artifact.manifest.stem();
    const fs::path graph_manifest = stem.string() + ".json";
    if (!fs::is_regular_file(graph_manifest)) return;
    if (common(read_manifest(graph_manifest)).file.sha256 != artifact.manifest.engine.onnx_sha256)
        throw Refused(MVDE_ERROR_INCOMPATIBLE,
                      artifact.folder + " was built from another graph than " + stem.string() +
                          ".onnx, which was exported since; build it again: " + build_command(artifact.manifest));
}

std::string build_command(const EngineManifest &manifest) {
    const std::string batch = manifest.batch() == 1 ? "" : " --batch " + std::to_string(manifest.batch());
    return "mvde build --engine " + manifest.engine.id + " --name " + manifest.name + " --res " +
           std::to_string(manifest.height()) + "x" + std::to_string(manifest.width()) + batch;
}

}  // namespace mvde::internal
