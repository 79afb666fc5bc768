// A backend for session tests, loaded as libmvde_openvino.so from beside the test program. It reports version 1.2.3 and
// fp32. Its depth is 0.5 m + the mean of the colours / 64, plus 1 m for each "+" that its blob contains when the frame
// runs: like a real library, it keeps the blob. Loading fails for a blob that begins with "broken", finds no device for one
// that begins with "homeless", and fails if numbers are not formatted as in C. A frame whose first byte is 255 fails; one
// whose second byte is 255 takes 200 ms. Outputs named sky, mask and confidence are red, green and blue / 255. Frames run in the engine's own thread, as with a real library.
#include "session/backend.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

class Engine {
public:
    explicit Engine(const mvde_backend_request &request)
        : content_(reinterpret_cast<const char *>(request.content), request.size_bytes),
          images(static_cast<std::size_t>(request.height * request.width * 3)),
          depth(static_cast<std::size_t>(request.height * request.width)) {
        for (std::int32_t i = 1; i < request.num_outputs; ++i) {
            const std::string_view name = request.output_names[i];
            others.push_back({name == "sky" ? 0U : name == "mask" ? 1U : 2U, depth});
        }
        thread_ = std::thread([this] { serve(); });
    }

    ~Engine() {
        wait(-1);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            state_ = State::stopped;
        }
        changed_.notify_all();
        thread_.join();
    }

    void start() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            state_ = State::running;
        }
        changed_.notify_all();
    }

    bool wait(std::int64_t timeout_ms) {
        std::unique_lock<std::mutex> lock(mutex_);
        const auto is_done = [this] { return state_ == State::idle; };
        if (timeout_ms >= 0)
            return changed_.wait_until(lock, std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms),
                                       is_done);
        changed_.wait(lock, is_done);
        return true;
    }

    std::vector<std::uint8_t> images;
    std::vector<float> depth;

    struct Other {
        std::size_t channel;
        std::vector<float> map;
    };
    std::vector<Other> others;

private:
    enum class State { idle, running, stopped };

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return state_ != State::idle; });
            if (state_ == State::stopped) return;
            lock.unlock();
            run();
            lock.lock();
            state_ = State::idle;
            changed_.notify_all();
        }
    }

    void run() {
        if (images[1] == 255) std::this_thread::sleep_for(std::chrono::milliseconds(200));
        const auto num_more = static_cast<float>(std::count(content_.begin(), content_.end(), '+'));
        for (std::size_t i = 0; i < depth.size(); ++i)
            depth[i] = 0.5F + num_more + static_cast<float>(images[3 * i] + images[3 * i + 1] + images[3 * i + 2]) / 192.0F;
        for (Other &other : others)
            for (std::size_t i = 0; i < depth.size(); ++i)
                other.map[i] = static_cast<float>(images[3 * i + other.channel]) / 255.0F;
    }

    const std::string_view content_;
    std::mutex mutex_;
    std::condition_variable changed_;
    State state_ = State::idle;
    std::thread thread_;
};

std::int32_t fail(mvde_status status, const char *text, mvde_backend_message *message) {
    std::snprintf(message->text, sizeof message->text, "%s", text);
    return status;
}

const char *library_version() { return "1.2.3"; }

std::int32_t load(const mvde_backend_request *request, mvde_backend_engine *loaded, mvde_backend_message *message) {
    std::ostringstream number;
    number << 2026 << ' ' << 0.5;  // as OpenVINO writes its version into a blob
    char in_c[16];
    std::snprintf(in_c, sizeof in_c, "%.1f", 0.5);
    if (number.str() != "2026 0.5" || std::string(in_c) != "0.5")
        return fail(MVDE_ERROR_INCOMPATIBLE, "numbers are grouped", message);
    std::istringstream words(std::string(reinterpret_cast<const char *>(request->content), request->size_bytes));
    std::string content;
    words >> content;
    if (content == "broken") return fail(MVDE_ERROR_INCOMPATIBLE, "the blob is broken", message);
    if (content == "homeless") return fail(MVDE_ERROR_NO_DEVICE, "there is no device", message);
    auto *engine = new Engine(*request);
    *loaded = {engine, engine->images.data(), {engine->depth.data()}, nullptr, "fp32", "a thread", 1};
    for (std::size_t i = 0; i < engine->others.size(); ++i) loaded->maps[1 + i] = engine->others[i].map.data();
    return MVDE_OK;
}

std::int32_t start(void *engine, mvde_backend_message *) { return static_cast<Engine *>(engine)->start(), MVDE_OK; }

std::int32_t wait(void *opaque, std::int64_t timeout_ms, mvde_backend_message *message) {
    auto *engine = static_cast<Engine *>(opaque);
    if (!engine->wait(timeout_ms)) return MVDE_ERROR_TIMEOUT;
    return engine->images[0] == 255 ? fail(MVDE_ERROR_BACKEND, "the device is on fire", message) : MVDE_OK;
}

std::int32_t infer(void *engine, mvde_backend_message *message) {
    start(engine, message);
    return wait(engine, -1, message);
}

void close(void *engine) { delete static_cast<Engine *>(engine); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const mvde_backend *mvde_backend_entry() {
    static const mvde_backend backend{
        MVDE_BACKEND_VERSION, "OpenVINO", library_version, nullptr, load, infer, start, wait, nullptr, nullptr, close};
    return &backend;
}
