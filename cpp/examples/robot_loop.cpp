// A robot's main loop: reads camera frames, publishes depth and statistics to other processes, within a time budget.
//
//     ffmpeg -f v4l2 -i /dev/video0 -f rawvideo -pix_fmt rgb24 - | robot_loop ENGINE_FOLDER HEIGHT WIDTH BUDGET_MS NAME
//
// Reads raw RGB frames from standard input (a pipe or a file) and publishes results as /dev/shm/NAME (see shared_depth.hpp;
// read_depth.py reads them). A frame that exceeds the budget is counted and reported, and the frames that arrived meanwhile
// are skipped, to keep the published results as recent as possible.
#include "shared_depth.hpp"

#include <mvde/mvde.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

int report(const std::string &message) { return std::fprintf(stderr, "robot_loop: %s\n", message.c_str()), 1; }

// Reads one frame. Returns false at the end of the input; reports a truncated frame, which also indicates wrong sizes.
bool read_frame(std::vector<uint8_t> &rgb) {
    const std::size_t count = std::fread(rgb.data(), 1, rgb.size(), stdin);
    if (count > 0 && count < rgb.size())
        std::fprintf(stderr, "robot_loop: the input ended after %zu of a frame's %zu bytes\n", count, rgb.size());
    return count == rgb.size();
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 6) return report("usage: robot_loop ENGINE_FOLDER HEIGHT WIDTH BUDGET_MS NAME < raw RGB frames");
    mvde::SessionOptions options;
    options.frame = {std::atoi(argv[2]), std::atoi(argv[3])};
    options.fit = mvde::Fit::letterbox;
    const int64_t budget_ms = std::atoi(argv[4]);
    options.deadline_ms = budget_ms;
    if (budget_ms < 1) return report(std::string(argv[4]) + " is not a budget: give milliseconds, 1 or more");
    auto session = mvde::Session::open(argv[1], options);
    if (!session) return report(session.error().message);

    const mvde_session_info info = session->info();
    const shared_depth::Sizes sizes{info.frame_height, info.frame_width, info.grid_rows, info.grid_columns, info.num_stats};
    shared_depth::Publisher publisher(argv[5], sizes);
    if (!publisher) return report("cannot create the shared memory /dev/shm/" + std::string(argv[5]));
    std::vector<uint8_t> rgb(session->num_depths() * 3);
    std::vector<float> depth_m(session->num_depths()), stats(session->num_stats());

    mvde::Outputs outputs;
    outputs.depth_m = depth_m;
    outputs.stats = stats;

    uint64_t num_read = 0;
    int64_t num_late = 0;
    long long num_passed = 0;
    while (read_frame(rgb)) {
        mvde_frame frame = mvde::frame(rgb.data(), options.format, options.frame);
        frame.tag = {static_cast<int64_t>(shared_depth::now_ns()), ++num_read};  // comes out with the results
        if (auto begun = session->infer_async(frame); !begun) return report(begun.error().message);
        auto done = session->wait(outputs, budget_ms);  // time for other work, up to the budget
        if (!done && done.error().status == MVDE_ERROR_TIMEOUT) done = session->wait(outputs);
        if (!done) return report(done.error().message);
        const auto taken_ns = static_cast<uint64_t>(outputs.tag.timestamp_ns);
        const uint64_t took_ns = shared_depth::now_ns() - taken_ns;
        publisher.publish(taken_ns, depth_m, stats);

        const mvde_session_counters counters = session->counters();
        if (counters.num_late == num_late) continue;
        num_late = counters.num_late;
        const double took_ms = static_cast<double>(took_ns) / 1e6;
        const auto num_missed = static_cast<long long>(took_ms / static_cast<double>(budget_ms));
        std::fprintf(stderr, "robot_loop: frame %lld took %.1f ms of %lld: %lld late so far, skipping %lld\n",
                     static_cast<long long>(outputs.tag.sequence), took_ms, static_cast<long long>(budget_ms),
                     static_cast<long long>(num_late), num_missed);
        for (long long i = 0; i < num_missed && read_frame(rgb); ++i) ++num_passed;
    }
    const auto num_frames = static_cast<long long>(session->counters().num_frames);
    std::printf("%lld frames published, %lld of them late, %lld skipped; %s %s, %s\n", num_frames,
                static_cast<long long>(num_late), num_passed, info.name, info.engine_id, info.execution);
    return num_frames > 0 ? 0 : report("no frame received");
}
