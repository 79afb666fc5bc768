#include "session/records.hpp"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace mvde::internal {
namespace {

constexpr std::int64_t kMaxSide = 1 << 16, kMaxPixels = 1 << 30;  // so that no product of sizes overflows anywhere
constexpr double kMaxDepth = 1e9, kMaxCanonicalFocal = 1e6;

// ---- consistency checks of a record's values: __post_init__ in Python

std::vector<std::int64_t> shape_of(const Json &tensor) {
    std::vector<std::int64_t> shape;
    for (const Json &side : tensor.find("shape")->items) shape.push_back(side.integer);
    return shape;
}

std::string tuple(const std::vector<std::int64_t> &sizes) {
    std::string out = "(";
    for (std::size_t i = 0; i < sizes.size(); ++i) out += (i ? ", " : "") + std::to_string(sizes[i]);
    return out + (sizes.size() == 1 ? ",)" : ")");
}

// Whether a text is safe as part of a path, a command line and another program's configuration.
bool is_name(const std::string &text, std::size_t max_length) {
    constexpr const char *kLettersAndDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
    return !text.empty() && text.size() <= max_length && std::string_view(".-_").find(text[0]) == std::string_view::npos &&
           text.find_first_not_of(kLettersAndDigits) == std::string::npos;
}

void check_name(const std::string &name, const std::string &where, const std::string &key) {
    expect(is_name(name, 128), where, key.c_str(), repr(name), "letters, digits, '.', '-' and '_', at most 128");
}

void check_file(const Json &value, const std::string &where) {
    const std::string &name = value.find("name")->text, &sha256 = value.find("sha256")->text;
    const std::int64_t size_bytes = value.find("size_bytes")->integer;
    const bool is_hash = sha256.size() == 64 && sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
    expect(is_name(name, 255), where, "file.name", repr(name), "a bare file name");
    expect(is_hash, where, "file.sha256", repr(sha256), "64 hexadecimal digits");
    expect(size_bytes >= 0, where, "file.size_bytes", std::to_string(size_bytes), "a size in bytes");
}

void check_shapes(const Json &manifest, const std::string &where) {
    std::string shapes = "[";
    bool is_positive = true;
    for (const char *key : {"inputs", "outputs"})
        for (const Json &item : manifest.find(key)->items) {
            const std::vector<std::int64_t> shape = shape_of(item);
            shapes += (shapes.size() > 1 ? ", " : "") + tuple(shape);
            is_positive = is_positive && std::all_of(shape.begin(), shape.end(), [](std::int64_t side) { return side > 0; });
        }
    const std::size_t num_inputs = manifest.find("inputs")->items.size();
    expect(num_inputs == 1, where, "inputs", std::to_string(num_inputs), "one image input");
    expect(!manifest.find("outputs")->items.empty(), where, "outputs", "0", "at least one output");
    expect(is_positive, where, "shape", shapes + "]", "positive sizes");
    const std::vector<std::int64_t> shape = shape_of(manifest.find("inputs")->items[0]);
    expect(shape.size() == 4 && shape[3] == 3, where, "inputs[0].shape", tuple(shape), "[B, H, W, 3]");
    const bool has_sides = std::all_of(shape.begin(), shape.end(), [](std::int64_t side) { return side <= kMaxSide; });
    expect(has_sides && shape[0] * shape[1] * shape[2] <= kMaxPixels, where, "inputs[0].shape", tuple(shape),
           "sides up to 65536 and at most 1073741824 pixels in a call");
}

// The value of an optional key; nullptr where it is missing or null.
const Json *value_of(const Json &record, const char *key) {
    const Json *value = record.find(key);
    return value && value->kind != Json::Kind::null ? value : nullptr;
}

std::string repr_of(const Json *value) { return value ? repr(*value) : "None"; }

std::string tuple_of(const Json &reals) {
    std::string out = "(";
    for (const Json &item : reals.items) out += (out.size() > 1 ? ", " : "") + repr(item.number());
    return out + ")";
}

void check_preprocess(const Json &value, const std::string &where) {
    const std::string &fit = value.find("fit")->text, &colour = value.find("colour")->text;
    const std::int64_t multiple = value.find("multiple")->integer, padding = value.find("padding")->integer;
    const Json &deviation = *value.find("std");
    const double pixel_range = value.find("pixel_range")->number();
    const bool is_bicubic = value.find("interpolation")->text == "bicubic";
    const Json *coefficient = value_of(value, "bicubic_coefficient"), *aligned = value.find("align_corners");
    expect(fit == "stretch" || fit == "letterbox", where, "preprocess.fit", repr(fit), "one of stretch, letterbox");
    expect(1 <= multiple && multiple <= kMaxSide, where, "preprocess.multiple", std::to_string(multiple),
           "1 to 65536 pixels");
    expect(0 <= padding && padding <= 255, where, "preprocess.padding", std::to_string(padding), "0 to 255");
    expect(std::all_of(deviation.items.begin(), deviation.items.end(), [](const Json &item) { return item.number() > 0; }),
           where, "preprocess.std", tuple_of(deviation), "positive numbers");
    expect(pixel_range > 0, where, "preprocess.pixel_range", repr(pixel_range), "a positive number");
    expect(colour == "RGB" || colour == "BGR", where, "preprocess.colour", repr(colour), "one of RGB, BGR");
    const bool is_known = is_bicubic ? coefficient && (coefficient->number() == -0.5 || coefficient->number() == -0.75)
                                     : !coefficient;
    expect(is_known, where, "preprocess.bicubic_coefficient", coefficient ? repr(coefficient->number()) : "None",
           is_bicubic ? "-0.5 or -0.75" : "None of bilinear");
    expect(!(aligned && aligned->flag && value.find("antialias")->flag), where, "preprocess.align_corners", "True",
           "False where antialias is True");
}

void check_source(const Json &value, const std::string &where) {
    const std::string &kind = value.find("kind")->text, &name = value.find("name")->text;
    expect(kind == "mvde" || kind == "transformers" || kind == "onnx", where, "source.kind", repr(kind),
           "one of mvde, transformers, onnx");
    const bool is_local = name.empty() || std::string_view("/.~").find(name[0]) != std::string_view::npos ||
                          name.find('\\') != std::string::npos || std::count(name.begin(), name.end(), '/') > 1;
    expect(!is_local, where, "source.name", repr(name), "a hub name or a bare name, not a path");
}

// The unit of each kind of depth, and whether it has a canonical camera.
struct Kind {
    const char *name, *unit;
    bool has_canonical_camera;
};
constexpr Kind kKinds[] = {{"metric", "m", false},
                           {"metric_focal", "m", true},
                           {"inverse_canonical", "1/u", true},
                           {"scale_invariant", "1", false},
                           {"inverse_relative", "1/u", false}};

void check_depth(const Json &manifest, const std::string &where) {
    const std::string &name = manifest.find("depth_kind")->text, &unit = manifest.find("unit")->text;
    const Kind &kind = *std::find_if(std::begin(kKinds), std::end(kKinds),
                                     [&](const Kind &one) { return name == one.name; });
    expect(unit == kind.unit, where, "unit", repr(unit), kind.unit + (" of " + name));
    const Json *focal = value_of(manifest, "canonical_focal"), *convention = value_of(manifest, "focal_convention");
    const std::string focal_text = focal ? repr(focal->number()) : "None";
    if (kind.has_canonical_camera) {
        expect(focal && 0 < focal->number() && focal->number() <= kMaxCanonicalFocal, where, "canonical_focal", focal_text,
               "a positive number, which " + name + " needs");
        expect(convention, where, "focal_convention", "None", "one of geometric, horizontal, pixels");
        return;
    }
    const std::string expected = "none, since " + name + " has no canonical camera";
    expect(!focal, where, "canonical_focal", focal_text, expected);
    expect(!convention, where, "focal_convention", repr_of(convention), expected);
}

void expect_text(const Json &record, const std::string &prefix, const char *key, const char *expected,
                 const std::string &where) {
    const std::string &text = record.find(key)->text;
    expect(text == expected, where, (prefix + key).c_str(), repr(text), expected);
}

void check_tensors(const Json &manifest, const std::string &where) {
    const Json &input = manifest.find("inputs")->items[0];
    check_name(input.find("name")->text, where, "inputs[0].name");
    expect_text(input, "inputs[0].", "dtype", "uint8", where);
    expect_text(input, "inputs[0].", "layout", "BHWC", where);
    expect_text(input, "inputs[0].", "colour", "RGB", where);
    const std::vector<std::int64_t> shape = shape_of(input), wanted(shape.begin(), shape.begin() + 3);
    const auto &outputs = manifest.find("outputs")->items;
    std::set<std::string> roles;
    std::string all_roles;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        const std::string prefix = "outputs[" + std::to_string(i) + "].";
        check_name(outputs[i].find("name")->text, where, prefix + "name");
        expect_text(outputs[i], prefix, "dtype", "float32", where);
        expect(shape_of(outputs[i]) == wanted, where, (prefix + "shape").c_str(), tuple(shape_of(outputs[i])),
               tuple(wanted) + ", batch, height and width of the input");
        const std::string &role = outputs[i].find("role")->text;
        const Json *threshold = value_of(outputs[i], "threshold");
        const bool needs_one = role == "sky" || role == "mask";
        expect(needs_one == (threshold != nullptr), where, (prefix + "threshold").c_str(),
               threshold ? repr(threshold->number()) : "None", needs_one ? "a finite number" : "none for " + role);
        roles.insert(role);
        all_roles += (all_roles.empty() ? "" : ", ") + repr(role);
    }
    expect_text(outputs[0], "outputs[0].", "role", "depth", where);
    expect(roles.size() == outputs.size(), where, "outputs", "[" + all_roles + "]", "each role once");
}

void check_stats(const Json &manifest, const std::string &where) {
    std::set<std::string> known{"mean", "var", "grad", "min", "max", "valid"};
    std::string expected = "mean, var, grad, min, max, valid";
    for (const Json &output : manifest.find("outputs")->items)
        if (output.find("role")->text == "confidence" && known.insert("conf").second) expected += ", conf";
    std::set<std::string> named;
    std::string all = "(";
    bool are_known = !manifest.find("stats")->items.empty();
    for (const Json &item : manifest.find("stats")->items) {
        are_known = are_known && known.count(item.text) && named.insert(item.text).second;
        all += (all.size() > 1 ? ", " : "") + repr(item.text);
    }
    all += manifest.find("stats")->items.size() == 1 ? ",)" : ")";
    expect(are_known, where, "stats", all, "some of " + expected + ", each once");
}

void check_grid(const Json &manifest, const std::string &where) {
    const std::vector<std::int64_t> shape = shape_of(manifest.find("inputs")->items[0]);
    const std::int64_t patch = manifest.find("stats_patch")->integer;
    const auto &grid = manifest.find("grid")->items;
    expect(patch > 0, where, "stats_patch", std::to_string(patch), "a positive size in pixels");
    const double rows = static_cast<double>(shape[1]) / static_cast<double>(patch);
    const double columns = static_cast<double>(shape[2]) / static_cast<double>(patch);
    const bool fits = shape[1] % patch == 0 && shape[2] % patch == 0 && shape[1] / patch == grid[0].integer &&
                      shape[2] / patch == grid[1].integer;
    expect(fits, where, "grid", tuple({grid[0].integer, grid[1].integer}),
           "(" + repr(rows) + ", " + repr(columns) + "), the input's size divided by stats_patch");
}

void check_manifest(const Json &value, const std::string &where) {
    check_name(value.find("name")->text, where, "name");
    check_depth(value, where);
    check_shapes(value, where);
    check_tensors(value, where);
    check_grid(value, where);
    check_stats(value, where);
    const Json *num_flops = value.find("num_flops");
    if (num_flops && num_flops->kind == Json::Kind::integer)
        expect(num_flops->integer > 0, where, "num_flops", std::to_string(num_flops->integer), "a positive number");
    const auto &range = value.find("valid_range")->items;
    const double low = range[0].number(), high = range[1].number();
    const std::string stated = "(" + repr(low) + ", " + repr(high) + ")";
    expect(0.0 <= low && low < high, where, "valid_range", stated, "0 <= min < max");
    expect(high <= kMaxDepth, where, "valid_range", stated, "at most 1e+09");
}

// ---- the records

const std::vector<const char *> kPrecisions{"fp32", "fp16", "bf16", "int8", "fp8"};
const std::vector<const char *> kDepthKinds{"metric", "metric_focal", "inverse_canonical", "scale_invariant",
                                            "inverse_relative"};
const std::vector<const char *> kConventions{"geometric", "horizontal", "pixels"};
const std::vector<const char *> kInterpolations{"bilinear", "bicubic"};
const std::vector<const char *> kRoles{"depth", "sky", "mask", "confidence"};

constexpr Type choice_of(const std::vector<const char *> &choices) {
    return {Type::Element::choice, Type::Container::none, false, nullptr, &choices};
}

constexpr Type kPrecision = choice_of(kPrecisions);
constexpr Type kNullableText = nullable(kText), kNullableReal = nullable(kReal);

const Record kInput{{{"name", kText}, {"shape", list_of(kInteger)}, {"dtype", kText}, {"layout", kText}, {"colour", kText}}};
const Record kOutput{{{"name", kText},
                      {"shape", list_of(kInteger)},
                      {"dtype", kText},
                      {"role", choice_of(kRoles)},
                      {"threshold", kNullableReal, false}}};
const Record kPreprocess{{{"fit", kText},
                          {"multiple", kInteger},
                          {"interpolation", choice_of(kInterpolations)},
                          {"antialias", kFlag},
                          {"padding", kInteger},
                          {"mean", triple_of(kReal)},
                          {"std", triple_of(kReal)},
                          {"pixel_range", kReal},
                          {"colour", kText},
                          {"bicubic_coefficient", kNullableReal, false},
                          {"align_corners", kFlag, false}},
                         check_preprocess};
const Record kFile{{{"name", kText}, {"sha256", kText}, {"size_bytes", kInteger}}, check_file};
const Record kSource{{{"kind", kText},
                      {"name", kText},
                      {"sha256", kText},
                      {"config", by_name(kAnything)},
                      {"revision", kNullableText, false},
                      {"licence", kNullableText, false}},
                     check_source};

const Record kParityReport{{{"max_rel", kReal},
                            {"mean_rel", kReal},
                            {"p99_rel", kReal},
                            {"max_abs_m", kReal},
                            {"num_images", kInteger},
                            {"stats", by_name(kReal), false},
                            {"reference_range", kNullableReal, false}}};
const Record kGraphParity{{{"reference", kText},
                           {"candidate", kText},
                           {"tolerance_max_rel", kReal},
                           {"photos", list_of(kText)},
                           {"measured", record_of(kParityReport)}}};
const Record kTolerance{{{"mean_rel", kReal}, {"p99_rel", kReal}, {"patch_mean", kReal}}};
const Record kDevice{{{"gpu", kText}, {"compute_capability", kText}, {"driver_cuda", kText}}};
const Record kEngineParity{{{"reference", kText},
                            {"tolerance", record_of(kTolerance)},
                            {"export", record_of(kGraphParity)},
                            {"measured", nullable(record_of(kParityReport)), false},
                            {"measured_on", nullable(record_of(kDevice)), false}}};

const Record kTuningCandidate{{{"settings", by_name(kAnything)},
                               {"median_ms", kNullableReal, false},
                               {"gain", kNullableReal, false},
                               {"sure_gain", kNullableReal, false},
                               {"refused", kText, false}}};
const Record kTuning{
    {{"budget_s", kReal}, {"chosen", by_name(kAnything)}, {"candidates", list_of(record_of(kTuningCandidate))}}};
const Record kNetwork{{{"num_layers", kInteger},
                       {"num_by_dtype", by_name(kInteger)},
                       {"products_by_dtype", by_name(kInteger)},
                       {"num_attention", kInteger},
                       {"num_softmax", kInteger},
                       {"num_layer_norm", kInteger},
                       {"constant_resizes", list_of(kText), false}}};
const Record kCuda{{{"cuda_major", kNullableText},
                    {"driver_cuda", kNullableText},
                    {"gpu", kNullableText},
                    {"compute_capabilities", list_of(kText)},
                    {"build_s", kReal},
                    {"network", record_of(kNetwork)}}};
const Record kEngine{{{"id", kText},
                      {"backend", kText},
                      {"precision", kPrecision},
                      {"executed_precision", kText},
                      {"device", kText},
                      {"library_version", kText},
                      {"cpu_features", list_of(kText)},
                      {"options", by_name(kAnything)},
                      {"onnx_sha256", kText},
                      {"rewrites", by_name(kText), false},
                      {"tuning", nullable(record_of(kTuning)), false},
                      {"cuda", nullable(record_of(kCuda)), false},
                      {"known_errors", list_of(kText), false}}};

const Record kKept{{{"group", kText}, {"dtype", kPrecision}, {"num_nodes", kInteger}, {"reason", kText}}};
const Record kCalibration{{{"num_images", kInteger},
                           {"sha256", kText},
                           {"method", kText},
                           {"balanced", by_name(kText), false},
                           {"weight_bits", nullable(kInteger), false}}};
const Record kGateTolerance{{{"abs_rel", kReal}, {"delta1", kReal}, {"mean_rel", kReal}, {"p99_rel", kReal}}};
const Record kGateRun{{{"images", kText},
                       {"num_images", kInteger},
                       {"truth", kText},
                       {"abs_rel", pair_of(kReal)},
                       {"delta1", pair_of(kReal)},
                       {"measured", record_of(kParityReport)}}};
const Record kGate{
    {{"arithmetic", kText}, {"tolerance", record_of(kGateTolerance)}, {"runs", list_of(record_of(kGateRun))}}};
const Record kLowering{{{"precision", kPrecision},
                        {"onnx_sha256", kText},
                        {"num_by_dtype", by_name(kInteger)},
                        {"num_attention", kInteger},
                        {"num_layer_norm", kInteger},
                        {"kept", list_of(record_of(kKept)), false},
                        {"calibration", nullable(record_of(kCalibration)), false},
                        {"gate", nullable(record_of(kGate)), false}}};

// The keys common to graphs and engines, followed by `own`.
Record manifest_with(const std::vector<Field> &own) {
    std::vector<Field> fields{{"name", kText},
                              {"created", kText},
                              {"inputs", list_of(record_of(kInput))},
                              {"outputs", list_of(record_of(kOutput))},
                              {"depth_kind", choice_of(kDepthKinds)},
                              {"unit", kText},
                              {"valid_range", pair_of(kReal)},
                              {"preprocess", record_of(kPreprocess)},
                              {"stats_patch", kInteger},
                              {"grid", pair_of(kInteger)},
                              {"stats", list_of(kText)},
                              {"opset", kInteger},
                              {"source", record_of(kSource)},
                              {"file", record_of(kFile)},
                              {"tools", by_name(kText)},
                              {"canonical_focal", kNullableReal, false},
                              {"focal_convention", nullable(choice_of(kConventions)), false},
                              {"companions", list_of(record_of(kFile)), false},
                              {"lowering", nullable(record_of(kLowering)), false},
                              {"num_flops", nullable(kInteger), false}};
    fields.insert(fields.end(), own.begin(), own.end());
    return {fields, check_manifest};
}

}  // namespace

const Record kGraphManifest = manifest_with({{"parity", record_of(kGraphParity)}});
const Record kEngineManifest = manifest_with({{"engine", record_of(kEngine)}, {"parity", record_of(kEngineParity)}});

}  // namespace mvde::internal
