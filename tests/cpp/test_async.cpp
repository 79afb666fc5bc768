// Frames in flight and handle lifetimes, with the fake backend; also run under sanitizers.
#include "counting_allocator.hpp"
#include "engine_folder.hpp"
#include "handles.hpp"
#include "harness.hpp"
#include "session_frame.hpp"

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using engine_folder::Folder;

struct Opened {
    Opened() : session(mvde::Session::open(folder.path.string())), frame({32, 48}), depth(32 * 48), stats(18) {
        CHECK(session, "%s", session.error().message.c_str());
        frame.fill(64);
    }
    mvde_session *handle() { return session->get(); }
    mvde_outputs outputs() { return outputs_of(depth, stats); }
    void check_depth(float expected, int line) {
        CHECK(std::all_of(depth.begin(), depth.end(), [&](float value) { return value == expected; }), "line %d: %g", line,
              depth[0]);
        CHECK(stats[0] == expected, "line %d: %g", line, stats[0]);
    }

    Folder folder;
    mvde::Result<mvde::Session> session;
    Frame frame;
    std::vector<float> depth, stats;
};

constexpr int kSlow = 255;  // as a frame's second byte: the frame takes 200 ms

void expect(int32_t got, int32_t status, const char *words, int line) {
    CHECK(got == status, "line %d: got %d (%s)", line, got, mvde_last_error());
    CHECK(std::string(mvde_last_error()).find(words) != std::string::npos, "line %d: %s", line, mvde_last_error());
}

#define EXPECT(got, status, words) expect(got, status, words, __LINE__)

}  // namespace

TEST(a_frame_in_flight_gives_what_a_call_gives_and_allocates_nothing) {
    Opened opened;
    mvde_outputs outputs = opened.outputs();
    const long before = num_allocations.load();
    for (int i = 0; i < 10; ++i) {
        opened.frame.fill(64 * (1 + i % 3));
        CHECK(mvde_infer_async(opened.handle(), &opened.frame.view) == MVDE_OK);
        opened.frame.fill(0);  // it has already been read
        CHECK(mvde_wait(opened.handle(), -1, &outputs) == MVDE_OK);
        opened.check_depth(1.5F + static_cast<float>(i % 3), __LINE__);
    }
    CHECK(num_allocations.load() == before, "%ld allocations", num_allocations.load() - before);
}

TEST(one_frame_is_in_flight_and_waiting_for_it_has_a_limit) {
    Opened opened;
    mvde_session *handle = opened.handle();
    mvde_outputs outputs = opened.outputs();
    EXPECT(mvde_wait(handle, 0, &outputs), MVDE_ERROR_IDLE, "no frame is in flight: begin one with mvde_infer_async");
    opened.frame.bytes[1] = kSlow;
    CHECK(mvde_infer_async(handle, &opened.frame.view) == MVDE_OK);
    EXPECT(mvde_infer_async(handle, &opened.frame.view), MVDE_ERROR_BUSY, "a frame is in flight");
    EXPECT(mvde_infer(handle, &opened.frame.view, &outputs), MVDE_ERROR_BUSY, "a frame is in flight");
    EXPECT(mvde_wait(handle, 0, &outputs), MVDE_ERROR_TIMEOUT,
           "openvino:fp32 was not done after 0 ms; the frame is still in flight");
    EXPECT(mvde_wait(handle, 1, &outputs), MVDE_ERROR_TIMEOUT, "was not done after 1 ms");
    CHECK(std::string(mvde_session_error(handle)).find("after 1 ms") != std::string::npos, "the handle remembers");
    outputs.depth_capacity = 7;
    EXPECT(mvde_wait(handle, -1, &outputs), MVDE_ERROR_CAPACITY, "depth_capacity is 7");
    EXPECT(mvde_wait(handle, -1, nullptr), MVDE_ERROR_ARGUMENT, "outputs is NULL");
    CHECK(opened.session->wait(opened.depth, opened.stats), "a wait that was refused leaves the frame in flight");
    CHECK(opened.depth[47] == 1.5F, "%g", opened.depth[47]);
    EXPECT(mvde_wait(handle, -1, nullptr), MVDE_ERROR_ARGUMENT, "outputs is NULL");
    outputs = opened.outputs();
    EXPECT(mvde_wait(handle, -1, &outputs), MVDE_ERROR_IDLE, "no frame is in flight");
}

TEST(a_frame_that_fails_is_over) {
    Opened opened;
    opened.frame.bytes[0] = 255;
    CHECK(opened.session->infer_async(opened.frame.view));
    auto done = opened.session->wait(opened.depth, opened.stats);
    CHECK(!done && done.error().status == MVDE_ERROR_BACKEND, "%s", done.error().message.c_str());
    CHECK(opened.session->wait(opened.depth, opened.stats).error().status == MVDE_ERROR_IDLE);
    opened.frame.fill(64);
    CHECK(opened.session->infer_async(opened.frame.view) && opened.session->wait(opened.depth, opened.stats));
    opened.check_depth(1.5F, __LINE__);
    Frame wrong({32, 32});
    EXPECT(mvde_infer_async(opened.handle(), &wrong.view), MVDE_ERROR_SHAPE, "the frame is 32x32");
    EXPECT(mvde_infer_async(opened.handle(), nullptr), MVDE_ERROR_ARGUMENT, "frame is NULL");
    CHECK(opened.session->infer(opened.frame.view, opened.depth, {}), "a frame that was refused is not in flight");
}

TEST(device_memory_is_refused_by_a_backend_without_it) {
    Opened opened;
    mvde_outputs outputs = opened.outputs();
    EXPECT(mvde_bind_device(opened.handle(), &opened.frame.view, &outputs), MVDE_ERROR_UNSUPPORTED, "use mvde_infer");
    EXPECT(mvde_infer_device(opened.handle(), nullptr), MVDE_ERROR_UNSUPPORTED,
           "OpenVINO engines do not take device memory");
}

TEST(a_session_that_was_closed_is_recognised) {
    Opened opened;
    mvde_session *handle = nullptr;
    CHECK(mvde_open(opened.folder.path.c_str(), nullptr, &handle) == MVDE_OK);
    mvde_close(handle);
    mvde_session *next = nullptr;  // reuses the closed session's slot, but not its handle
    CHECK(mvde_open(opened.folder.path.c_str(), nullptr, &next) == MVDE_OK && next != handle);
    mvde_session *invented = reinterpret_cast<mvde_session *>(&opened);
    mvde_outputs outputs = opened.outputs();
    mvde_session_info info{};
    info.struct_size = sizeof info;
    for (mvde_session *wrong : {handle, invented}) {
        EXPECT(mvde_infer(wrong, &opened.frame.view, &outputs), MVDE_ERROR_CLOSED,
               "was closed, or did not come from mvde_open");
        EXPECT(mvde_infer_async(wrong, &opened.frame.view), MVDE_ERROR_CLOSED, "was closed");
        EXPECT(mvde_wait(wrong, 0, &outputs), MVDE_ERROR_CLOSED, "was closed");
        EXPECT(mvde_infer_device(wrong, nullptr), MVDE_ERROR_CLOSED, "was closed");
        EXPECT(mvde_session_query(wrong, &info), MVDE_ERROR_CLOSED, "was closed");
        CHECK(!*mvde_session_error(wrong));
        mvde_close(wrong);
    }
    CHECK(mvde_infer(next, &opened.frame.view, &outputs) == MVDE_OK, "the next session is not touched");
    mvde_close(next);
}

TEST(closing_awaits_the_frame_in_flight) {
    Opened opened;
    mvde_session *handle = nullptr;
    CHECK(mvde_open(opened.folder.path.c_str(), nullptr, &handle) == MVDE_OK);
    opened.frame.bytes[1] = kSlow;
    CHECK(mvde_infer_async(handle, &opened.frame.view) == MVDE_OK);
    const auto begun = std::chrono::steady_clock::now();
    mvde_close(handle);
    CHECK(std::chrono::steady_clock::now() - begun > std::chrono::milliseconds(100),
          "the engine would write into freed memory");
}

TEST(closing_awaits_the_call_that_is_inside) {
    Opened opened;
    mvde_session *handle = nullptr;
    CHECK(mvde_open(opened.folder.path.c_str(), nullptr, &handle) == MVDE_OK);
    opened.frame.bytes[1] = kSlow;
    CHECK(mvde_infer_async(handle, &opened.frame.view) == MVDE_OK);
    mvde_outputs outputs = opened.outputs();
    std::atomic<int32_t> status{1};
    std::thread waiting([&] {
        int32_t got;
        do got = mvde_wait(handle, -1, &outputs);  // the other thread may be inside briefly
        while (got == MVDE_ERROR_BUSY);
        status = got;
    });
    while (mvde_infer_async(handle, &opened.frame.view) == MVDE_ERROR_BUSY &&
           std::string(mvde_last_error()).find("another call") == std::string::npos && status == 1)
        std::this_thread::yield();
    mvde_close(handle);
    waiting.join();
    CHECK(status == MVDE_OK, "%d", status.load());
}

// One thread starts frames and another takes their results, alternating two sessions, as a robot would overlap them.
TEST(frames_of_two_sessions_overlap_between_two_threads) {
    Opened first, second;
    Opened *sessions[] = {&first, &second};
    constexpr int kFrames = 60;
    std::atomic<int> num_begun{0}, num_wrong{0};
    std::thread begins([&] {
        for (int i = 0; i < kFrames; ++i) {
            Opened &mine = *sessions[i % 2];
            mine.frame.fill(64 * (1 + i % 3));
            while (!mine.session->infer_async(mine.frame.view)) std::this_thread::yield();  // busy
            num_begun.store(i + 1);
        }
    });
    for (int i = 0; i < kFrames; ++i) {
        Opened &mine = *sessions[i % 2];
        while (num_begun.load() <= i) std::this_thread::yield();
        mvde::Result<void> done;
        do done = mine.session->wait(mine.depth, mine.stats, 50);
        while (!done && (done.error().status == MVDE_ERROR_TIMEOUT || done.error().status == MVDE_ERROR_BUSY));
        if (!done || mine.stats[0] != 1.5F + static_cast<float>(i % 3)) ++num_wrong;
    }
    begins.join();
    CHECK(num_wrong.load() == 0, "%d", num_wrong.load());
}

TEST(handles_are_never_given_twice_and_run_out) {
    struct Opaque;
    using Numbers = mvde::internal::Handles<int, Opaque, 4>;
    const auto numbers = std::make_unique<Numbers>();
    std::vector<Opaque *> open, seen;
    for (int i = 0; i < 4; ++i) open.push_back(numbers->add(std::make_unique<int>(i)));
    CHECK(!numbers->add(std::make_unique<int>(4)), "only four fit");
    for (int i = 0; i < 100; ++i) {
        Opaque *&oldest = open[static_cast<std::size_t>(i % 4)];
        seen.push_back(oldest);
        CHECK(numbers->close(oldest) && !numbers->close(oldest));
        oldest = numbers->add(std::make_unique<int>(i));
        for (Opaque *old : seen) CHECK(old != oldest && numbers->change(old).access() == Numbers::Access::closed);
        CHECK(*numbers->change(oldest) == i);
    }
    const auto held = numbers->change(open[0]);
    CHECK(numbers->change(open[0]).access() == Numbers::Access::busy);
    CHECK(numbers->read(open[0]).access() == Numbers::Access::granted, "reading is not in the way");
}

int main() { return harness::run_all(); }
