// float32 attention for CPUs with AVX2 and FMA. The row of probabilities is never stored as a whole, only what fits the
// first-level cache. Independent of any inference library.
#pragma once

#include "attention_shape.hpp"

namespace mvde::internal::attention::avx2 {

constexpr std::size_t kQueries = 24;  // per block; blocks are independent, so any split among threads is bit-identical

// Returns "" if this CPU can run the kernel, or else the reason.
const char *unavailable();

// Number of floats of a head's packed keys and values.
std::size_t packed_elements(const Shape &shape);

// Packs tokens [first, last) of a head. `first` is a multiple of 4; `last` is a multiple of 4 or the end. `keys` and `values`
// point to the head's first element; `packed` holds packed_elements() floats.
void pack(const Shape &shape, const float *keys, const float *values, std::size_t first, std::size_t last, float *packed);

// softmax(scale * q k^T) v for at most kQueries queries of a head. `queries` and `out` point to the block's first element.
void attend(const Shape &shape, float scale, const float *queries, std::size_t num_queries, const float *packed, float *out);

}  // namespace mvde::internal::attention::avx2
