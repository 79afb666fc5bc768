// Sizes of an attention, shared by the kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mvde::internal::attention {

using Bf16 = std::uint16_t;

// Queries, keys, values and results have the layout [batch, tokens, heads * depth], as written by linear layers.
struct Shape {
    std::size_t batch, tokens, heads, depth;  // depth: 1 to kMaxDepth

    std::size_t width() const { return heads * depth; }
};

constexpr std::size_t kMaxDepth = 128;

}  // namespace mvde::internal::attention
