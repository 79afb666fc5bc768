// A worker that is always given the newest item. Without ROS.
#ifndef MVDE_ROS_NEWEST_HPP
#define MVDE_ROS_NEWEST_HPP

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace mvde_ros {

// Calls a function in a thread of its own with the newest item that was put; one that a newer item overtakes is dropped, so
// that no result is of an older frame than it need be. The function must not throw.
template <class Item>
class Newest {
public:
    explicit Newest(std::function<void(Item)> work) : work_(std::move(work)), thread_([this] { run(); }) {}
    Newest(const Newest &) = delete;
    Newest &operator=(const Newest &) = delete;

    // Waits for the call in progress; an item that still waits is dropped.
    ~Newest() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            is_ending_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }

    // Hand over an item without waiting. Returns whether it replaced one that had not been taken.
    bool put(Item item) {
        bool has_replaced = false;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            has_replaced = waiting_.has_value();
            num_dropped_ += has_replaced;
            waiting_ = std::move(item);
        }
        changed_.notify_all();
        return has_replaced;
    }

    // Number of items that newer ones have replaced.
    int64_t num_dropped() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return num_dropped_;
    }

private:
    void run() {
        for (;;) {
            std::optional<Item> taken;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                changed_.wait(lock, [this] { return is_ending_ || waiting_; });
                if (is_ending_) return;
                taken.swap(waiting_);
            }
            work_(std::move(*taken));
        }
    }

    std::function<void(Item)> work_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Item> waiting_;
    int64_t num_dropped_ = 0;
    bool is_ending_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace mvde_ros

#endif
