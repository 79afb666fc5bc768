#include "session/calibration.hpp"

#include "session/digest.hpp"
#include "session/frame_camera.hpp"
#include "session/schema.hpp"
#include "session/sealed_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <system_error>
#include <utility>
#include <vector>

namespace mvde::internal {
namespace {

constexpr const char *kRemedy = "calibrate again with `mvde calibrate scale`";
constexpr std::size_t kMaxBytes = 1 << 16;
constexpr std::int64_t kMaxSide = 1 << 16;
constexpr double kMaxNumber = 1e9, kCameraTolerance = 1e-6;

const std::vector<const char *> kKinds{"metric", "metric_focal", "inverse_canonical", "scale_invariant", "inverse_relative"};
const char *const kFits[] = {"stretch", "letterbox", "crop"};  // by mvde_fit

std::string size_text(std::int64_t height, std::int64_t width) {
    return std::to_string(height) + "x" + std::to_string(width);
}

// Returns the value of an optional key, or NULL.
const Json *given(const Json &plain, const char *key) {
    const Json *value = plain.find(key);
    return value && value->kind != Json::Kind::null ? value : nullptr;
}

std::optional<mvde_camera> camera_of(const Json &plain) {
    const Json *camera = given(plain, "camera");
    if (!camera) return std::nullopt;
    const auto &frame = plain.find("frame")->items;
    const auto number = [&](const char *key) { return camera->find(key)->number(); };
    return mvde_camera{number("fx"), number("fy"), number("cx"), number("cy"), frame[0].integer, frame[1].integer};
}

double shift_of(const Json &plain) {
    const Json *shift = plain.find("shift");
    return shift ? shift->number() : 0.0;
}

// What was calibrated is complete, and for the frames it can be of.
void check_parts(const Json &plain, const std::string &where) {
    const std::string &kind = plain.find("depth_kind")->text;
    const bool is_scaled = given(plain, "scale"), has_measured = given(plain, "measured");
    const bool has_intervals = given(plain, "intervals");
    expect(is_scaled == has_measured, where, "measured", has_measured ? "'given'" : "None",
           "one beside a scale, and none without");
    expect(is_scaled || has_intervals, where, "scale", "None", "a positive number, or intervals in its place");
    const bool has_canonical_camera = kind == "metric_focal" || kind == "inverse_canonical";
    const bool is_of_any = has_canonical_camera && !is_scaled && !given(plain, "camera");
    expect(given(plain, "frame") || is_of_any, where, "frame", "None", "the size of the calibrated frames");
    if (!has_intervals) return;
    const bool is_metric = kind == "metric" || kind == "metric_focal" || (is_scaled && kind == "inverse_canonical");
    expect(is_metric, where, "depth_kind", repr(kind),
           std::string("one of metric, metric_focal") + (is_scaled ? ", inverse_canonical" : "") + " beside intervals");
    const bool has_camera = !given(plain, "frame") || given(plain, "camera");
    expect(has_camera, where, "camera", "None", "that of the frames, beside intervals");
}

void check_values(const Json &plain, const std::string &where) {
    const std::string &sha256 = plain.find("graph_sha256")->text, &fit = plain.find("fit")->text;
    const bool is_hash = sha256.size() == 64 && sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
    expect(is_hash, where, "graph_sha256", repr(sha256), "64 hexadecimal digits");
    for (const char *key : {"resolution", "frame"}) {
        if (!given(plain, key)) continue;
        const auto &sides = plain.find(key)->items;
        const bool is_size = std::all_of(sides.begin(), sides.end(),
                                         [](const Json &side) { return side.integer > 0 && side.integer <= kMaxSide; });
        expect(is_size, where, key, "(" + repr(sides[0]) + ", " + repr(sides[1]) + ")", "a size of 1 to 65536 pixels");
    }
    const bool is_fit = std::count(std::begin(kFits), std::end(kFits), fit) > 0;
    expect(is_fit, where, "fit", repr(fit), "one of stretch, letterbox, crop");
    const Json *const scale = given(plain, "scale");
    const double shift = shift_of(plain);
    const std::string &kind = plain.find("depth_kind")->text;
    if (scale)
        expect(0 < scale->number() && scale->number() < kMaxNumber, where, "scale", repr(scale->number()),
               "a positive number");
    expect(std::abs(shift) < kMaxNumber, where, "shift", repr(shift), "a finite number");
    expect(kind == "inverse_relative" || shift == 0, where, "shift", repr(shift), "0 for " + kind);
    check_parts(plain, where);
    try {
        if (const auto camera = camera_of(plain)) check_camera(*camera);
    } catch (const Refused &error) {
        refuse(where + ": camera: " + error.what());
    }
}

const Record kCamera{{{"fx", kReal}, {"fy", kReal}, {"cx", kReal}, {"cy", kReal}}, nullptr, kRemedy};
const Record kMeasured{{{"num_points", kInteger},
                        {"num_frames", kInteger},
                        {"distance_m", pair_of(kReal)},
                        {"held_out_abs_rel", kReal},
                        {"spread", kReal}},
                       nullptr,
                       kRemedy};
const Record kCalibration{{{"name", kText},
                           {"created", kText},
                           {"graph_sha256", kText},
                           {"engine", kText},
                           {"depth_kind", {Type::Element::choice, Type::Container::none, false, nullptr, &kKinds}},
                           {"resolution", pair_of(kInteger)},
                           {"fit", kText},
                           {"frame", nullable(pair_of(kInteger)), false},
                           {"scale", nullable(kReal), false},
                           {"measured", nullable(record_of(kMeasured)), false},
                           {"shift", kReal, false},
                           {"camera", nullable(record_of(kCamera)), false},
                           {"intervals", nullable(record_of(intervals_record())), false}},
                          check_values,
                          kRemedy};

Json parsed(const std::string &text, const std::string &path) {
    try {
        return parse_json(text);
    } catch (const JsonError &error) {
        refuse(path + " is not valid JSON: " + error.what() + "; " + kRemedy);
    } catch (const JsonDepthError &) {
        refuse(path + " is nested too deeply to be a calibration");
    }
}

std::string read_text(const std::string &path) {
    try {
        return read_small(path, kMaxBytes);
    } catch (const std::system_error &error) {
        refuse("cannot read the calibration " + path + ": " + error.code().message());
    } catch (const std::runtime_error &error) {
        refuse("cannot read the calibration " + path + ": " + error.what());
    }
}

bool is_same(const mvde_camera &one, const mvde_camera &other) {
    const auto close = [](double a, double b) {
        return std::abs(a - b) <= kCameraTolerance * std::max(std::abs(a), std::abs(b));
    };
    return close(one.fx, other.fx) && close(one.fy, other.fy) && close(one.cx, other.cx) && close(one.cy, other.cy);
}

std::string camera_text(const mvde_camera *camera) {
    if (!camera) return "no camera";
    char text[160];
    std::snprintf(text, sizeof text, "a camera of fx %.6g, fy %.6g, cx %.6g, cy %.6g", camera->fx, camera->fy, camera->cx,
                  camera->cy);
    return text;
}

void require(bool holds, const std::string &message) {
    if (!holds) throw Refused(MVDE_ERROR_INCOMPATIBLE, message + "; " + kRemedy);
}

}  // namespace

mvde_calibrated Calibration::describes() const {
    if (!scale) return MVDE_NOT_CALIBRATED;
    return depth_kind == "scale_invariant" || depth_kind == "inverse_relative" ? MVDE_FIXED_SCENE : MVDE_ONE_SCALE;
}

Calibration read_calibration(const std::string &path) {
    const std::string text = read_text(path);
    Json plain = parsed(text, path);
    const std::optional<Json> kind = taken(plain, "kind"), version = taken(plain, "schema_version");
    if (!kind || kind->text != "calibration" || !version)
        refuse(path + " is not a calibration of mvde: its kind is not 'calibration'; " + kRemedy);
    if (version->kind != Json::Kind::integer || version->integer != 1)
        refuse(path + " has schema_version " + repr(*version) + ", but this mvde reads 1; upgrade mvde, or " + kRemedy);
    const std::optional<Json> stated = taken(plain, "digest");
    const std::size_t at = digest_at(text);
    if (!stated || at == std::string::npos || stated->text != digest_of(text, at))
        refuse(path + ": its digest does not fit its content: it was damaged, or edited by hand; copy it again, or " +
               kRemedy);
    check_record(plain, kCalibration, path);
    const auto text_of = [&](const char *key) { return plain.find(key)->text; };
    const auto &resolution = plain.find("resolution")->items;
    Calibration found{text_of("name"),
                      text_of("graph_sha256"),
                      text_of("engine"),
                      text_of("depth_kind"),
                      text_of("fit"),
                      resolution[0].integer,
                      resolution[1].integer,
                      0,
                      0,
                      {},
                      shift_of(plain),
                      camera_of(plain),
                      {}};
    if (const Json *frame = given(plain, "frame")) {
        found.frame_height = frame->items[0].integer;
        found.frame_width = frame->items[1].integer;
    }
    if (const Json *scale = given(plain, "scale")) found.scale = scale->number();
    if (const Json *intervals = given(plain, "intervals")) found.intervals = intervals_of(*intervals);
    return found;
}

void check_engine(const Calibration &calibration, const EngineManifest &manifest) {
    const std::string own = size_text(calibration.height, calibration.width);
    const std::string engines = size_text(manifest.height(), manifest.width());
    const std::string &sha256 = manifest.fp32_graph_sha256;
    require(calibration.graph_sha256 == sha256, "the calibration is of another graph: " + calibration.name + " " + own +
                                                    ", fp32 SHA-256 " + calibration.graph_sha256.substr(0, 12) +
                                                    "..., measured on " + calibration.engine + "; this engine is of " +
                                                    manifest.name + " " + engines + ", " + sha256.substr(0, 12) + "...");
    require(own == engines && calibration.depth_kind == manifest.depth_kind,
            "the calibration is of " + calibration.depth_kind + " at " + own + ", but this engine is of " +
                manifest.depth_kind + " at " + engines);
}

void check_frames(const Calibration &calibration, std::int64_t height, std::int64_t width, std::int32_t fit,
                  const mvde_camera *camera) {
    const bool is_of_one = !calibration.is_of_any_camera();
    require(!is_of_one || (height == calibration.frame_height && width == calibration.frame_width),
            "the calibration is of frames of " + size_text(calibration.frame_height, calibration.frame_width) +
                ", but this frame is " + size_text(height, width));
    require(calibration.fit == kFits[fit],
            "the calibration is of fit " + calibration.fit + ", but this frame has " + kFits[fit]);
    const mvde_camera *own = calibration.camera ? &*calibration.camera : nullptr;
    require(!is_of_one || (camera && own ? is_same(*camera, *own) : camera == own),
            "the calibration is of " + camera_text(own) + ", but this frame has " + camera_text(camera));
}

}  // namespace mvde::internal
