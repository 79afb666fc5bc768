// Options and results of a session beyond depth and statistics: camera, columns, millimetres, tags, counters. The fake
// backend's depth of a grey frame of 64 is 1.5.
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

using engine_folder::Folder;

// A folder whose engine has that kind and, if not "", canonical camera.
struct KindFolder : Folder {
    explicit KindFolder(const std::string &kind, const std::string &convention = "") {
        const std::string unit = kind.find("inverse") == 0 ? "1/u" : kind == "scale_invariant" ? "1" : "m";
        spoil(R"("depth_kind": "metric", "unit": "m")",
              R"("depth_kind": ")" + kind + R"(", "unit": ")" + unit + '"' +
                  (convention.empty() ? "" : R"(, "canonical_focal": 0.5, "focal_convention": ")" + convention + '"'));
    }
};

mvde::SessionOptions options_of(mvde::Fit fit, bool has_camera) {
    mvde::SessionOptions options;
    options.frame = {120, 200};
    options.fit = fit;
    if (has_camera) options.camera = mvde_camera{150, 140, 97, 63, 120, 200};
    return options;
}

bool near(double a, double b, double relative = 1e-12) { return std::abs(a - b) <= relative * std::abs(b); }

void expect_refused(const Folder &folder, const mvde::SessionOptions &options, const std::string &words, int line) {
    const auto session = mvde::Session::open(folder.path.string(), options);
    const std::string message = session.error().message;
    CHECK(!session && session.error().status == MVDE_ERROR_ARGUMENT, "line %d: %s", line, message.c_str());
    CHECK(message.find(words) != std::string::npos, "line %d: %s", line, message.c_str());
}

#define EXPECT_REFUSED(folder, options, words) expect_refused(folder, options, words, __LINE__)

}  // namespace

TEST(the_factor_follows_the_box_of_the_fit) {
    struct Case {
        const char *convention;
        mvde::Fit fit;
        double assumed, known;
    };
    // A frame of 120x200 in an input of 32x48 by hand: letterbox fills 29x48, crop sees 120x180; canonical focal length 0.5.
    const Case cases[] = {
        {"geometric", mvde::Fit::stretch, 1, std::sqrt(150. / 200 * 140 / 120) / 0.5},
        {"horizontal", mvde::Fit::stretch, 1, 150. / 200 / 0.5},
        {"pixels", mvde::Fit::stretch, 1, (150 * 48. / 200 + 140 * 32. / 120) / 2 / 0.5},
        {"geometric", mvde::Fit::letterbox, std::sqrt(29. / 32), std::sqrt(150. / 200 * 140 * 29 / 120 / 32) / 0.5},
        {"horizontal", mvde::Fit::letterbox, 1, 150. / 200 / 0.5},
        {"pixels", mvde::Fit::letterbox, (48. / 200 + 29. / 120) / (48. / 200 + 32. / 120),
         (150 * 48. / 200 + 140 * 29. / 120) / 2 / 0.5},
        {"geometric", mvde::Fit::crop, std::sqrt(200. / 180), std::sqrt(150. / 180 * 140 / 120) / 0.5},
        {"horizontal", mvde::Fit::crop, 200. / 180, 150. / 180 / 0.5},
        {"pixels", mvde::Fit::crop, (48. / 180 + 32. / 120) / (48. / 200 + 32. / 120),
         (150 * 48. / 180 + 140 * 32. / 120) / 2 / 0.5},
    };
    Frame frame({120, 200});
    frame.fill(64);
    for (const std::string kind : {"metric_focal", "inverse_canonical"}) {
        for (const Case &one : cases) {
            const KindFolder folder(kind, one.convention);
            for (const bool has_camera : {false, true}) {
                auto session = mvde::Session::open(folder.path.string(), options_of(one.fit, has_camera));
                CHECK(session, "%s", session.error().message.c_str());
                if (!session) return;
                const mvde_session_info info = session->info();
                const double factor = has_camera ? one.known : one.assumed;
                CHECK(near(info.camera_factor, factor), "%s %s: %.17g, but %.17g", kind.c_str(), one.convention,
                      info.camera_factor, factor);
                CHECK(info.camera_assumed == !has_camera && info.fit == static_cast<int32_t>(one.fit));
                const double scale = kind == "metric_focal" ? factor : 1 / factor;
                std::vector<float> depth(session->num_depths()), stats(session->num_stats());
                CHECK(session->infer(frame.view, depth, stats), "%s", mvde_last_error());
                CHECK(near(depth[60 * 200 + 100], 1.5 * scale, 1e-6), "%g", depth[60 * 200 + 100]);
                CHECK(near(stats[3], 1.5 * scale, 1e-6), "the middle patch: %g", stats[3]);
            }
        }
    }
}

TEST(statistics_scale_by_their_powers) {
    const KindFolder folder("metric_focal", "horizontal");
    mvde::SessionOptions options = options_of(mvde::Fit::stretch, false);
    options.stats = {MVDE_VAR, MVDE_VALID, MVDE_MAX, MVDE_GRAD};
    auto plain = mvde::Session::open(folder.path.string(), options);
    options.camera = mvde_camera{200, 77, 0, 0, 120, 200};  // twice the canonical focal length
    auto scaled = mvde::Session::open(folder.path.string(), options);
    CHECK(plain && scaled, "%s", scaled.error().message.c_str());
    if (!plain || !scaled) return;
    const mvde_session_info info = scaled->info();
    CHECK(info.num_stats == 4 && info.stats[0] == MVDE_VAR && info.stats[3] == MVDE_GRAD && info.stats[4] == -1);
    const Frame frame({120, 200});
    std::vector<float> depth(plain->num_depths()), before(24), after(24);
    CHECK(plain->infer(frame.view, depth, before) && scaled->infer(frame.view, {}, after));
    for (std::size_t i = 0; i < 24; i += 4)
        CHECK(before[i] > 0 && after[i] == 4 * before[i] && after[i + 1] == 1 && before[i + 1] == 1 &&
              after[i + 2] == 2 * before[i + 2] && after[i + 3] == 2 * before[i + 3]);
}

TEST(kinds_without_a_canonical_camera_take_one_without_effect) {
    const char *kinds[] = {"metric", "scale_invariant", "inverse_relative"};
    const int32_t expected[] = {MVDE_METRIC, MVDE_SCALE_INVARIANT, MVDE_INVERSE_RELATIVE};
    const char *units[] = {"m", "1", "1/u"};
    for (int i = 0; i < 3; ++i) {
        auto session = mvde::Session::open(KindFolder(kinds[i]).path.string(), options_of(mvde::Fit::crop, i != 0));
        CHECK(session, "%s", session.error().message.c_str());
        if (!session) return;
        const mvde_session_info info = session->info();
        CHECK(info.depth_kind == expected[i] && std::string(info.unit) == units[i] && info.camera_factor == 1.0 &&
              info.camera_assumed == 0);
        const mvde_box &source = info.source_box, &target = info.target_box;
        CHECK(source.top == 0 && source.left == 10 && source.bottom == 120 && source.right == 190);
        CHECK(target.top == 0 && target.left == 0 && target.bottom == 32 && target.right == 48);
    }
}

TEST(options_that_do_not_fit_are_refused) {
    const KindFolder folder("metric_focal", "pixels");
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto refuse_camera = [&](mvde_camera camera, const char *words, int line) {
        mvde::SessionOptions options = options_of(mvde::Fit::stretch, false);
        options.camera = camera;
        expect_refused(folder, options, words, line);
    };
    refuse_camera({0, 140, 97, 63, 120, 200}, "fx of a camera lies between 0 and 1e+09, but got 0.0", __LINE__);
    refuse_camera({150, -140, 97, 63, 120, 200}, "fy of a camera lies between 0 and 1e+09, but got -140.0", __LINE__);
    refuse_camera({nan, 140, 97, 63, 120, 200}, "fx of a camera lies between 0 and 1e+09, but got nan", __LINE__);
    refuse_camera({150, 140, 97, HUGE_VAL, 120, 200}, "cy of a camera lies between -1e+09 and 1e+09, but got inf", __LINE__);
    refuse_camera({150, 140, 97, 63, 0, 200}, "height of a camera lies between 0 and 1e+09, but got 0", __LINE__);
    refuse_camera({150, 140, 97, 63, 200, 120},
                  "the camera is of frames of 200x120, but this frame is 120x200; give the camera of this frame", __LINE__);

    mvde::SessionOptions options;
    options.frame = {640, 0};
    EXPECT_REFUSED(folder, options, "options.frame_height is 640 and frame_width 0: give both, or 0 for both");
    options = {};
    options.stats = {MVDE_MEAN, 99};
    EXPECT_REFUSED(folder, options, "options.stats has 99: expected a mvde_stat");
    options.stats = {MVDE_MEAN, MVDE_MAX, MVDE_MEAN};
    EXPECT_REFUSED(folder, options, "options.stats names a column twice: mean, max, mean; give each once");
    options.stats.assign(17, MVDE_MEAN);
    EXPECT_REFUSED(folder, options, "options.num_stats is 17: expected 1 to 16 columns, or 0");
    options = {};
    options.num_threads = 257;
    EXPECT_REFUSED(folder, options, "options.num_threads is 257: expected 1 to 256, or 0");
    options = {};
    options.invalid_m = 1.0F;
    EXPECT_REFUSED(folder, options, "options.invalid_m is 1: expected NaN or 0");
    options = {};
    options.deadline_ms = -1;
    EXPECT_REFUSED(folder, options, "options.deadline_ms is -1");
}

TEST(depth_is_invalid_where_nothing_was_seen_and_comes_in_millimetres_too) {
    const KindFolder folder("metric");
    mvde::SessionOptions options = options_of(mvde::Fit::crop, false);
    Frame frame({120, 200});
    frame.fill(64);
    for (const float invalid : {std::numeric_limits<float>::quiet_NaN(), 0.0F}) {
        options.invalid_m = invalid;
        auto session = mvde::Session::open(folder.path.string(), options);
        CHECK(session, "%s", session.error().message.c_str());
        if (!session) return;
        std::vector<float> depth(session->num_depths());
        std::vector<uint16_t> with_depth(depth.size()), alone(depth.size());
        mvde::Outputs outputs;
        outputs.depth_m = depth;
        outputs.depth_mm = with_depth;
        CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
        outputs.depth_m = {};
        outputs.depth_mm = alone;
        CHECK(session->infer(frame.view, outputs), "%s", mvde_last_error());
        CHECK(with_depth == alone);
        for (int64_t y = 0; y < 120; ++y)
            for (int64_t x = 0; x < 200; ++x) {
                const auto at = static_cast<std::size_t>(y * 200 + x);
                const bool is_seen = x >= 10 && x < 190;
                CHECK(is_seen ? depth[at] == 1.5F : std::isnan(invalid) ? std::isnan(depth[at]) : depth[at] == 0.0F);
                CHECK(alone[at] == (is_seen ? 1500 : 0));
            }
    }
    auto inverse = mvde::Session::open(KindFolder("inverse_relative").path.string(), options);
    std::vector<uint16_t> millimetres(120 * 200);
    mvde::Outputs outputs;
    outputs.depth_mm = millimetres;
    const auto done = inverse->infer(frame.view, outputs);
    CHECK(!done && done.error().status == MVDE_ERROR_UNSUPPORTED &&
              done.error().message.find("needs a map in metres, but that of tiny is inverse_relative, in the unit 1/u") !=
                  std::string::npos,
          "%s", done.error().message.c_str());
}

TEST(frames_of_another_format_or_size_are_refused_in_words) {
    const KindFolder folder("metric");
    auto session = mvde::Session::open(folder.path.string());
    std::vector<uint8_t> bytes(32 * 48 * 3);
    std::vector<float> stats(18);
    const auto refuse = [&](mvde::PixelFormat format, mvde::Size size, const std::string &words) {
        const auto done = session->infer(mvde::frame(bytes.data(), format, size), {}, stats);
        CHECK(!done && done.error().status == MVDE_ERROR_SHAPE && done.error().message.find(words) != std::string::npos,
              "%s", done.error().message.c_str());
    };
    refuse(mvde::PixelFormat::nv12, {32, 48}, "the frame is 32x48 (HxW) NV12, but the session was opened for 32x48 RGB");
    refuse(mvde::PixelFormat::rgb, {48, 32}, "the frame is 48x32 (HxW) RGB, but the session was opened for 32x48 RGB");
    mvde_outputs outputs = outputs_of({}, stats);
    outputs.struct_size = 24;
    const mvde_frame frame = mvde::frame(bytes.data(), mvde::PixelFormat::rgb, {32, 48});
    CHECK(mvde_infer(session->get(), &frame, &outputs) == MVDE_ERROR_ARGUMENT);
    CHECK(std::string(mvde_last_error()) == "outputs.struct_size is 24: start from mvde_outputs_defaults()");
}

TEST(tags_come_out_with_results_and_frames_are_counted) {
    const KindFolder folder("metric");
    mvde::SessionOptions options;
    options.deadline_ms = 100;
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    Frame frame({32, 48});
    frame.fill(64);
    std::vector<float> stats(18);
    mvde::Outputs outputs;
    outputs.stats = stats;
    frame.view.tag = {123456789, 7};
    CHECK(session->infer(frame.view, outputs) && outputs.tag.timestamp_ns == 123456789 && outputs.tag.sequence == 7);
    frame.view.tag = {-1, UINT64_MAX};
    frame.bytes[1] = 255;  // takes 200 ms
    CHECK(session->infer_async(frame.view));
    frame.view.tag = {5, 6};
    CHECK(session->infer_async(frame.view).error().status == MVDE_ERROR_BUSY);
    CHECK(session->infer(frame.view, outputs).error().status == MVDE_ERROR_BUSY);
    CHECK(session->wait(outputs, 0).error().status == MVDE_ERROR_TIMEOUT);
    CHECK(session->wait(outputs) && outputs.tag.timestamp_ns == -1 && outputs.tag.sequence == UINT64_MAX);
    const mvde_session_counters counters = session->counters();
    CHECK(counters.num_frames == 2 && counters.num_late == 1 && counters.num_dropped == 2);
    frame.bytes[0] = 255;  // the device is on fire
    CHECK(!session->infer(frame.view, outputs) && session->counters().num_frames == 2);
    mvde_session_counters wrong{};
    CHECK(mvde_session_count(session->get(), &wrong) == MVDE_ERROR_ARGUMENT);
    CHECK(mvde_session_count(nullptr, &wrong) == MVDE_ERROR_ARGUMENT);
}

int main() { return harness::run_all_and_in_german(); }
