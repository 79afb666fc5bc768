#include "forks.hpp"

#include <pthread.h>

#include <atomic>

namespace mvde::internal {
namespace {

std::atomic<unsigned> count{0};

// A counter rather than the process ID, which costs a system call each time and may be reused.
const bool is_counted = (at_fork([] { count.fetch_add(1, std::memory_order_relaxed); }), true);

}  // namespace

unsigned num_forks() {
    static_cast<void>(is_counted);
    return count.load(std::memory_order_relaxed);
}

void at_fork(void (*in_child)()) { static_cast<void>(pthread_atfork(nullptr, nullptr, in_child)); }

}  // namespace mvde::internal
