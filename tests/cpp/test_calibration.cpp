// Calibrated sessions, on the fake backend: the map of a grey frame of 64 is 1.5.
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session/anchors.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

using engine_folder::Folder;

const std::string kSha256(64, 'a');

// A calibration of the folder's graph at frames of 64x96: scale 0.5, and shift 0.0625 of inverse_relative.
std::string calibration(const std::string &kind, const std::string &rest = "") {
    const std::string shift = kind == "inverse_relative" ? R"(, "shift": 0.0625)" : "";
    return R"({"schema_version": 1, "kind": "calibration", "name": "tiny", "created": "2026-01-01", "graph_sha256": ")" +
           kSha256 + R"(", "engine": "openvino:int8", "depth_kind": ")" + kind +
           R"(", "resolution": [32, 48], "fit": "stretch", "frame": [64, 96], "scale": 0.5, "measured": )" +
           R"({"num_points": 20, "num_frames": 5, "distance_m": [0.5, 4], "held_out_abs_rel": 0.03, "spread": 0.02})" +
           shift + rest + engine_folder::kDigestKey;
}

// An engine of that kind, and its calibration.
struct Calibrated : Folder {
    explicit Calibrated(const std::string &kind, const std::string &camera = "") {
        const std::string unit = kind.find("inverse") == 0 ? "1/u" : kind == "scale_invariant" ? "1" : "m";
        const bool has_camera = kind == "metric_focal" || kind == "inverse_canonical";
        std::string text = engine_folder::with(engine_folder::manifest(content), R"("onnx_sha256": "")",
                                               R"("onnx_sha256": ")" + kSha256 + '"');
        text = engine_folder::with(text, R"("depth_kind": "metric", "unit": "m")",
                                   R"("depth_kind": ")" + kind + R"(", "unit": ")" + unit + '"' +
                                       (has_camera ? R"(, "canonical_focal": 0.5, "focal_convention": "horizontal")" : ""));
        write("engine.json", text);
        calibrate(calibration(kind, camera));
        options.frame = {64, 96};
        options.calibration_path = (root / "a.calibration.json").string();
    }
    void calibrate(const std::string &text) const {
        std::ofstream(root / "a.calibration.json", std::ios::binary) << engine_folder::stamped(text);
    }
    mvde::Result<mvde::Session> open() const { return mvde::Session::open(path.string(), options); }

    mvde::SessionOptions options;
};

bool near(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

void expect_refused(const Calibrated &folder, mvde_status status, const std::string &words, int line) {
    const auto session = folder.open();
    const std::string message = session.error().message;
    CHECK(!session && session.error().status == status, "line %d: %d, %s", line, session.error().status, message.c_str());
    CHECK(message.find(words) != std::string::npos, "line %d: %s", line, message.c_str());
}

#define EXPECT_REFUSED(folder, status, words) expect_refused(folder, status, words, __LINE__)

}  // namespace

TEST(a_calibrated_map_is_metric_with_its_statistics) {
    struct Case {
        const char *kind;
        double metres;
        int32_t calibrated;
    };
    const Case cases[] = {{"metric", 0.5 * 1.5, MVDE_ONE_SCALE},
                          {"metric_focal", 0.5 * 1.5, MVDE_ONE_SCALE},
                          {"inverse_canonical", 1 / (0.5 * 1.5), MVDE_ONE_SCALE},
                          {"scale_invariant", 0.5 * 1.5, MVDE_FIXED_SCENE},
                          {"inverse_relative", 1 / (0.5 * 1.5 + 0.0625), MVDE_FIXED_SCENE}};
    Frame frame({64, 96});
    frame.fill(64);
    for (const Case &one : cases) {
        const Calibrated folder(one.kind);
        auto session = folder.open();
        CHECK(session, "%s", session.error().message.c_str());
        if (!session) return;
        const mvde_session_info info = session->info();
        CHECK(info.depth_kind == MVDE_METRIC && info.calibrated == one.calibrated && std::string(info.unit) == "m");
        std::vector<float> depth(session->num_depths()), stats(session->num_stats());
        std::vector<uint16_t> millimetres(session->num_depths());
        mvde::Outputs outputs{depth, stats, millimetres, {}};
        CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
        CHECK(near(depth[30 * 96 + 40], one.metres) && near(stats[3], one.metres), "%s: %g and %g", one.kind,
              depth[30 * 96 + 40], stats[3]);
        CHECK(millimetres[7] == std::lround(1000 * one.metres), "%s: %d", one.kind, millimetres[7]);
    }
}

TEST(the_camera_of_a_calibration_is_the_frames) {
    const Calibrated folder("metric_focal", R"(, "camera": {"fx": 96, "fy": 64, "cx": 47.5, "cy": 31.5})");
    auto session = folder.open();
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    const mvde_session_info info = session->info();
    CHECK(near(info.camera_factor, 2) && !info.camera_assumed);
    Frame frame({64, 96});
    frame.fill(64);
    std::vector<float> depth(session->num_depths());
    CHECK(session->infer(frame.view, depth, {}) && near(depth[0], 2 * 0.5 * 1.5), "%g", depth[0]);
}

TEST(frames_that_were_not_calibrated_are_refused) {
    Calibrated folder("metric_focal", R"(, "camera": {"fx": 96, "fy": 64.5, "cx": 47.5, "cy": 31.5})");
    folder.options.camera = mvde_camera{97, 64.5, 47.5, 31.5, 64, 96};
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE,
                   "the calibration is of a camera of fx 96, fy 64.5, cx 47.5, cy 31.5, but this frame has a camera of fx "
                   "97, fy 64.5, cx 47.5, cy 31.5; calibrate again with `mvde calibrate scale`");
    folder.calibrate(calibration("metric_focal"));
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE, "the calibration is of no camera, but this frame has a camera of fx 97");
    folder.options.camera.reset();
    folder.options.fit = mvde::Fit::crop;
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE, "the calibration is of fit stretch, but this frame has crop");
    folder.options.frame = {64, 95};
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE, "the calibration is of frames of 64x96, but this frame is 64x95");
}

TEST(a_calibration_of_another_graph_is_refused) {
    const Calibrated folder("metric");
    std::string text = calibration("metric");
    text = engine_folder::with(text, std::string(64, 'a'), std::string(64, 'b'));
    folder.calibrate(text);
    EXPECT_REFUSED(
        folder, MVDE_ERROR_INCOMPATIBLE,
        "the calibration is of another graph: tiny 32x48, fp32 SHA-256 bbbbbbbbbbbb..., measured on openvino:int8; "
        "this engine is of tiny 32x48, aaaaaaaaaaaa...; calibrate again");
    folder.calibrate(calibration("scale_invariant"));
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE,
                   "the calibration is of scale_invariant at 32x48, but this engine is of metric at 32x48");
}

TEST(malformed_calibrations_are_refused_with_the_words_of_python) {
    struct Case {
        const char *from, *to, *words;
    };
    const Case cases[] = {
        {R"("kind": "calibration")", R"("kind": "engine")", "is not a calibration of mvde: its kind is not 'calibration'"},
        {R"("schema_version": 1)", R"("schema_version": true)", "has schema_version True, but this mvde reads 1; upgrade"},
        {R"("scale": 0.5)", R"("scale": 0)", ": scale is 0.0, but expected a positive number"},
        {R"("scale": 0.5)", R"("scale": "1")", ": scale must be float, but got str '1'"},
        {R"("scale": 0.5, )", "", ": measured is 'given', but expected one beside a scale, and none without"},
        {R"("spread": 0.02)", R"("spreads": 0.02)", ": unknown key measured.spreads; known keys: num_points, num_frames"},
        {R"("frame": [64, 96])", R"("frame": [0, 96])", ": frame is (0, 96), but expected a size of 1 to 65536 pixels"},
        {R"("fit": "stretch")", R"("fit": "squeeze")", ": fit is 'squeeze', but expected one of stretch, letterbox, crop"},
        {R"("created": "2026-01-01")", R"("created": "2026-01-01", "shift": 1)",
         ": shift is 1.0, but expected 0 for metric"},
        {R"("created": "2026-01-01")", R"("created": "", "camera": {"fx": -1, "fy": 1, "cx": 1, "cy": 1})",
         ": camera: fx of a camera lies between 0 and 1e+09, but got -1.0"},
        {"{", "[", " is not valid JSON: "},
    };
    const Calibrated folder("metric");
    for (const Case &one : cases) {
        std::string text = calibration("metric");
        text.replace(text.find(one.from), std::string(one.from).size(), one.to);
        folder.calibrate(text);
        EXPECT_REFUSED(folder, MVDE_ERROR_MANIFEST, one.words);
    }
    std::string text = engine_folder::stamped(calibration("metric"));
    text.replace(text.find("0.5"), 3, "0.6");
    std::ofstream(folder.options.calibration_path, std::ios::binary) << text;
    EXPECT_REFUSED(folder, MVDE_ERROR_MANIFEST, ": its digest does not fit its content: it was damaged, or edited by hand");
    std::filesystem::remove(folder.options.calibration_path);
    EXPECT_REFUSED(folder, MVDE_ERROR_MANIFEST,
                   "cannot read the calibration " + folder.options.calibration_path + ": No such file or directory");
}

// A calibration with intervals alone; of the frames' camera, or with `frame` empty of several.
std::string with_intervals(const std::string &kind, const std::string &frame, const std::string &mean = "") {
    const std::string table = mean.empty() ? R"({"edges_m": [1, 1.5], "lo": [0.9, 0.8, 0.7], "hi": [1.1, 1.25, 1.375]})"
                                           : mean;
    return R"({"schema_version": 1, "kind": "calibration", "name": "tiny", "created": "2026-01-01", "graph_sha256": ")" +
           kSha256 + R"(", "engine": "openvino:int8", "depth_kind": ")" + kind + R"(", "resolution": [32, 48], "fit": )" +
           R"("stretch")" + frame + R"(, "intervals": {"coverage": 0.9, "nearest_coverage": 0.95, "mean": )" + table +
           R"(, "nearest": {"edges_m": [2], "factors": [0.6, 0.5]}, "camera_factor": [0.5, 2.5], "held_out": )" +
           R"({"num_scenes": 40, "num_frames": 80, "num_patches": 900, "patches": 0.9, "scenes": 0.9, "worst_scenes": 0.7, )" +
           R"("bins": [0.9, 0.9, 0.9], "nearest": 0.95, "width": 0.85}})" + engine_folder::kDigestKey;
}

const std::string kOneCamera = R"(, "frame": [64, 96], "camera": {"fx": 96, "fy": 64, "cx": 47.5, "cy": 31.5})";

TEST(intervals_are_multiples_by_distance) {
    Calibrated folder("metric");
    folder.calibrate(with_intervals("metric", kOneCamera));
    folder.options.stats = {MVDE_HI, MVDE_VALID, MVDE_LO, MVDE_NEAR};
    auto session = folder.open();
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    const mvde_session_info info = session->info();
    CHECK(info.num_stats == 4 && info.stats[0] == MVDE_HI && info.stats[3] == MVDE_NEAR && info.stats[4] == -1);
    CHECK(info.calibrated == MVDE_NOT_CALIBRATED && session->num_stats() == 4 * 6);
    Frame frame({64, 96});
    std::vector<float> depth(session->num_depths()), stats(session->num_stats());
    frame.fill(64);  // 1.5, an edge, which belongs to the bin above
    CHECK(session->infer(frame.view, depth, stats), "%s", mvde_last_error());
    const float map = depth[0];
    const auto times = [&](double factor) { return static_cast<float>(static_cast<double>(map) * factor); };
    CHECK(map == 1.5F && stats[4] == times(1.375) && stats[5] == 1.0F && stats[6] == times(0.7) && stats[7] == times(0.6),
          "%g: %g %g %g %g", map, stats[4], stats[5], stats[6], stats[7]);
    const mvde_anchor anchor{10, 20, 3};
    frame.view.anchors = &anchor;
    frame.view.num_anchors = 1;
    CHECK(!session->infer(frame.view, depth, stats) &&
              std::string(mvde_last_error())
                      .find("anchors take the place of the calibration, whose hi, lo, near do not "
                            "hold then") != std::string::npos,
          "%s", mvde_last_error());
    CHECK(session->infer(frame.view, depth, {}), "%s", mvde_last_error());
    mvde_mounting mounting;
    mvde_mounting_defaults(&mounting);
    mounting.height_m = 0.6;
    folder.options.floor = mounting;
    EXPECT_REFUSED(folder, MVDE_ERROR_ARGUMENT,
                   "the floor gives depth another scale than that whose errors were calibrated, so that hi, lo, near would "
                   "not hold; leave the floor or these statistics out");
}

TEST(intervals_that_do_not_hold_are_refused) {
    Calibrated folder("metric_focal");
    folder.options.stats = {MVDE_MEAN, MVDE_NEAR};
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE,
                   "options.stats has MVDE_NEAR, but the calibration has no intervals; add them with `mvde calibrate");
    folder.options.calibration_path.clear();
    EXPECT_REFUSED(folder, MVDE_ERROR_ARGUMENT,
                   "options.stats has MVDE_NEAR, which needs a calibration with intervals: make one with `mvde calibrate "
                   "intervals`");
    folder.options.calibration_path = (folder.root / "a.calibration.json").string();
    folder.calibrate(with_intervals("metric_focal", ""));
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE, "near need the camera of the frame, since errors are others with");
    folder.options.camera = mvde_camera{192, 128, 47.5, 31.5, 64, 96};
    EXPECT_REFUSED(folder, MVDE_ERROR_INCOMPATIBLE,
                   "the intervals are of cameras with f / f_canonical of 0.5 to 2.5, but this frame has 4; calibrate such");
    folder.options.camera = mvde_camera{96, 64, 47.5, 31.5, 64, 96};
    CHECK(folder.open());
}

TEST(malformed_intervals_are_refused_with_the_words_of_python) {
    struct Case {
        const char *mean, *words;
    };
    const Case cases[] = {
        {R"({"edges_m": [3, 1.5], "lo": [1, 1, 1], "hi": [1, 1, 1]})",
         ": intervals.mean.edges_m is (3.0, 1.5), but expected ascending numbers above 0"},
        {R"({"edges_m": [1], "lo": [0.8], "hi": [1, 1]})",
         ": intervals.mean.lo is (0.8,), but expected 2 numbers, one more than edges_m"},
        {R"({"edges_m": [], "lo": [0], "hi": [1]})",
         ": intervals.mean.lo is (0.0,), but expected numbers above 0 and below 1e+06"},
        {R"({"edges_m": [], "lo": [1.25], "hi": [1]})",
         ": intervals.mean.lo is (1.25,), but expected at most intervals.mean.hi"},
        {R"({"edges_m": [], "lo": [1]})", ": the key intervals.mean.hi is missing; calibrate again"},
    };
    const Calibrated folder("metric");
    for (const Case &one : cases) {
        folder.calibrate(with_intervals("metric", kOneCamera, one.mean));
        EXPECT_REFUSED(folder, MVDE_ERROR_MANIFEST, one.words);
    }
    folder.calibrate(with_intervals("metric", R"(, "frame": [64, 96])"));
    EXPECT_REFUSED(folder, MVDE_ERROR_MANIFEST, ": camera is None, but expected that of the frames, beside intervals");
    folder.calibrate(with_intervals("metric", ""));
    EXPECT_REFUSED(folder, MVDE_ERROR_MANIFEST, ": frame is None, but expected the size of the calibrated frames");
    folder.calibrate(with_intervals("inverse_relative", kOneCamera));
    EXPECT_REFUSED(folder, MVDE_ERROR_MANIFEST,
                   ": depth_kind is 'inverse_relative', but expected one of metric, metric_focal beside intervals");
}

TEST(anchors_give_a_frame_its_metres) {
    Frame frame({64, 96});
    frame.fill(64);
    const mvde_anchor anchors[] = {{10, 20, 3}, {80.5F, 60, 3}, {50, 5, 3.2F}};
    frame.view.anchors = anchors;
    for (const char *kind : {"metric", "metric_focal", "inverse_canonical", "scale_invariant"}) {
        Calibrated folder(kind);
        for (const bool is_calibrated : {true, false}) {  // anchors take the calibration's place
            if (!is_calibrated) folder.options.calibration_path.clear();
            auto session = folder.open();
            CHECK(session, "%s", session.error().message.c_str());
            if (!session) return;
            std::vector<float> depth(session->num_depths()), stats(session->num_stats());
            std::vector<uint16_t> millimetres(session->num_depths());
            mvde::Outputs outputs{depth, stats, millimetres, {}};
            frame.view.num_anchors = 3;
            CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
            CHECK(near(depth[0], 3) && near(stats[0], 3) && millimetres[0] == 3000 && outputs.calibrated == MVDE_ANCHORS,
                  "%s: %g, %g, %d", kind, depth[0], stats[0], outputs.calibrated);
            frame.view.num_anchors = 0;
            CHECK(session->infer(frame.view, depth, stats) && !near(depth[0], 3), "%s: %g", kind, depth[0]);
        }
    }
}

// The expected numbers are those of mvde.calibration.solve.solve and mvde.runtime.view.anchored, to the last bit.
TEST(anchors_are_solved_as_in_python) {
    std::vector<float> raw(32 * 48);
    for (std::size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<float>(i + 200) / 1024.0F;  // exact everywhere
    const mvde::internal::MapView view{raw.data(), 48, {0, 0, 64, 96}, {0, 0, 32, 48}};
    const mvde_anchor points[] = {{3.25F, 7.5F, 9}, {40, 22, 2}, {90.5F, 33, 1.25F}, {17, 60, 1}};
    mvde_frame frame;
    mvde_frame_defaults(&frame);
    frame.anchors = points;
    frame.num_anchors = 4;
    mvde::internal::Anchors anchors;
    mvde::internal::Metres metres;
    CHECK(anchors.take(frame, 64, 96) == MVDE_OK && anchors.solve(MVDE_INVERSE_RELATIVE, 1.0, view, metres) == MVDE_OK);
    CHECK(metres.scale == 1.0584257798038295 && metres.shift == -0.27023916881258975, "%.17g %.17g", metres.scale,
          metres.shift);
    frame.num_anchors = 3;
    CHECK(anchors.take(frame, 64, 96) == MVDE_OK && anchors.solve(MVDE_METRIC_FOCAL, 2.0, view, metres) == MVDE_OK);
    CHECK(near(metres.scale, 2 / 0.718505859375), "the median of three: %.17g", metres.scale);
    raw[0] = std::numeric_limits<float>::quiet_NaN();  // the first anchor's neighbours are elsewhere
    raw[3 * 48 + 1] = 0.0F;                            // but this is one
    CHECK(anchors.solve(MVDE_METRIC, 1.0, view, metres) == MVDE_OK &&
              near(metres.scale, (2 / 0.718505859375 + 1.25 / 1.0009765625) / 2),
          "without the first: %.17g", metres.scale);
}

TEST(impossible_anchors_are_refused_and_the_session_goes_on) {
    Calibrated folder("inverse_relative");
    folder.options.calibration_path.clear();
    auto session = folder.open();
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    Frame frame({64, 96});
    std::vector<float> depth(session->num_depths());
    const auto refuse = [&](std::vector<mvde_anchor> anchors, const std::string &words, int line) {
        frame.view.anchors = anchors.data();
        frame.view.num_anchors = static_cast<int32_t>(anchors.size());
        const auto result = session->infer(frame.view, depth, {});
        const std::string message = mvde_last_error();
        CHECK(!result && result.error().status == MVDE_ERROR_ARGUMENT, "line %d", line);
        CHECK(message.find(words) != std::string::npos, "line %d: %s", line, message.c_str());
        frame.view.num_anchors = 0;
        CHECK(session->infer(frame.view, depth, {}), "line %d: %s", line, mvde_last_error());
    };
    const float infinity = std::numeric_limits<float>::infinity();
    refuse({{1, 1, 1}, {96, 1, 1}}, "anchor 1 at x 96, y 1 is outside the frame of 96 columns and 64 rows", __LINE__);
    refuse({{1, std::nanf(""), 1}}, "anchor 0 at x 1, y nan is outside the frame", __LINE__);
    refuse({{1, 1, 0}}, "anchor 0 is at 0 m, but expected a positive number", __LINE__);
    refuse({{1, 1, infinity}}, "anchor 0 is at inf m, but expected a positive number", __LINE__);
    refuse(std::vector<mvde_anchor>(4097, {1, 1, 1}), "a frame takes 1 to 4096 anchors, but got 4097", __LINE__);
    refuse({{1, 1, 1}}, "a map of kind inverse_relative needs 2 points or more where it has a value, but got 1", __LINE__);
    refuse({{1, 1, 1}, {90, 60, 1.1F}}, "all points are between 1 and 1.1 m; measure some at 1.5 times", __LINE__);
    frame.fill(64);
    refuse({{1, 1, 1}, {90, 60, 2}}, "the map has the same value at all points", __LINE__);
    frame.view.anchors = nullptr;
    frame.view.num_anchors = 2;
    CHECK(!session->infer(frame.view, depth, {}) &&
          std::string(mvde_last_error()) == "frame.anchors is NULL, but num_anchors is 2");
}

int main() { return harness::run_all_and_in_german(); }
