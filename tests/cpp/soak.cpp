// A session over many frames: soak ENGINE_FOLDER FRAMES WARM_UP. Prints the process's state after the warm-up, at half of
// the frames and at the end, each as one line of JSON. benchmarks/soak.py judges them.
#include <mvde/mvde.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int64_t height = 480, width = 640;
constexpr int num_pictures = 8;

int report(const std::string &message) {
    std::fprintf(stderr, "soak: %s\n", message.c_str());
    return 1;
}

// A field of smaps_rollup in kB.
long memory_kb(const std::string &name) {
    std::ifstream stream("/proc/self/smaps_rollup");
    for (std::string line; std::getline(stream, line);)
        if (line.rfind(name + ":", 0) == 0) return std::atol(line.c_str() + name.size() + 1);
    return -1;
}

long num_entries(const char *folder) {
    return static_cast<long>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

void print_state(long frames, double mean) {
    std::printf(
        "{\"frames\": %ld, \"rss_kb\": %ld, \"pss_kb\": %ld, \"anonymous_kb\": %ld, \"descriptors\": %ld, \"threads\": %ld, "
        "\"seconds\": %.3f, \"mean\": %.6f}\n",
        frames, memory_kb("Rss"), memory_kb("Pss"), memory_kb("Anonymous"), num_entries("/proc/self/fd"),
        num_entries("/proc/self/task"),
        std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(), mean);
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 4) return report("usage: soak ENGINE_FOLDER FRAMES WARM_UP");
    const long frames = std::atol(argv[2]), warm_up = std::atol(argv[3]);
    std::mt19937 random(0);
    std::vector<std::vector<uint8_t>> pictures(num_pictures, std::vector<uint8_t>(height * width * 3));
    for (auto &picture : pictures)
        for (auto &value : picture) value = static_cast<uint8_t>(random());

    mvde::SessionOptions options;
    options.frame = {height, width};
    auto session = mvde::Session::open(argv[1], options);
    if (!session) return report(session.error().message);
    std::vector<float> depth(session->num_depths()), stats(session->num_stats());
    mvde_frame frame;
    mvde_frame_defaults(&frame);
    frame.height = height;
    frame.width = width;
    for (long done = 0; done <= warm_up + frames; ++done) {
        if (done == warm_up || done == warm_up + frames / 2 || done == warm_up + frames)
            print_state(done - warm_up, stats[0]);
        frame.data = pictures[static_cast<std::size_t>(done % num_pictures)].data();
        if (auto result = session->infer(frame, depth, stats); !result) return report(result.error().message);
    }
    return 0;
}
