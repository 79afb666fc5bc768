// bfloat16 attention for CPUs with AMX. The row of probabilities is never stored as a whole, only what fits the first-level
// cache. Independent of any inference library.
#pragma once

#include "attention_shape.hpp"

#include <cstdint>

namespace mvde::internal::attention::amx {

constexpr std::size_t kQueries = 32;  // per block; blocks are independent, so any split among threads is bit-identical

// Returns "" if this process can run the kernel, or else the reason. Requests the tile registers from Linux, which grants
// them on request only.
const char *unavailable();

// A head's keys and values in tile-register layout.
struct Packed {
    std::size_t key_elements, value_elements;

    explicit Packed(const Shape &shape);
    std::size_t elements() const { return key_elements + value_elements; }
};

// Packs tokens [first, last) of a head. `first` is a multiple of 32; `last` is a multiple of 32 or the end. `keys` and
// `values` point to the head's first element; `packed` holds Packed::elements() elements, aligned to 64 bytes.
void pack(const Shape &shape, const Bf16 *keys, const Bf16 *values, std::size_t first, std::size_t last, Bf16 *packed);

// Configures the thread's tile registers and restores them afterwards, because oneDNN caches their configuration.
class Tiles {
public:
    Tiles();
    ~Tiles();
    Tiles(const Tiles &) = delete;
    Tiles &operator=(const Tiles &) = delete;

private:
    alignas(64) std::uint8_t before_[64];
};

// softmax(scale * q k^T) v for at most kQueries queries of a head, rounded to bfloat16. `queries` and `out` point to the
// block's first element; the calling thread must hold a Tiles.
void attend(const Shape &shape, float scale, const Bf16 *queries, std::size_t num_queries, const Bf16 *packed, Bf16 *out);

}  // namespace mvde::internal::attention::amx
