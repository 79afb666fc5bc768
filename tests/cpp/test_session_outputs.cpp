// Sessions of networks with a sky, a mask and a confidence beside depth. The fake backend computes them as red, green and
// blue / 255, and depth as 0.5 + (red + green + blue) / 192; frames have the network's size, so that pixels stay themselves.
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kPixels = 32 * 48;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Roles in the order of the manifest's outputs; the fake backend knows them by their names.
struct RolesFolder : engine_folder::Folder {
    explicit RolesFolder(const std::vector<std::string> &roles, bool is_inverse = false, const char *stats = R"("mean")") {
        std::string outputs = engine_folder::kDepthOutput;
        outputs.pop_back();
        for (const std::string &role : roles)
            outputs += R"(, {"name": ")" + role + R"(", "shape": [1, 32, 48], "dtype": "float32", "role": ")" + role + '"' +
                       (role == "confidence" ? "}" : R"(, "threshold": 0.5})");
        std::string text = engine_folder::with(engine_folder::manifest(content), engine_folder::kDepthOutput, outputs + "]");
        text = engine_folder::with(text, R"(["mean", "var", "grad"])", "[" + std::string(stats) + "]");
        if (is_inverse)
            text = engine_folder::with(text, R"("depth_kind": "metric", "unit": "m")",
                                       R"("depth_kind": "inverse_relative", "unit": "1/u")");
        write("engine.json", text);
    }
};

// The left third of the frame is sky, the middle third is masked (green is dark) but for the rows from 16 on, the right third
// is neither. Blue grows along the rows.
Frame frame() {
    Frame one({32, 48});
    for (std::size_t i = 0; i < kPixels; ++i) {
        const std::size_t third = i % 48 / 16, y = i / 48;
        one.bytes[3 * i] = third == 0 ? 200 : 10;
        one.bytes[3 * i + 1] = third == 1 && y < 16 ? 20 : 250;
        one.bytes[3 * i + 2] = static_cast<std::uint8_t>(4 * y);
    }
    return one;
}

float depth_of(const Frame &frame, std::size_t i) {
    return 0.5F + static_cast<float>(frame.bytes[3 * i] + frame.bytes[3 * i + 1] + frame.bytes[3 * i + 2]) / 192.0F;
}

enum class Seen { depth, sky, nothing };

bool is(float value, Seen seen, float depth) {
    if (seen == Seen::sky) return value == kInfinity;
    return seen == Seen::nothing ? std::isnan(value) : value == depth;
}

mvde::SessionOptions with_stats(std::vector<int32_t> stats) {
    mvde::SessionOptions options;
    options.stats = std::move(stats);
    return options;
}

}  // namespace

TEST(sky_is_infinitely_far_and_a_mask_leaves_nothing) {
    const std::vector<std::string> cases[] = {{"sky"}, {"mask"}, {"confidence", "sky", "mask"}, {"mask", "sky"}};
    const Frame given = frame();
    for (const auto &roles : cases) {
        const bool has_sky = roles != std::vector<std::string>{"mask"}, has_mask = roles.size() > 1 || !has_sky;
        const RolesFolder folder(roles);
        auto session = mvde::Session::open(folder.path.string(), with_stats({MVDE_VALID, MVDE_MAX}));
        CHECK(session, "%s", session.error().message.c_str());
        if (!session) return;
        std::vector<float> depth(kPixels), stats(12);
        std::vector<uint16_t> millimetres(kPixels);
        mvde::Outputs outputs{depth, stats, millimetres, {}};
        for (int i = 0; i < 2; ++i) CHECK(session->infer(given.view, outputs), "%s", mvde_last_error());
        int num_wrong = 0;
        for (std::size_t i = 0; i < kPixels; ++i) {
            const std::size_t third = i % 48 / 16;
            const bool is_sky = has_sky && third == 0, is_masked = has_mask && third == 1 && i / 48 < 16;
            const float expected = depth_of(given, i);
            num_wrong += !is(depth[i], is_sky ? Seen::sky : is_masked ? Seen::nothing : Seen::depth, expected);
            num_wrong += millimetres[i] != (is_sky || is_masked ? 0 : std::lrint(expected * 1000));
        }
        CHECK(num_wrong == 0, "%zu outputs: %d pixels", roles.size(), num_wrong);
        // Patches: sky above and below, masked and not, neither.
        const float none = has_sky ? 0 : 1, valid[] = {none, has_mask ? 0.0F : 1.0F, 1, none, 1, 1};
        for (std::size_t patch = 0; patch < 6; ++patch) {
            CHECK(stats[2 * patch] == valid[patch], "patch %zu: %g", patch, static_cast<double>(stats[2 * patch]));
            const float largest = depth_of(given, (patch / 3 * 16 + 15) * 48 + patch % 3 * 16);
            CHECK(stats[2 * patch + 1] == (valid[patch] ? largest : 0));
        }
    }
}

TEST(zero_stands_for_sky_and_nothing_where_the_user_cannot_read_nan) {
    const RolesFolder folder({"sky", "mask"});
    mvde::SessionOptions options;
    options.invalid_m = 0.0F;
    auto session = mvde::Session::open(folder.path.string(), options);
    const Frame given = frame();
    std::vector<float> depth(kPixels);
    CHECK(session && session->infer(given.view, depth, {}), "%s", mvde_last_error());
    for (std::size_t i = 0; i < kPixels; ++i)
        CHECK(depth[i] == (i % 48 < 16 || (i % 48 < 32 && i / 48 < 16) ? 0 : depth_of(given, i)));
}

TEST(an_inverse_map_is_zero_in_the_sky_and_nan_where_it_is_masked) {
    const Frame given = frame();
    for (const auto &roles : {std::vector<std::string>{"sky", "mask"}, {"mask"}}) {
        const RolesFolder folder(roles, true);
        auto session = mvde::Session::open(folder.path.string());
        std::vector<float> map(kPixels);
        CHECK(session && session->infer(given.view, map, {}), "%s", mvde_last_error());
        for (std::size_t i = 0; i < kPixels; ++i) {
            if (i % 48 < 16 && roles.size() == 2) CHECK(map[i] == 0);
            else
                CHECK(is(map[i], i % 48 >= 16 && i % 48 < 32 && i / 48 < 16 ? Seen::nothing : Seen::depth,
                         depth_of(given, i)));
        }
    }
}

TEST(confidence_is_a_column_of_its_mean_over_valid_pixels) {
    const RolesFolder folder({"sky", "confidence"});
    auto session = mvde::Session::open(folder.path.string(), with_stats({MVDE_CONF, MVDE_MEAN}));
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    CHECK(session->info().stats[0] == MVDE_CONF);
    const Frame given = frame();
    std::vector<float> stats(12);
    CHECK(session->infer(given.view, {}, stats), "%s", mvde_last_error());
    const RolesFolder stated({"sky", "confidence"}, false, R"("conf", "mean")");
    auto by_manifest = mvde::Session::open(stated.path.string());
    std::vector<float> same(12);
    CHECK(by_manifest && by_manifest->infer(given.view, {}, same) && same == stats, "%s", mvde_last_error());
    // Rows 0 to 15 have blue 0, 4, ... 60: 30 on average; rows 16 to 31 64 more. There is none in the sky.
    const double expected[] = {0, 30. / 255, 30. / 255, 0, 94. / 255, 94. / 255};
    for (std::size_t patch = 0; patch < 6; ++patch)
        CHECK(std::abs(static_cast<double>(stats[2 * patch]) - expected[patch]) < 1e-6, "patch %zu: %g", patch,
              static_cast<double>(stats[2 * patch]));
}

TEST(a_column_of_confidence_needs_a_network_that_gives_one) {
    const RolesFolder folder({"sky"});
    const auto session = mvde::Session::open(folder.path.string(), with_stats({MVDE_MEAN, MVDE_CONF}));
    const std::string message = session.error().message;
    CHECK(!session && session.error().status == MVDE_ERROR_ARGUMENT);
    const auto stated = mvde::Session::open(RolesFolder({"sky"}, false, R"("mean", "conf")").path.string());
    CHECK(!stated && stated.error().status == MVDE_ERROR_MANIFEST);
    CHECK(stated.error().message.find(
              "stats is ('mean', 'conf'), but expected some of mean, var, grad, min, max, valid, each") != std::string::npos,
          "%s", stated.error().message.c_str());
    CHECK(message.find("options.stats has MVDE_CONF, which needs a network's confidence, but tiny has none") !=
              std::string::npos,
          "%s", message.c_str());
}

TEST(padding_has_no_sky_and_no_confidence) {
    const RolesFolder folder({"sky", "confidence"});
    mvde::SessionOptions options = with_stats({MVDE_VALID, MVDE_CONF});
    options.fit = mvde::Fit::letterbox;
    options.frame = {32, 16};  // in the middle third of the input
    auto session = mvde::Session::open(folder.path.string(), options);
    Frame given({32, 16});
    given.fill(100);
    std::vector<float> depth(32 * 16), stats(12);
    CHECK(session && session->infer(given.view, depth, stats), "%s", mvde_last_error());
    for (const float value : depth) CHECK(value == 0.5F + 300 / 192.0F);
    for (std::size_t patch = 0; patch < 6; ++patch) {
        CHECK(stats[2 * patch] == (patch % 3 == 1));
        CHECK(std::abs(static_cast<double>(stats[2 * patch + 1]) - (patch % 3 == 1 ? 100 / 255. : 0)) < 1e-6);
    }
}

int main() { return harness::run_all(); }
