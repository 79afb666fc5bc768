#include "forks.hpp"

#include <pthread.h>

#include <atomic>

namespace mvde::internal {
namespace {

std::atomic<unsigned> count{0};

// A count and not the process's number, which costs a call of the system each time, and may come back.
const bool is_counted = (at_fork([] { count.fetch_add(1, std::memory_order_relaxed); }), true);

}  // namespace

unsigned num_forks() {
    static_cast<void>(is_counted);
    return count.load(std::memory_order_relaxed);
}

void at_fork(void (*in_child)()) { static_cast<void>(pthread_atfork(nullptr, nullptr, in_child)); }

}  // namespace mvde::internal
