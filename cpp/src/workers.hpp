// A fixed set of threads that share the units of one call with the calling thread.
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

// The threads, and what they and the callers wait on.
class Crew {
public:
    using Function = void (*)(void *data, std::int64_t first, std::int64_t last);

    ~Crew();
    void start(int num_threads);  // counts the caller; throws what std::thread throws

    // Runs all units, in chunks of `chunk`, and returns when the last one is done. One call at a time.
    void run(Function function, void *data, std::int64_t num_units, std::int64_t chunk);

private:
    void serve();
    void take_chunks();

    std::vector<std::thread> threads_;

    std::mutex mutex_;
    std::condition_variable start_, finish_;
    std::uint64_t generation_ = 0;  // counts calls; guarded by mutex_, as is all below
    std::size_t num_working_ = 0;
    bool stops_ = false;

    Function function_ = nullptr;  // written before a call's generation is announced
    void *data_ = nullptr;
    std::int64_t num_units_ = 0, chunk_ = 1;
    std::atomic<std::int64_t> next_{0};
};

// A crew that belongs to the process that started it. In a child of that process the caller works alone, with the same
// results, and the end leaves the crew where it is: its threads are not there to be joined.
class Workers {
public:
    // Handles units [first, last); `data` is the call's own.
    using Function = Crew::Function;

    ~Workers();
    void start(int num_threads) { crew_->start(num_threads); }
    void run(Function function, void *data, std::int64_t num_units, std::int64_t chunk);

private:
    bool is_inherited() const;

    std::unique_ptr<Crew> crew_ = std::make_unique<Crew>();
    const unsigned forks_ = num_forks();
};

// Workers::run with those behind the handle, or on the calling thread alone where it is NULL. A mvde_status, with its
// message, where the handle is in use by another call, or is none.
int run_units(mvde_workers *workers, Workers::Function function, void *data, std::int64_t num_units, std::int64_t chunk);

}  // namespace mvde::internal
