// A program that links libmvde statically contains the public classes and the library's internal ones: no name of mvde.hpp
// may be defined twice, or one class would call the other's functions. Built without optimisation, so that inline functions
// are resolved by the linker.
#include "engine_folder.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <mvde/mvde.hpp>

#include <utility>
#include <vector>

TEST(workers_of_the_public_header_share_a_call) {
    auto workers = mvde::Workers::create(3);
    CHECK(workers, "%s", workers.error().message.c_str());
    const mvde::Workers moved = std::move(*workers);
    const std::vector<float> depth(64 * 32, 2.0F);
    std::vector<float> mean(4 * 2);
    CHECK(mvde::patch_stats(mvde::depth_map(depth.data(), {64, 32}), 16, {MVDE_MEAN}, mean, moved.get()));
    CHECK(mean == std::vector<float>(8, 2.0F));
}

TEST(a_session_of_the_public_header_runs_a_frame) {
    const engine_folder::Folder folder;
    mvde::SessionOptions options;
    options.frame = {40, 60};
    options.num_threads = 2;
    auto session = mvde::Session::open(folder.path.string(), options);
    CHECK(session, "%s", session.error().message.c_str());
    if (!session) return;
    const Frame frame(options.frame);
    std::vector<float> depth(session->num_depths()), stats(session->num_stats()), again(depth.size());
    CHECK(session->infer(frame.view, depth, stats));
    CHECK(depth.size() == 40 * 60 && stats.size() == 2 * 3 * 3 && depth[0] > 0.0F);
    CHECK(session->infer_async(frame.view));
    CHECK(session->wait(again, {}));
    CHECK(again == depth);
}

int main() { return harness::run_all(); }
