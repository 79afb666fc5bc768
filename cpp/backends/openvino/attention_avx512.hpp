// bfloat16 attention for CPUs with AVX-512 BF16. The row of probabilities is never stored as a whole, only what fits the
// first-level cache. Independent of any inference library.
#pragma once

#include "attention_shape.hpp"

namespace mvde::internal::attention::avx512 {

constexpr std::size_t kQueries = 48;  // per block; blocks are independent, so any split among threads is bit-identical

// Returns "" if this CPU can run the kernel, or else the reason.
const char *unavailable();

// Number of elements of a head's packed keys and values.
std::size_t packed_elements(const Shape &shape);

// Packs tokens [first, last) of a head. `first` is a multiple of 16; `last` is a multiple of 16 or the end. `keys` and
// `values` point to the head's first element; `packed` holds packed_elements() elements, aligned to 64 bytes.
void pack(const Shape &shape, const Bf16 *keys, const Bf16 *values, std::size_t first, std::size_t last, Bf16 *packed);

// softmax(scale * q k^T) v for at most kQueries queries of a head, rounded to bfloat16. `queries` and `out` point to the
// block's first element.
void attend(const Shape &shape, float scale, const Bf16 *queries, std::size_t num_queries, const Bf16 *packed, Bf16 *out);

}  // namespace mvde::internal::attention::avx512
