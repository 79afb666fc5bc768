// Handles in a child after fork(), where only the calling thread exists: calls work single-threaded or return an error
// within a second, and closing does not block.
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kHeight = 64, kWidth = 96;
constexpr int32_t kStats[] = {MVDE_MEAN, MVDE_VAR, MVDE_GRAD};

// Runs `body` in a forked child; its failed checks count in this process.
void in_child(const std::function<void()> &body, int line) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(10);
        harness::num_failures() = 0;
        body();
        std::fflush(stdout);
        _exit(harness::num_failures() ? 1 : 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "line %d: the child ended with status %d", line, status);
}

#define IN_CHILD(body) in_child(body, __LINE__)

std::vector<float> stats_with(mvde_workers *workers) {
    std::vector<float> depth(kHeight * kWidth), stats(4 * 6 * 3, -1.0F);
    for (std::size_t i = 0; i < depth.size(); ++i) depth[i] = static_cast<float>(i * 37 % 1000) * 0.01F;
    const mvde_map map{depth.data(), MVDE_FLOAT32, 0, 1, kHeight, kWidth, 0, 0, 0};
    const mvde_stats_request request{sizeof(mvde_stats_request),        16, 3, kStats, stats.data(),
                                     static_cast<int64_t>(stats.size())};
    CHECK(mvde_patch_stats(&map, 0.0F, 100.0F, &request, workers) == MVDE_OK, "%s", mvde_last_error());
    return stats;
}

}  // namespace

// Must run first, while this process has not used an inference library.
TEST(a_session_is_opened_in_a_child_alone) {
    const engine_folder::Folder folder;
    IN_CHILD([&] {
        auto session = mvde::Session::open(folder.path.string());
        CHECK(session, "%s", session.error().message.c_str());
    });
}

TEST(workers_of_the_parent_give_the_same_results_on_the_child_s_own_thread) {
    mvde_workers *workers = nullptr;
    CHECK(mvde_workers_create(3, &workers) == MVDE_OK);
    const std::vector<float> expected = stats_with(workers);
    IN_CHILD([&] {
        CHECK(stats_with(workers) == expected);
        mvde_workers_destroy(workers);
    });
    CHECK(stats_with(workers) == expected);
    mvde_workers_destroy(workers);
}

TEST(workers_that_were_busy_at_the_fork_are_free_in_the_child) {
    mvde_workers *workers = nullptr;
    CHECK(mvde_workers_create(2, &workers) == MVDE_OK);
    std::atomic<bool> stops{false};
    std::thread caller([&] {
        while (!stops) stats_with(workers);
    });
    for (int repeat = 0; repeat < 10; ++repeat)
        IN_CHILD([&] {
            stats_with(workers);
            mvde_workers_destroy(workers);
        });
    stops = true;
    caller.join();
    mvde_workers_destroy(workers);
}

TEST(a_session_of_the_parent_says_so_in_the_child_and_closes) {
    const engine_folder::Folder folder;
    auto session = mvde::Session::open(folder.path.string());
    CHECK(session, "%s", session.error().message.c_str());
    Frame frame({32, 48});
    std::vector<float> depth(32 * 48);
    mvde_outputs outputs = outputs_of(depth, {});
    CHECK(mvde_infer(session->get(), &frame.view, &outputs) == MVDE_OK);
    CHECK(mvde_infer_async(session->get(), &frame.view) == MVDE_OK);
    IN_CHILD([&] {
        const auto started = std::chrono::steady_clock::now();
        CHECK(mvde_wait(session->get(), -1, &outputs) == MVDE_ERROR_FORKED);
        CHECK(mvde_infer(session->get(), &frame.view, &outputs) == MVDE_ERROR_FORKED);
        CHECK(std::strstr(mvde_session_error(session->get()), "the threads of OpenVINO do not survive that: start the child "
                                                              "by exec (in Python: spawn)"));
        auto second = mvde::Session::open(folder.path.string());
        CHECK(!second && second.error().status == MVDE_ERROR_FORKED);
        CHECK(second.error().message.find("OpenVINO was used before this process was forked") != std::string::npos, "%s",
              second.error().message.c_str());
        mvde_close(session->get());
        CHECK(mvde_infer(session->get(), &frame.view, &outputs) == MVDE_ERROR_CLOSED);
        CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(1));
    });
    CHECK(mvde_wait(session->get(), -1, &outputs) == MVDE_OK);
}

int main() { return harness::run_all(); }
