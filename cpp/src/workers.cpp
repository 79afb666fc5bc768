#include "workers.hpp"

#include "error.hpp"
#include "float_environment.hpp"
#include "handles.hpp"

#include <memory>
#include <new>
#include <system_error>

namespace mvde::internal {

void Crew::start(int num_threads) {
    threads_.reserve(static_cast<std::size_t>(num_threads - 1));
    for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { serve(); });
}

Crew::~Crew() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        stops_ = true;
    }
    start_.notify_all();
    for (std::thread &thread : threads_) thread.join();
}

void Crew::run(Function function, void *data, std::int64_t num_units, std::int64_t chunk) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        function_ = function;
        data_ = data;
        num_units_ = num_units;
        chunk_ = chunk;
        next_.store(0, std::memory_order_relaxed);
        num_working_ = threads_.size();
        ++generation_;
    }
    start_.notify_all();
    take_chunks();
    {
        std::unique_lock<std::mutex> lock(mutex_);
        finish_.wait(lock, [this] { return num_working_ == 0; });
    }
}

void Crew::take_chunks() {
    for (;;) {
        const std::int64_t first = next_.fetch_add(chunk_, std::memory_order_relaxed);
        if (first >= num_units_) return;
        function_(data_, first, first + chunk_ < num_units_ ? first + chunk_ : num_units_);
    }
}

void Crew::serve() {
    const FloatEnvironment environment;  // not the creator's
    std::uint64_t seen = 0;
    for (;;) {
        {
            std::unique_lock<std::mutex> lock(mutex_);
            start_.wait(lock, [&] { return stops_ || generation_ != seen; });
            if (stops_) return;
            seen = generation_;
        }
        take_chunks();
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--num_working_ == 0) finish_.notify_one();
    }
}

bool Workers::is_inherited() const { return forks_ != num_forks(); }

Workers::~Workers() {
    if (is_inherited()) static_cast<void>(crew_.release());
}

void Workers::run(Function function, void *data, std::int64_t num_units, std::int64_t chunk) {
    if (is_inherited()) function(data, 0, num_units);
    else crew_->run(function, data, num_units, chunk);
}

namespace {

using AllWorkers = Handles<Workers, mvde_workers, 1024>;

AllWorkers &all_workers() {
    static AllWorkers &all = *new AllWorkers;  // never destroyed: process exit must not wait for threads
    static const bool watches = (at_fork([] { all.drop_holds(); }), true);
    static_cast<void>(watches);
    return all;
}

}  // namespace

int run_units(mvde_workers *workers, Workers::Function function, void *data, std::int64_t num_units, std::int64_t chunk) {
    if (!workers) return function(data, 0, num_units), MVDE_OK;
    const AllWorkers::Hold held = all_workers().change(workers);
    if (held.access() == AllWorkers::Access::busy)
        return fail(MVDE_ERROR_BUSY, "the workers are in use by another call: give each thread its own");
    if (held.access() == AllWorkers::Access::closed)
        return fail(MVDE_ERROR_CLOSED, "the workers were destroyed, or did not come from mvde_workers_create");
    held->run(function, data, num_units, chunk);
    return MVDE_OK;
}

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

int32_t mvde_workers_create(int32_t num_threads, mvde_workers **workers) {
    if (!workers) return fail(MVDE_ERROR_ARGUMENT, "workers is NULL: expected the address of a handle");
    *workers = nullptr;
    if (num_threads < 1 || num_threads > 256)
        return fail(MVDE_ERROR_ARGUMENT, "num_threads is %d: expected 1 to 256", num_threads);
    try {
        auto created = std::make_unique<Workers>();
        created->start(num_threads);  // if it throws, the destructor joins the threads that have started
        *workers = all_workers().add(std::move(created));
        return *workers ? MVDE_OK : fail(MVDE_ERROR_MEMORY, "1024 sets of workers exist: destroy one first");
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory for %d threads", num_threads);
    } catch (const std::system_error &error) {
        return fail(MVDE_ERROR_THREAD, "%d threads could not be started: %s", num_threads, error.what());
    }
}

void mvde_workers_destroy(mvde_workers *workers) {
    if (workers) all_workers().close(workers);
}

}  // extern "C"
