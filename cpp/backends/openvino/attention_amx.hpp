// Attention of bfloat16 on a CPU with AMX: the whole row of probabilities is never stored, only what the first-level
// cache holds of it. Nothing here knows of an inference library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mvde::internal::attention {

using Bf16 = std::uint16_t;

// Queries, keys, values and results lie as [batch, tokens, heads * depth], as linear layers leave them.
struct Shape {
    std::size_t batch, tokens, heads, depth;  // depth: 1 to kMaxDepth

    std::size_t width() const { return heads * depth; }
};

constexpr std::size_t kMaxDepth = 128;
constexpr std::size_t kQueries =
    32;  // of a block; each is computed alone, so that any split among threads gives the same bits

// Nothing (an empty text) if this process may use what the kernel is made of, or the reason why not. Asks Linux for
// the tile registers, which it gives to no process unasked.
const char *unavailable();

// A head's keys and values, as the tile registers want them.
struct Packed {
    std::size_t key_elements, value_elements;

    explicit Packed(const Shape &shape);
    std::size_t elements() const { return key_elements + value_elements; }
};

// Packs tokens [first, last) of a head, first being a multiple of 32 and last one, too, or the end. `keys` and `values`
// point to the head's first element; `packed` has room for Packed::elements(), aligned to 64 bytes.
void pack(const Shape &shape, const Bf16 *keys, const Bf16 *values, std::size_t first, std::size_t last, Bf16 *packed);

// A thread's tile registers, as the kernel needs them; afterwards as they were, since oneDNN remembers what it left.
class Tiles {
public:
    Tiles();
    ~Tiles();
    Tiles(const Tiles &) = delete;
    Tiles &operator=(const Tiles &) = delete;

private:
    alignas(64) std::uint8_t before_[64];
};

// softmax(scale * q k^T) v of at most kQueries queries of a head, rounded to bfloat16. `queries` and `out` point to the
// block's first element; the calling thread holds a Tiles.
void attend(const Shape &shape, float scale, const Bf16 *queries, std::size_t num_queries, const Bf16 *packed, Bf16 *out);

}  // namespace mvde::internal::attention
