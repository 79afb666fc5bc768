// A fixed-size thread pool that shares the units of one call with the calling thread.
#pragma once

#include "forks.hpp"
#include "mvde/mvde.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace mvde::internal {

// The threads and their synchronisation state.
class Crew {
public:
    using Function = void (*)(void *data, std::int64_t first, std::int64_t last);

    ~Crew();
    void start(int num_threads);  // calling thread included; throws std::system_error

    // Runs all units, in chunks of `chunk`, and returns when they are done. Serves one call at a time.
    void run(Function function, void *data, std::int64_t num_units, std::int64_t chunk);

private:
    void serve();
    void take_chunks();

    std::vector<std::thread> threads_;

    std::mutex mutex_;
    std::condition_variable start_, finish_;
    std::uint64_t generation_ = 0;  // number of calls; guarded by mutex_, as is everything below
    std::size_t num_working_ = 0;
    bool stops_ = false;

    Function function_ = nullptr;  // written before the generation is incremented
    void *data_ = nullptr;
    std::int64_t num_units_ = 0, chunk_ = 1;
    std::atomic<std::int64_t> next_{0};
};

// A crew owned by the process that started it. In a forked child the calling thread works alone, with the same results, and
// the destructor leaks the crew: its threads do not exist there.
class Workers {
public:
    // Processes units [first, last); `data` is the call's context.
    using Function = Crew::Function;

    ~Workers();
    void start(int num_threads) { crew_->start(num_threads); }
    void run(Function function, void *data, std::int64_t num_units, std::int64_t chunk);

private:
    bool is_inherited() const;

    std::unique_ptr<Crew> crew_ = std::make_unique<Crew>();
    const unsigned forks_ = num_forks();
};

// Runs the units on the workers behind the handle, or on the calling thread if it is NULL. Returns a mvde_status, with a
// message, if the handle is busy or closed.
int run_units(mvde_workers *workers, Workers::Function function, void *data, std::int64_t num_units, std::int64_t chunk);

}  // namespace mvde::internal
