// The example's shared memory under load: no reader sees a torn frame. With the arguments "publish NAME MILLISECONDS" it
// only publishes, for readers in other languages.
#include "harness.hpp"

#include "../../cpp/examples/shared_depth.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr shared_depth::Sizes kSizes{30, 41, 3, 5, 3};  // an odd number of floats

// All floats of frame i are i.
void publish(shared_depth::Publisher &publisher, std::uint64_t number, std::vector<float> &depth,
             std::vector<float> &stats) {
    std::fill(depth.begin(), depth.end(), static_cast<float>(number % 65536));
    std::fill(stats.begin(), stats.end(), static_cast<float>(number % 65536));
    publisher.publish(number, depth, stats);
}

int publish_for(const std::string &name, int milliseconds) {
    shared_depth::Publisher publisher(name, kSizes);
    if (!publisher) return 2;
    std::vector<float> depth(kSizes.num_depths()), stats(kSizes.num_floats() - kSizes.num_depths());
    const std::uint64_t end = shared_depth::now_ns() + static_cast<std::uint64_t>(milliseconds) * 1000000;
    for (std::uint64_t number = 1; shared_depth::now_ns() < end; ++number) publish(publisher, number, depth, stats);
    return 0;
}

}  // namespace

TEST(readers_under_load_see_whole_frames_and_never_an_older_one) {
    const std::string name = "mvde-test-" + std::to_string(getpid());
    shared_depth::Publisher publisher(name, kSizes);
    CHECK(publisher);
    if (!publisher) return;
    shared_depth::Reader early(name);
    std::vector<float> nothing;
    std::uint64_t time = 0;
    CHECK(early && early.read(nothing, time) == 0, "there is no frame yet");
    std::atomic<bool> is_over{false};
    std::atomic<long> num_wrong{0}, num_read{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < 2; ++i)
        readers.emplace_back([&] {
            const shared_depth::Reader reader(name);
            std::vector<float> floats;
            std::uint64_t time_ns = 0, last = 0;
            while (!is_over) {
                const std::uint64_t number = reader.read(floats, time_ns);
                if (!number) continue;
                const auto expected = static_cast<float>(number % 65536);
                const bool is_whole = std::all_of(floats.begin(),
                                                  floats.begin() + static_cast<std::ptrdiff_t>(kSizes.num_floats()),
                                                  [&](float value) { return value == expected; });
                if (!is_whole || time_ns != number || number < last) ++num_wrong;
                last = number;
                ++num_read;
            }
        });
    std::vector<float> depth(kSizes.num_depths()), stats(kSizes.num_floats() - kSizes.num_depths());
    const std::uint64_t end = shared_depth::now_ns() + 10'000'000'000;  // generous, for a busy machine
    std::uint64_t number = 0;
    while ((number < 3000 || num_read < 100) && shared_depth::now_ns() < end) publish(publisher, ++number, depth, stats);
    is_over = true;
    for (std::thread &reader : readers) reader.join();
    CHECK(num_wrong == 0 && num_read >= 100, "%ld of %ld", num_wrong.load(), num_read.load());
    shm_unlink(("/" + name).c_str());
    CHECK(!shared_depth::Reader(name), "nothing is there");
}

int main(int argc, char **argv) {
    if (argc == 4 && std::string(argv[1]) == "publish") return publish_for(argv[2], std::atoi(argv[3]));
    return harness::run_all();
}
