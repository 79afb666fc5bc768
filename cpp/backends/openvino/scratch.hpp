// Scratch memory of mvde's operators.
#pragma once

#include <cstddef>
#include <vector>

namespace mvde::internal {

constexpr std::size_t kLineBytes = 64;

// Memory of the calling thread, aligned to kLineBytes and kept between frames: releasing and faulting in its pages costs more
// than packing. Valid until the thread's next call.
inline void *scratch(std::size_t size_bytes) {
    struct alignas(kLineBytes) Line {
        std::byte bytes[kLineBytes];
    };
    static thread_local std::vector<Line> lines;
    const std::size_t needed = (size_bytes + kLineBytes - 1) / kLineBytes;
    if (lines.size() < needed) lines.resize(needed);
    return lines.data();
}

}  // namespace mvde::internal
