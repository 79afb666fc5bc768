// Counts allocations by operator new in the whole process. Include it in one source file of a test.
#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

inline std::atomic<long> num_allocations{0};

void *operator new(std::size_t size) {
    ++num_allocations;
    if (void *memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
// std::stable_sort takes its buffer by this one, and frees it by those below.
void *operator new(std::size_t size, const std::nothrow_t &) noexcept {
    ++num_allocations;
    return std::malloc(size);
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
