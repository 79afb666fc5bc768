// Engines with a deadline: the policy's handles, and groups of sessions with the fake backend.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace {

using engine_folder::Folder;

std::string replaced(std::string text, const std::string &from, const std::string &to) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
        text.replace(at, from.size(), to);
    return text;
}

// A manifest of the tiny model at twice the resolution.
std::string larger(const Folder &folder) {
    return replaced(replaced(engine_folder::manifest(folder.content), "32, 48", "64, 96"), "[2, 3]", "[4, 6]");
}

// The tiny model at 32x48 and at 64x96.
struct Engines {
    Engines() { large.write("engine.json", larger(large)); }
    std::vector<std::string> paths() const { return {large.path.string(), small.path.string()}; }
    Folder small, large;
};

void expect_refused(const std::vector<std::string> &paths, const std::string &words, int line, double deadline_ms = 33.0,
                    mvde::Size grid = {}) {
    mvde::SessionOptions options;
    options.frame = {48, 64};
    auto group = mvde::Group::open(paths, deadline_ms, options, grid);
    CHECK(!group, "line %d: it was opened", line);
    if (group) return;
    const std::string message = group.error().message;
    CHECK(group.error().status == MVDE_ERROR_ARGUMENT, "line %d: got %d", line, group.error().status);
    CHECK(message.find(words) != std::string::npos, "line %d: '%s' is not in '%s'", line, words.c_str(), message.c_str());
}

}  // namespace

TEST(a_policy_chooses_and_counts) {
    const double costs[]{8.0, 20.0};
    mvde_deadline *policy = nullptr;
    CHECK(mvde_deadline_create(costs, 2, 33.0, &policy) == MVDE_OK);
    int32_t index = -1;
    CHECK(mvde_deadline_choose(policy, 0.0, &index) == MVDE_OK && index == 1);
    CHECK(mvde_deadline_observe(policy, index, 40.0, 43.0, 0.0) == MVDE_OK);
    CHECK(mvde_deadline_choose(policy, 0.0, &index) == MVDE_OK && index == 0);
    mvde_deadline_counters counters{};
    counters.struct_size = sizeof counters;
    CHECK(mvde_deadline_count(policy, &counters) == MVDE_OK);
    CHECK(counters.num_frames == 1 && counters.num_late == 1 && counters.num_unheld == 0 && counters.num_switches == 1);
    for (int i = 0; i < 10; ++i) CHECK(mvde_deadline_observe(policy, 0, 40.0, 43.0, 0.0) == MVDE_OK);
    CHECK(mvde_deadline_count(policy, &counters) == MVDE_OK && counters.is_unheld == 1 && counters.num_unheld == 10);
    mvde_deadline_destroy(policy);
    CHECK(mvde_deadline_choose(policy, 0.0, &index) == MVDE_ERROR_CLOSED);
    mvde_deadline_destroy(nullptr);
}

TEST(wrong_arguments_of_a_policy_are_refused) {
    const double costs[]{8.0, 20.0}, wrong[]{8.0, 0.0};
    mvde_deadline *policy = nullptr;
    const auto refused = [&](int32_t status, const char *words, int line) {
        CHECK(status == MVDE_ERROR_ARGUMENT, "line %d: got %d", line, status);
        CHECK(std::string(mvde_last_error()).find(words) != std::string::npos, "line %d: %s", line, mvde_last_error());
    };
    refused(mvde_deadline_create(nullptr, 2, 33.0, &policy), "costs_ms is NULL", __LINE__);
    refused(mvde_deadline_create(costs, 2, 33.0, nullptr), "policy is NULL", __LINE__);
    refused(mvde_deadline_create(costs, 0, 33.0, &policy), "a deadline chooses among 1 to 16 engines, but got 0", __LINE__);
    refused(mvde_deadline_create(wrong, 2, 33.0, &policy), "a number of milliseconds above 0, but got 0", __LINE__);
    refused(mvde_deadline_create(costs, 2, NAN, &policy), "a deadline is a number of milliseconds above 0, but got nan",
            __LINE__);
    CHECK(mvde_deadline_create(costs, 2, 33.0, &policy) == MVDE_OK);
    int32_t index = 0;
    mvde_deadline_counters counters{};
    refused(mvde_deadline_choose(policy, -1.0, &index), "age_ms is -1: expected milliseconds, 0 or more", __LINE__);
    refused(mvde_deadline_choose(policy, 0.0, nullptr), "policy or index is NULL", __LINE__);
    refused(mvde_deadline_observe(policy, 2, 1.0, 1.0, 0.0), "index is 2: there are 2 engines", __LINE__);
    refused(mvde_deadline_observe(policy, 0, NAN, 1.0, 0.0), "network_ms is nan", __LINE__);
    refused(mvde_deadline_count(policy, &counters), "counters.struct_size is 0", __LINE__);
    mvde_deadline_destroy(policy);
}

TEST(a_group_gives_what_its_sessions_give_on_one_grid) {
    const Engines engines;
    mvde::SessionOptions options;
    options.frame = {48, 64};
    options.stats = {MVDE_MEAN, MVDE_GRAD, MVDE_MAX};
    auto group = mvde::Group::open(engines.paths(), 5000.0, options);
    CHECK(static_cast<bool>(group), "%s", group.error().message.c_str());
    if (!group) return;
    auto alone = mvde::Session::open(engines.large.path.string(), options);
    CHECK(static_cast<bool>(alone));
    const Frame frame({48, 64});
    std::vector<float> depth(48 * 64), expected(depth), stats(6 * 3), fine(24 * 3);
    mvde::Outputs outputs{{depth.data(), depth.size()}, {stats.data(), stats.size()}, {}, {}};
    int32_t index = -1;
    CHECK(static_cast<bool>(group->infer(frame.view, outputs, 0.0, &index)));
    CHECK(index == 1);
    CHECK(static_cast<bool>(alone->infer(frame.view, {expected.data(), expected.size()}, {fine.data(), fine.size()})));
    CHECK(depth == expected);
    for (std::size_t patch = 0; patch < 6; ++patch) {  // 32x32 pixels: the mean of four patches of 16x16
        const std::size_t at = patch / 3 * 12 + patch % 3 * 2;
        const auto mean_of = [&](std::size_t column) {
            return (fine[at * 3 + column] + fine[(at + 1) * 3 + column] + fine[(at + 6) * 3 + column] +
                    fine[(at + 7) * 3 + column]) /
                   4;
        };
        CHECK(std::abs(stats[patch * 3] - mean_of(0)) < 1e-5F);
        CHECK(std::abs(stats[patch * 3 + 1] - 2 * mean_of(1)) < 1e-5F, "per pixel of the smallest resolution");
    }
    CHECK(static_cast<bool>(group->infer(frame.view, outputs, 4999.0, &index)));
    CHECK(index == 0, "no time is left");
    CHECK(group->info(0).model_height == 32 && group->info(1).model_height == 64);
    for (int32_t i = 0; i < 2; ++i) {
        CHECK(group->info(i).grid_rows == 2 && group->info(i).grid_columns == 3);
        CHECK(group->engine(i).cost_ms > 0.0 && group->engine(i).memory_bytes >= 0 && group->engine(i).num_frames == 1);
    }
    CHECK(group->counters().num_frames == 2 && group->counters().num_switches == 1);
}

TEST(a_slow_frame_is_followed_by_a_smaller_engine) {
    const Engines engines;
    mvde::SessionOptions options;
    options.frame = {32, 48};
    auto group = mvde::Group::open(engines.paths(), 150.0, options);
    CHECK(static_cast<bool>(group), "%s", group.error().message.c_str());
    if (!group) return;
    Frame frame({32, 48});
    frame.fill(10);
    std::vector<float> depth(32 * 48);
    mvde::Outputs outputs{{depth.data(), depth.size()}, {}, {}, {}};
    int32_t index = -1;
    CHECK(static_cast<bool>(group->infer(frame.view, outputs, 0.0, &index)) && index == 1);
    for (std::size_t i = 1; i < 12; i += 3) frame.bytes[i] = 255, frame.bytes[i + 48 * 3] = 255;  // takes 200 ms
    CHECK(static_cast<bool>(group->infer(frame.view, outputs, 0.0, &index)) && index == 1);
    frame.fill(10);
    CHECK(static_cast<bool>(group->infer(frame.view, outputs, 0.0, &index)) && index == 0);
    CHECK(group->counters().num_late == 1 && group->counters().num_unheld == 0);
    const long before = num_allocations;
    for (int i = 0; i < 20; ++i) CHECK(static_cast<bool>(group->infer(frame.view, outputs, 0.0, &index)));
    CHECK(num_allocations == before, "a frame allocates");
}

TEST(steady_depth_goes_on_over_a_switch) {
    const Engines engines;
    mvde::SessionOptions options;
    options.frame = {48, 64};
    mvde_stabilization settings;
    mvde_stabilization_defaults(&settings);
    options.stabilization = settings;
    auto group = mvde::Group::open(engines.paths(), 5000.0, options);
    CHECK(static_cast<bool>(group), "%s", group.error().message.c_str());
    if (!group) return;
    const Frame frame({48, 64});
    std::vector<float> depth(48 * 64);
    mvde::Outputs outputs{{depth.data(), depth.size()}, {}, {}, {}};
    int32_t index = -1;
    for (int32_t number = 1; number <= 4; ++number) {
        const double age_ms = number >= 3 ? 4999.0 : 0.0;  // no time is left: the smallest engine
        CHECK(static_cast<bool>(group->infer(frame.view, outputs, age_ms, &index)));
        CHECK(index == (number < 3) && outputs.num_steady == number, "frame %d: %d, %d", number, index, outputs.num_steady);
    }
    CHECK(static_cast<bool>(group->reset()));
    CHECK(static_cast<bool>(group->infer(frame.view, outputs)) && outputs.num_steady == 1);
}

TEST(engines_that_do_not_belong_together_are_refused) {
    const Engines engines;
    const Folder other;
    const std::string small = engines.small.path.string(), large = engines.large.path.string(), odd = other.path.string();
    const auto write = [&](const std::string &from, const std::string &to) {
        other.write("engine.json", engine_folder::with(larger(other), from, to));
    };
    expect_refused({small, small}, "two engines are of 32x48; give one of each resolution", __LINE__);
    write("\"name\": \"tiny\"", "\"name\": \"other\"");
    expect_refused({odd, small},
                   "tiny 32x48 openvino:fp32 and other 64x96 openvino:fp32 differ in model: tiny and other; engines with "
                   "a deadline are of one model",
                   __LINE__);
    write("\"metric\", \"unit\": \"m\"", "\"scale_invariant\", \"unit\": \"1\"");
    expect_refused({odd, small}, "differ in kind: metric and scale_invariant; engines", __LINE__);
    write("\"name\": \"shipped\", \"sha256\": \"\"", "\"name\": \"shipped\", \"sha256\": \"00112233445566\"");
    expect_refused({odd, small}, "differ in weights:  and 001122334455; engines", __LINE__);
    write("\"padding\": 128", "\"padding\": 0");
    expect_refused({odd, small}, "differ in preprocessing; engines", __LINE__);
    other.write("engine.json", replaced(replaced(larger(other), "64, 96", "64, 64"), "[4, 6]", "[4, 4]"));
    expect_refused({odd, small}, "32x48 and 64x64 differ in aspect, so no grid of square patches fits both; build",
                   __LINE__);
    expect_refused({large, small},
                   "a grid of 3x3 does not divide 32x48, 64x96 into square patches; the nearest that do: 4x6, 2x3, 8x12",
                   __LINE__, 33.0, {3, 3});
    expect_refused({large, small}, "a deadline is a number of milliseconds above 0, but got 0", __LINE__, 0.0);
    CHECK(mvde::Group::open(engines.paths(), 33.0).error().message.find("give the size of the frames") != std::string::npos);
    expect_refused({}, "engine_paths is NULL, or num_engines, 0, below 1", __LINE__);
    expect_refused({small}, "the grid is 2x0: give rows and columns, or 0 for both", __LINE__, 33.0, {2, 0});
}

int main() { return harness::run_all_and_in_german(); }
