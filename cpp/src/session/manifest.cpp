#include "session/manifest.hpp"

#include "session/digest.hpp"
#include "session/records.hpp"

namespace mvde::internal {
namespace {

constexpr std::int64_t kSchemaVersion = 2;

// ---- access to JSON values whose types have been checked

const std::string &text_of(const Json &value, const char *key) { return value.find(key)->text; }

// An optional record; nullptr if the key is missing or null.
const Json *record_in(const Json &value, const char *key) {
    const Json *record = value.find(key);
    return record && record->kind == Json::Kind::object ? record : nullptr;
}

// An optional number.
std::optional<double> real_in(const Json &value, const char *key) {
    const Json *number = value.find(key);
    if (!number || number->kind == Json::Kind::null) return std::nullopt;
    return number->number();
}

std::vector<std::string> texts_of(const Json &value) {
    std::vector<std::string> texts;
    for (const Json &item : value.items) texts.push_back(item.text);
    return texts;
}

FileRecord file_of(const Json &value) {
    return {text_of(value, "name"), text_of(value, "sha256"), value.find("size_bytes")->integer};
}

TensorSpec tensor_of(const Json &value) {
    TensorSpec spec;
    spec.name = text_of(value, "name");
    spec.dtype = text_of(value, "dtype");
    if (const Json *layout = value.find("layout")) spec.layout = layout->text;
    if (const Json *colour = value.find("colour")) spec.colour = colour->text;
    if (const Json *role = value.find("role")) spec.role = role->text;
    spec.threshold = real_in(value, "threshold");
    for (const Json &side : value.find("shape")->items) spec.shape.push_back(side.integer);
    return spec;
}

EngineRecord engine_of(const Json &value) {
    EngineRecord engine;
    engine.id = text_of(value, "id");
    engine.backend = text_of(value, "backend");
    engine.executed_precision = text_of(value, "executed_precision");
    engine.device = text_of(value, "device");
    engine.library_version = text_of(value, "library_version");
    engine.onnx_sha256 = text_of(value, "onnx_sha256");
    engine.cpu_features = texts_of(*value.find("cpu_features"));
    const Json &options = *value.find("options");
    for (std::size_t i = 0; i < options.items.size(); ++i) {
        const Json &item = options.items[i];
        engine.options.emplace_back(options.keys[i], item.kind == Json::Kind::text ? item.text : repr(item));
    }
    if (const Json *cuda = record_in(value, "cuda"))
        engine.compute_capabilities = texts_of(*cuda->find("compute_capabilities"));
    return engine;
}

EngineParity parity_of(const Json &value) {
    EngineParity parity;
    parity.is_measured = record_in(value, "measured") != nullptr;
    if (const Json *device = record_in(value, "measured_on"))
        parity.measured_on = DeviceRecord{text_of(*device, "gpu"), text_of(*device, "compute_capability")};
    return parity;
}

Preprocess preprocess_of(const Json &value) {
    Preprocess preprocess;
    preprocess.fit = text_of(value, "fit");
    preprocess.multiple = value.find("multiple")->integer;
    preprocess.interpolation = text_of(value, "interpolation");
    preprocess.bicubic_coefficient = real_in(value, "bicubic_coefficient");
    preprocess.antialias = value.find("antialias")->flag;
    if (const Json *aligned = value.find("align_corners")) preprocess.align_corners = aligned->flag;
    preprocess.padding = value.find("padding")->integer;
    preprocess.text = repr(value);
    return preprocess;
}

void read_common(const Json &plain, Manifest &manifest) {
    manifest.name = text_of(plain, "name");
    manifest.depth_kind = text_of(plain, "depth_kind");
    manifest.unit = text_of(plain, "unit");
    manifest.preprocess = preprocess_of(*plain.find("preprocess"));
    manifest.canonical_focal = real_in(plain, "canonical_focal");
    if (manifest.canonical_focal) manifest.focal_convention = text_of(plain, "focal_convention");
    manifest.input = tensor_of(plain.find("inputs")->items[0]);
    for (const Json &item : plain.find("outputs")->items) manifest.outputs.push_back(tensor_of(item));
    manifest.stats_patch = plain.find("stats_patch")->integer;
    const Json &grid = *plain.find("grid"), &range = *plain.find("valid_range");
    manifest.grid_rows = grid.items[0].integer;
    manifest.grid_columns = grid.items[1].integer;
    manifest.min_valid = range.items[0].number();
    manifest.max_valid = range.items[1].number();
    manifest.stats = texts_of(*plain.find("stats"));
    manifest.file = file_of(*plain.find("file"));
    manifest.source_kind = text_of(*plain.find("source"), "kind");
    manifest.source_sha256 = text_of(*plain.find("source"), "sha256");
    if (const Json *companions = plain.find("companions"))
        for (const Json &item : companions->items) manifest.companions.push_back(file_of(item));
}

Json parsed(std::string_view text, const std::string &where) {
    try {
        return parse_json(text);
    } catch (const JsonError &error) {
        refuse(where + " is not valid JSON: " + error.what() + "; export or build the artefact again");
    } catch (const JsonDepthError &) {
        refuse(where + " is nested too deeply to be a manifest");
    }
}

void check_digest(const std::optional<Json> &stated, std::string_view text, const std::string &where) {
    const std::string rewrite = "run `mvde info --rewrite-digest " + where + "`";
    if (!stated)
        refuse(where + ": the key digest is missing; export or build the artefact again, or after an edit by hand " +
               rewrite);
    const std::size_t at = digest_at(text);
    if (at == std::string_view::npos || stated->text != digest_of(text, at))
        refuse(where +
               ": its digest does not fit its content: it was damaged, or edited by hand; copy it again, or after an "
               "edit " +
               rewrite);
}

}  // namespace

std::string Manifest::stem() const {
    const std::string size = name + "-" + std::to_string(height()) + "x" + std::to_string(width());
    return batch() == 1 ? size : size + "-b" + std::to_string(batch());
}

std::string EngineRecord::option(std::string_view name) const {
    for (const auto &[key, value] : options)
        if (key == name) return value;
    return "";
}

const Manifest &common(const AnyManifest &manifest) {
    return std::visit([](const Manifest &either) -> const Manifest & { return either; }, manifest);
}

AnyManifest parse_manifest(std::string_view text, const std::string &where) {
    Json plain = parsed(text, where);
    const std::optional<Json> version = taken(plain, "schema_version");
    if (!version) refuse(where + " is not a manifest of mvde: it has no schema_version");
    if (version->kind != Json::Kind::integer || version->integer != kSchemaVersion)
        refuse(where + " has schema_version " + repr(*version) + ", but this mvde reads " + std::to_string(kSchemaVersion) +
               "; upgrade mvde, or export or build the artefact again");
    check_digest(taken(plain, "digest"), text, where);
    const std::optional<Json> kind = taken(plain, "kind");
    if (!kind) refuse(where + ": the key kind is missing; export or build the artefact again");
    if (kind->text == "onnx") {
        check_record(plain, kGraphManifest, where);
        GraphManifest graph;
        read_common(plain, graph);
        return graph;
    }
    expect(kind->text == "engine", where, "kind", repr(*kind), "one of onnx, engine");
    check_record(plain, kEngineManifest, where);
    EngineManifest engine;
    read_common(plain, engine);
    engine.engine = engine_of(*plain.find("engine"));
    const Json *lowering = record_in(plain, "lowering");
    engine.fp32_graph_sha256 = lowering ? text_of(*lowering, "onnx_sha256") : engine.engine.onnx_sha256;
    engine.parity = parity_of(*plain.find("parity"));
    return engine;
}

}  // namespace mvde::internal
