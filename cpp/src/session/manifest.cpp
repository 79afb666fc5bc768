#include "session/manifest.hpp"

#include <algorithm>
#include <string_view>

namespace mvde::internal {
namespace {

constexpr std::int64_t kSchemaVersion = 1;

// What a key's value must be: the annotations of the dataclasses in mvde/manifest.py.
struct Record;
struct Type {
    enum class Is { text, integer, real, flag, any_object, texts_by_name, record, list, pair, nothing_or_record } is;
    const Record *record = nullptr;
    const Type *item = nullptr;
};
struct Field {
    const char *name;
    Type type;
    bool is_required = true;
};
struct Record {
    std::vector<Field> fields;
};

const Type kText{Type::Is::text}, kInteger{Type::Is::integer}, kReal{Type::Is::real}, kFlag{Type::Is::flag};
const Type kAnyObject{Type::Is::any_object}, kTextsByName{Type::Is::texts_by_name};
const Type kTexts{Type::Is::list, nullptr, &kText}, kIntegers{Type::Is::list, nullptr, &kInteger};
const Type kReals{Type::Is::list, nullptr, &kReal};

const Record kInput{{{"name", kText}, {"shape", kIntegers}, {"dtype", kText}, {"layout", kText}, {"colour", kText}}};
const Record kOutput{{{"name", kText}, {"shape", kIntegers}, {"dtype", kText}, {"unit", kText}}};
const Record kNormalization{{{"mean", kReals}, {"std", kReals}, {"folded", kFlag}}};
const Record kFile{{{"name", kText}, {"sha256", kText}, {"size_bytes", kInteger}}};
const Record kSource{{{"checkpoint_sha256", kText}, {"config", kAnyObject}}};
const Record kEngine{{{"id", kText},
                      {"backend", kText},
                      {"precision", kText},
                      {"executed_precision", kText},
                      {"device", kText},
                      {"library_version", kText},
                      {"cpu_features", kTexts},
                      {"options", kAnyObject},
                      {"onnx_sha256", kText},
                      {"facts", kAnyObject, false}}};
const Record kKept{{{"group", kText}, {"dtype", kText}, {"num_nodes", kInteger}, {"reason", kText}}};
const Record kCalibration{
    {{"num_images", kInteger}, {"sha256", kText}, {"method", kText}, {"balanced", kTextsByName, false}}};
const Type kOneKept{Type::Is::record, &kKept};
const Record kPrecision{{{"precision", kText},
                         {"onnx_sha256", kText},
                         {"num_by_dtype", kAnyObject},
                         {"num_attention", kInteger},
                         {"num_layer_norm", kInteger},
                         {"kept", {Type::Is::list, nullptr, &kOneKept}, false},
                         {"calibration", {Type::Is::nothing_or_record, &kCalibration}, false},
                         {"gate", kAnyObject, false}}};
const Type kOneInput{Type::Is::record, &kInput}, kOneOutput{Type::Is::record, &kOutput}, kOneFile{Type::Is::record, &kFile};
const Record kManifest{{
    {"kind", kText},
    {"name", kText},
    {"created", kText},
    {"inputs", {Type::Is::list, nullptr, &kOneInput}},
    {"outputs", {Type::Is::list, nullptr, &kOneOutput}},
    {"normalization", {Type::Is::record, &kNormalization}},
    {"patch_size", kInteger},
    {"grid", {Type::Is::pair, nullptr, &kInteger}},
    {"depth_range_m", {Type::Is::pair, nullptr, &kReal}},
    {"depth_kind", kText},
    {"stats", kTexts},
    {"opset", kInteger},
    {"source", {Type::Is::record, &kSource}},
    {"file", kOneFile},
    {"tools", kTextsByName},
    {"parity", kAnyObject},
    {"companions", {Type::Is::list, nullptr, &kOneFile}, false},
    {"engine", {Type::Is::nothing_or_record, &kEngine}, false},
    {"precision", {Type::Is::nothing_or_record, &kPrecision}, false},
    {"num_flops", kInteger, false},
    {"schema_version", kInteger, false},
}};

[[noreturn]] void refuse(const std::string &message) { throw Refused(MVDE_ERROR_MANIFEST, message); }

void check(const Json &value, const Type &type, const std::string &where, const std::string &key);

void check_record(const Json &value, const Record &record, const std::string &where, const std::string &prefix) {
    if (value.kind != Json::Kind::object) {
        const std::string what = prefix.empty() ? "the manifest" : prefix;
        refuse(where + ": " + what + " must be an object, but got " + type_name(value));
    }
    for (const std::string &key : value.keys) {
        std::string known;
        bool is_known = false;
        for (const Field &field : record.fields) {
            known += (known.empty() ? "" : ", ") + std::string(field.name);
            is_known = is_known || key == field.name;
        }
        if (!is_known) refuse(where + ": unknown key " + prefix + key + "; known keys: " + known);
    }
    for (const Field &field : record.fields) {
        const Json *item = value.find(field.name);
        if (item) check(*item, field.type, where, prefix + field.name);
        else if (field.is_required)
            refuse(where + ": the key " + prefix + field.name + " is missing; export or build the artefact again");
    }
}

void check_list(const Json &value, const Type &type, const std::string &where, const std::string &key) {
    const bool is_pair = type.is == Type::Is::pair;
    if (value.kind != Json::Kind::list || (is_pair && value.items.size() != 2))
        refuse(where + ": " + key + " must be " + (is_pair ? "a list of 2" : "a list") + ", but got " + repr(value));
    for (std::size_t i = 0; i < value.items.size(); ++i)
        check(value.items[i], *type.item, where, key + "[" + std::to_string(i) + "]");
}

void check(const Json &value, const Type &type, const std::string &where, const std::string &key) {
    const auto expect = [&](bool holds, const char *name) {
        if (!holds) refuse(where + ": " + key + " must be " + name + ", but got " + type_name(value) + " " + repr(value));
    };
    switch (type.is) {
        case Type::Is::text: return expect(value.kind == Json::Kind::text, "str");
        case Type::Is::integer: return expect(value.kind == Json::Kind::integer, "int");
        case Type::Is::real: return expect(value.kind == Json::Kind::real || value.kind == Json::Kind::integer, "float");
        case Type::Is::flag: return expect(value.kind == Json::Kind::boolean, "bool");
        case Type::Is::any_object: return expect(value.kind == Json::Kind::object, "dict");
        case Type::Is::texts_by_name:
            expect(value.kind == Json::Kind::object, "dict");
            for (std::size_t i = 0; i < value.items.size(); ++i)
                check(value.items[i], kText, where, key + "." + value.keys[i]);
            return;
        case Type::Is::nothing_or_record:
            if (value.kind == Json::Kind::null) return;
            return check_record(value, *type.record, where, key + ".");
        case Type::Is::record: return check_record(value, *type.record, where, key + ".");
        default: return check_list(value, type, where, key);
    }
}

// ---- values out of JSON whose types have been checked

const std::string &text_of(const Json &value, const char *key) { return value.find(key)->text; }

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
    if (const Json *unit = value.find("unit")) spec.unit = unit->text;
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
    const Json *facts = value.find("facts");
    const Json *capabilities = facts ? facts->find("compute_capabilities") : nullptr;
    if (capabilities) engine.compute_capabilities = texts_of(*capabilities);
    return engine;
}

// The record is any object: what is not there, or is something else than text, counts as nothing.
ParityRecord parity_of(const Json &value) {
    const auto text = [](const Json *object, const char *key) {
        const Json *item = object ? object->find(key) : nullptr;
        return item ? item->text : std::string();
    };
    const Json *is_measured = value.find("measured"), *measured_on = value.find("measured_on");
    const bool is_unmeasured = is_measured && is_measured->kind == Json::Kind::boolean && !is_measured->flag;
    return {is_unmeasured, text(&value, "state"), text(measured_on, "gpu"), text(measured_on, "compute_capability")};
}

// ---- whether the values fit together

std::string tuple(const std::vector<std::int64_t> &sizes) {
    std::string out = "(";
    for (std::size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
    return out + (sizes.size() == 1 ? ",)" : ")");
}

void expect(bool holds, const std::string &where, const char *key, const std::string &got, const std::string &expected) {
    if (!holds) refuse(where + ": " + key + " is " + got + ", but expected " + expected);
}

void check_file(const FileRecord &record, const std::string &where) {
    const bool is_bare = !record.name.empty() && record.name != "." && record.name != ".." &&
                         record.name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    const bool is_hash = record.sha256.size() == 64 &&
                         record.sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
    expect(is_bare, where, "file.name", repr(record.name), "a bare file name");
    expect(is_hash, where, "file.sha256", repr(record.sha256), "64 hexadecimal digits");
    expect(record.size_bytes >= 0, where, "file.size_bytes", std::to_string(record.size_bytes), "a size in bytes");
}

void check_sizes(const Json &plain, const std::string &where) {
    std::string shapes = "[";
    bool is_positive = true;
    for (const char *key : {"inputs", "outputs"})
        for (const Json &item : plain.find(key)->items) {
            const std::vector<std::int64_t> shape = tensor_of(item).shape;
            shapes += (shapes.size() > 1 ? ", " : "") + tuple(shape);
            is_positive = is_positive && std::all_of(shape.begin(), shape.end(), [](std::int64_t side) { return side > 0; });
        }
    const std::size_t num_inputs = plain.find("inputs")->items.size();
    expect(num_inputs == 1, where, "inputs", std::to_string(num_inputs), "one image input");
    expect(!plain.find("outputs")->items.empty(), where, "outputs", "0", "at least one output");
    expect(is_positive, where, "shape", shapes + "]", "positive sizes");
}

void check_manifest(const Manifest &manifest, const Json &plain, const std::string &where) {
    const auto one_of = [&](const char *key, const std::string &got, const char *first, const char *second) {
        expect(got == first || got == second, where, key, repr(got), std::string("one of ") + first + ", " + second);
    };
    one_of("kind", manifest.kind, "onnx", "engine");
    one_of("depth_kind", manifest.depth_kind, "metric", "relative");
    const Json *engine = plain.find("engine");
    const bool is_engine = engine && engine->kind != Json::Kind::null;
    expect(is_engine == (manifest.kind == "engine"), where, "engine", is_engine ? "True" : "False",
           "a record for engines, and only there");
    check_sizes(plain, where);
    const std::vector<std::int64_t> shape = tensor_of(plain.find("inputs")->items[0]).shape;
    expect(shape.size() == 4 && shape[3] == 3, where, "inputs[0].shape", tuple(shape), "[B, H, W, 3]");
    const std::int64_t patch = manifest.patch_size;
    expect(patch > 0, where, "patch_size", std::to_string(patch), "a positive size in pixels");
    const double rows = static_cast<double>(shape[1]) / static_cast<double>(patch);
    const double columns = static_cast<double>(shape[2]) / static_cast<double>(patch);
    const bool fits = shape[1] % patch == 0 && shape[2] % patch == 0 && shape[1] / patch == manifest.grid_rows &&
                      shape[2] / patch == manifest.grid_columns;
    expect(fits, where, "grid", tuple({manifest.grid_rows, manifest.grid_columns}),
           "(" + repr(rows) + ", " + repr(columns) + "), the input's size divided by patch_size");
    expect(0.0 <= manifest.min_depth_m && manifest.min_depth_m < manifest.max_depth_m, where, "depth_range_m",
           "(" + repr(manifest.min_depth_m) + ", " + repr(manifest.max_depth_m) + ")", "0 <= min < max");
    check_file(manifest.file, where);
    for (const FileRecord &record : manifest.companions) check_file(record, where);
}

Manifest manifest_of(const Json &plain) {
    Manifest manifest;
    manifest.kind = text_of(plain, "kind");
    manifest.name = text_of(plain, "name");
    manifest.depth_kind = text_of(plain, "depth_kind");
    const Json &inputs = *plain.find("inputs");
    if (!inputs.items.empty()) manifest.input = tensor_of(inputs.items[0]);
    for (const Json &item : plain.find("outputs")->items) manifest.outputs.push_back(tensor_of(item));
    manifest.patch_size = plain.find("patch_size")->integer;
    const Json &grid = *plain.find("grid"), &range = *plain.find("depth_range_m");
    manifest.grid_rows = grid.items[0].integer;
    manifest.grid_columns = grid.items[1].integer;
    manifest.min_depth_m = range.items[0].number();
    manifest.max_depth_m = range.items[1].number();
    manifest.stats = texts_of(*plain.find("stats"));
    manifest.file = file_of(*plain.find("file"));
    if (const Json *companions = plain.find("companions"))
        for (const Json &item : companions->items) manifest.companions.push_back(file_of(item));
    manifest.parity = parity_of(*plain.find("parity"));
    const Json *engine = plain.find("engine");
    if (engine && engine->kind == Json::Kind::object) manifest.engine = engine_of(*engine);
    return manifest;
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

Manifest parse_manifest(std::string_view text, const std::string &where) {
    const Json plain = parsed(text, where);
    const Json *version = plain.find("schema_version");
    if (!version) refuse(where + " is not a manifest of mvde: it has no schema_version");
    if (version->kind != Json::Kind::integer || version->integer != kSchemaVersion)
        refuse(where + " has schema_version " + repr(*version) + ", but this mvde reads " + std::to_string(kSchemaVersion) +
               "; upgrade mvde, or export or build the artefact again");
    check_record(plain, kManifest, where, "");
    Manifest manifest = manifest_of(plain);
    check_manifest(manifest, plain, where);
    return manifest;
}

}  // namespace mvde::internal
