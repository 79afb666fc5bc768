// Thread safety of handles, as documented in the header; also run under ThreadSanitizer. Also: no allocation per frame.
#include "counting_allocator.hpp"
#include "harness.hpp"

#include "mvde/mvde.hpp"

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int32_t kStats[] = {MVDE_MEAN, MVDE_VAR, MVDE_GRAD, MVDE_VALID};
constexpr int64_t kHeight = 64, kWidth = 96;

struct Frame {
    std::vector<float> depth = std::vector<float>(kHeight * kWidth), metres = depth, back = std::vector<float>(50 * 70);
    std::vector<float> stats = std::vector<float>(4 * 6 * 4);
    std::vector<uint8_t> image = std::vector<uint8_t>(50 * 70 * 3), rgb = std::vector<uint8_t>(kHeight * kWidth * 3);

    explicit Frame(int seed) {
        for (std::size_t i = 0; i < depth.size(); ++i)
            depth[i] = static_cast<float>((i * 2654435761U + static_cast<unsigned>(seed)) % 1000) * 0.01F +
                       (seed % 2 ? 0.01F : 0.0F);  // 0 m is invalid and takes another path through the kernel
        for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<uint8_t>(i * 31 + static_cast<unsigned>(seed));
    }

    int32_t run(mvde_resizer *resizer, mvde_workers *workers) {
        const mvde_frame frame = mvde::frame(image.data(), mvde::PixelFormat::bgr, {50, 70});
        const mvde_map raw{depth.data(), MVDE_FLOAT32, 0, 1, kHeight, kWidth, 0, 0, 0};
        const mvde_map out{metres.data(), MVDE_FLOAT32, 0, 1, kHeight, kWidth, 0, 0, 0};
        const mvde_stats_request request{sizeof(mvde_stats_request),        16, 4, kStats, stats.data(),
                                         static_cast<int64_t>(stats.size())};
        int32_t status = mvde_resize(resizer, &frame, rgb.data(), 0, workers);
        if (!status) status = mvde_postprocess(&raw, nullptr, &out, &request, workers);
        if (!status) status = mvde_depth_to_source(resizer, depth.data(), 0, back.data(), 0, 0.0F, workers);
        return status;
    }
};

mvde_resizer *new_resizer() {
    mvde_resizer *resizer = nullptr;
    mvde_resizer_options options;
    mvde_resizer_defaults(&options);
    options.fit = MVDE_CROP;
    CHECK(mvde_resizer_create(MVDE_BGR, 50, 70, kHeight, kWidth, &options, &resizer) == MVDE_OK);
    return resizer;
}

mvde_workers *new_workers(int num_threads) {
    mvde_workers *workers = nullptr;
    CHECK(mvde_workers_create(num_threads, &workers) == MVDE_OK);
    return workers;
}

}  // namespace

TEST(threads_with_handles_of_their_own_get_the_results_of_one) {
    Frame expected(1);
    mvde_resizer *resizer = new_resizer();
    CHECK(expected.run(resizer, nullptr) == MVDE_OK);
    mvde_resizer_destroy(resizer);
    std::atomic<int> num_different{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            mvde_resizer *own = new_resizer();
            mvde_workers *workers = new_workers(1 + t % 3);
            for (int repeat = 0; repeat < 30; ++repeat) {
                Frame frame(1);
                if (frame.run(own, workers) != MVDE_OK || frame.stats != expected.stats || frame.rgb != expected.rgb ||
                    frame.back != expected.back)
                    ++num_different;
            }
            mvde_workers_destroy(workers);
            mvde_resizer_destroy(own);
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(num_different == 0, "%d frames differ", num_different.load());
}

TEST(a_shared_handle_is_refused_while_busy_and_never_torn) {
    Frame expected(2);
    mvde_resizer *resizer = new_resizer();
    mvde_workers *workers = new_workers(3);
    CHECK(expected.run(resizer, workers) == MVDE_OK);
    std::atomic<int> num_wrong{0}, num_done{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (int repeat = 0; repeat < 50; ++repeat) {
                Frame frame(2);
                const int32_t status = frame.run(resizer, workers);
                if (status == MVDE_OK) ++num_done;
                if (status != MVDE_ERROR_BUSY &&
                    (status != MVDE_OK || frame.rgb != expected.rgb || frame.stats != expected.stats))
                    ++num_wrong;
            }
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(num_wrong == 0 && num_done > 0, "%d wrong, %d done", num_wrong.load(), num_done.load());
    mvde_workers_destroy(workers);
    mvde_resizer_destroy(resizer);
}

TEST(a_frame_allocates_nothing) {
    Frame frame(3);
    mvde_resizer *resizer = new_resizer();
    mvde_workers *workers = new_workers(2);
    CHECK(frame.run(resizer, workers) == MVDE_OK);
    const long before = num_allocations.load();
    CHECK(before > 0, "the counter does not count");
    for (int repeat = 0; repeat < 10; ++repeat) CHECK(frame.run(resizer, workers) == MVDE_OK);
    CHECK(mvde_patch_stats(nullptr, 0, 1, nullptr, workers) != MVDE_OK);  // errors do not allocate either
    CHECK(num_allocations.load() == before, "%ld allocations", num_allocations.load() - before);
    mvde_workers_destroy(workers);
    mvde_resizer_destroy(resizer);
}

TEST(handles_that_were_destroyed_are_recognised) {
    Frame frame(4);
    mvde_resizer *resizer = new_resizer(), *next = nullptr;
    mvde_workers *workers = new_workers(2);
    mvde_resizer_destroy(resizer);
    CHECK(frame.run(resizer, nullptr) == MVDE_ERROR_CLOSED);
    CHECK(std::strstr(mvde_last_error(), "the resizer was destroyed, or did not come from mvde_resizer_create"));
    mvde_box box;
    CHECK(mvde_resizer_boxes(resizer, &box, nullptr) == MVDE_ERROR_CLOSED);
    CHECK(mvde_depth_to_source(resizer, frame.depth.data(), 0, frame.back.data(), 0, 0.0F, nullptr) == MVDE_ERROR_CLOSED);
    mvde_resizer_destroy(resizer);
    next = new_resizer();
    CHECK(next != resizer && frame.run(next, workers) == MVDE_OK);
    mvde_workers_destroy(workers);
    CHECK(frame.run(next, workers) == MVDE_ERROR_CLOSED);
    CHECK(std::strstr(mvde_last_error(), "the workers were destroyed, or did not come from mvde_workers_create"));
    mvde_workers_destroy(workers);
    mvde_resizer_destroy(next);
    mvde_resizer_destroy(reinterpret_cast<mvde_resizer *>(&frame));  // not a handle
}

int main() { return harness::run_all(); }
