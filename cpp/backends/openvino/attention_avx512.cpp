// Scores are computed transposed, keys in rows and queries in columns: each query is a lane, and its sum and maximum need no
// shuffles. Both products then have one form: eight broadcast pairs of numbers times a row of pairs of 48 queries, in 24
// accumulators. Scores become probabilities while they are in registers.
#include "attention_avx512.hpp"

#include "attention_avx512_parts.hpp"

#include <algorithm>
#include <cstring>

namespace mvde::internal::attention::avx512 {
namespace {

constexpr std::size_t kRows = 8;  // of a tile: keys of the scores, depths of the result
constexpr std::size_t kVectors = kQueries / 16;
constexpr std::size_t kGroup = 16;  // keys padded together
constexpr std::size_t kChunk = 64;  // keys whose probabilities stay in the first-level cache

std::size_t pairs(std::size_t count) { return (count + 1) / 2; }

struct alignas(64) Work {
    Bf16 queries[kMaxDepth * kQueries];  // [pair of depths][query][2]
    Bf16 probabilities[kChunk * kQueries];  // [pair of keys][query][2], unnormalised
    float out[kMaxDepth * kQueries];  // [depth][query]
    float sum[kQueries], shift[kQueries];  // shift: subtracted from scores, in log2 units
};

// kRows rows of kQueries numbers in registers.
struct Tile {
    __m512 at[kRows][kVectors];

    void clear() {
        for (auto &row : at)
            for (auto &vector : row) vector = _mm512_setzero_ps();
    }

    void load(const float *from) {
        for (std::size_t row = 0; row < kRows; ++row)
            for (std::size_t i = 0; i < kVectors; ++i) at[row][i] = _mm512_load_ps(from + row * kQueries + 16 * i);
    }

    void store(float *to) const {
        for (std::size_t row = 0; row < kRows; ++row)
            for (std::size_t i = 0; i < kVectors; ++i) _mm512_store_ps(to + row * kQueries + 16 * i, at[row][i]);
    }

    // Adds the products of `columns` [count][kRows][2] and `rows` [count][kQueries][2].
    void add(const Bf16 *columns, const Bf16 *rows, std::size_t count) {
        for (; count > 0; --count, columns += 2 * kRows, rows += 2 * kQueries) {
            const auto load = [&](std::size_t i) { return reinterpret_cast<__m512bh>(_mm512_load_si512(rows + 32 * i)); };
            const __m512bh first = load(0), second = load(1), third = load(2);
            for (std::size_t row = 0; row < kRows; ++row) {
                std::int32_t bits;
                std::memcpy(&bits, columns + 2 * row, sizeof bits);
                const __m512bh pair = reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
                at[row][0] = _mm512_dpbf16_ps(at[row][0], first, pair);
                at[row][1] = _mm512_dpbf16_ps(at[row][1], second, pair);
                at[row][2] = _mm512_dpbf16_ps(at[row][2], third, pair);
            }
        }
    }
};

// A head's packed keys [key / kRows][pair of depths][kRows][2] and values [depth / kRows][pair of keys][kRows][2], both padded
// with zeros.
struct Layout {
    std::size_t key_tile, value_tile, key_elements;  // elements of a tile of keys, of one of values, and of all keys

    explicit Layout(const Shape &shape)
        : key_tile(pairs(shape.depth) * 2 * kRows), value_tile(round_up(shape.tokens, kGroup) * kRows),
          key_elements(round_up(shape.tokens, kGroup) / kRows * key_tile) {}
};

void pack_queries(const Shape &shape, const Bf16 *queries, std::size_t num_queries, Work &work) {
    for (std::size_t first = 0; first < kQueries; first += 16)
        for (std::size_t d = 0; d < shape.depth; d += 32) {
            __m512i row[16];
            for (std::size_t i = 0; i < 16; ++i)
                row[i] = first + i < num_queries ? first_pairs(queries + (first + i) * shape.width() + d, shape.depth - d)
                                                 : _mm512_setzero_si512();
            transpose(row);
            for (std::size_t i = 0; i < 16; ++i)
                _mm512_store_si512(work.queries + (d + 2 * i) * kQueries + 2 * first, row[i]);
        }
}

// Converts the scores of kRows keys, of which `num_keys` are not padding, to probabilities, and adds those to the sums. The
// sum is of the rounded values, so that they add up to 1.
void weigh(const Tile &scores, __m512 factor, std::size_t num_keys, Work &work, Bf16 *probabilities) {
    const __m512bh ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
#pragma GCC unroll 3
    for (std::size_t i = 0; i < kVectors; ++i) {
        const __m512 shift = _mm512_load_ps(work.shift + 16 * i);
        __m512 sum = _mm512_load_ps(work.sum + 16 * i);
#pragma GCC unroll 4
        for (std::size_t key = 0; key < kRows; key += 2) {
            const __m512 even = exp2_to_truncate(_mm512_fmsub_ps(scores.at[key][i], factor, shift));
            const __m512 odd = exp2_to_truncate(_mm512_fmsub_ps(scores.at[key + 1][i], factor, shift));
            const __m512i pair = _mm512_maskz_mov_epi16(real_keys(key, num_keys), pairs_of_powers(even, odd));
            _mm512_store_si512(probabilities + key * kQueries + 32 * i, pair);
            sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(pair), ones);
        }
        _mm512_store_ps(work.sum + 16 * i, sum);
    }
}

Tile scores_of(const Shape &shape, const Bf16 *keys, const Work &work) {
    Tile tile;
    tile.clear();
    tile.add(keys, work.queries, pairs(shape.depth));
    return tile;
}

// Computes the weighted values and the sums over all keys, with the shifts in `work`.
void run(const Shape &shape, __m512 factor, const Bf16 *packed, Work &work) {
    const Layout layout(shape);
    const Bf16 *keys = packed, *values = packed + layout.key_elements;
    std::memset(work.out, 0, round_up(shape.depth, 16) * kQueries * sizeof(float));
    std::memset(work.sum, 0, sizeof work.sum);
    for (std::size_t first = 0; first < shape.tokens; first += kChunk, values += kChunk * kRows) {
        const std::size_t num_keys = std::min(kChunk, shape.tokens - first);
        for (std::size_t key = 0; key < num_keys; key += kRows, keys += layout.key_tile)
            weigh(scores_of(shape, keys, work), factor, num_keys - key, work, work.probabilities + key * kQueries);
        for (std::size_t d = 0; d < shape.depth; d += kRows) {
            Tile tile;
            tile.load(work.out + d * kQueries);
            tile.add(values + d / kRows * layout.value_tile, work.probabilities, pairs(num_keys));
            tile.store(work.out + d * kQueries);
        }
    }
}

// Sets each query's shift to its largest score.
void find_shifts(const Shape &shape, __m512 factor, const Bf16 *packed, Work &work) {
    const Layout layout(shape);
    alignas(64) float scores[kRows * kQueries];
    for (float &most : work.shift) most = -__builtin_inff();
    for (std::size_t first = 0; first < shape.tokens; first += kRows, packed += layout.key_tile) {
        scores_of(shape, packed, work).store(scores);
        for (std::size_t at = 0; at < std::min(kRows, shape.tokens - first) * kQueries; at += 16) {
            float *const most = work.shift + at % kQueries;
            _mm512_store_ps(most, _mm512_max_ps(_mm512_load_ps(most), _mm512_mul_ps(_mm512_load_ps(scores + at), factor)));
        }
    }
}

void write(const Shape &shape, const Work &work, std::size_t num_queries, Bf16 *out) {
    for (std::size_t first = 0; first < num_queries; first += 16) {
        const __m512 norm = _mm512_div_ps(_mm512_set1_ps(1.0F), _mm512_load_ps(work.sum + first));
        for (std::size_t d = 0; d < shape.depth; d += 16) {
            __m512i row[16];
            for (std::size_t i = 0; i < 16; ++i)
                row[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(work.out + (d + i) * kQueries + first), norm));
            transpose(row);
            for (std::size_t i = 0; i < 16 && first + i < num_queries; ++i)
                store_first(out + (first + i) * shape.width() + d, _mm512_castsi512_ps(row[i]), shape.depth - d);
        }
    }
}

}  // namespace

std::size_t packed_elements(const Shape &shape) {
    const Layout layout(shape);
    return layout.key_elements + round_up(shape.depth, kRows) / kRows * layout.value_tile;
}

void pack(const Shape &shape, const Bf16 *keys, const Bf16 *values, std::size_t first, std::size_t last, Bf16 *packed) {
    const Layout layout(shape);
    Bf16 *const packed_values = packed + layout.key_elements;
    for (std::size_t group = first; group < last; group += kGroup) {
        const auto row_of = [&](const Bf16 *tensor, std::size_t token, std::size_t d) {
            return token < shape.tokens ? tensor + token * shape.width() + d : nullptr;
        };
        for (std::size_t d = 0; d < shape.depth; d += 32) {
            __m512i row[kGroup];
            for (std::size_t i = 0; i < kGroup; ++i) {
                const Bf16 *const key = row_of(keys, group + i, d);
                row[i] = key ? first_pairs(key, shape.depth - d) : _mm512_setzero_si512();
            }
            transpose(row);
            Bf16 *const tile = packed + group / kRows * layout.key_tile + d * kRows;
            for (std::size_t i = 0; i < std::min(kGroup, pairs(shape.depth - d)); ++i) {
                _mm256_store_si256(reinterpret_cast<__m256i *>(tile + i * 2 * kRows), _mm512_castsi512_si256(row[i]));
                _mm256_store_si256(reinterpret_cast<__m256i *>(tile + layout.key_tile + i * 2 * kRows),
                                   _mm512_extracti64x4_epi64(row[i], 1));
            }
        }
        for (std::size_t token = group; token < group + kGroup; token += 2)
            for (std::size_t d = 0; d < shape.depth; d += 16) {
                const __m512i both = pairs_of_rows(row_of(values, token, d), row_of(values, token + 1, d), shape.depth - d);
                Bf16 *const tile = packed_values + d / kRows * layout.value_tile + token * kRows;
                _mm256_store_si256(reinterpret_cast<__m256i *>(tile), _mm512_castsi512_si256(both));
                if (d + kRows < shape.depth)
                    _mm256_store_si256(reinterpret_cast<__m256i *>(tile + layout.value_tile),
                                       _mm512_extracti64x4_epi64(both, 1));
            }
    }
}

void attend(const Shape &shape, float scale, const Bf16 *queries, std::size_t num_queries, const Bf16 *packed, Bf16 *out) {
    constexpr float kLog2E = 1.44269504F;
    Work work;
    std::memset(work.shift, 0, sizeof work.shift);
    pack_queries(shape, queries, num_queries, work);
    const __m512 factor = _mm512_set1_ps(scale * kLog2E);
    run(shape, factor, packed, work);
    if (!is_in_range(work.sum, kQueries)) {
        find_shifts(shape, factor, packed, work);
        run(shape, factor, packed, work);
    }
    write(shape, work, num_queries, out);
}

}  // namespace mvde::internal::attention::avx512
