// Scores are computed transposed, keys in rows and queries in columns: each query is a lane, and its sum and maximum need no
// shuffles. Both products then have one form: four broadcast numbers times a row of 24 queries, in twelve accumulators.
#include "attention_avx2.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace mvde::internal::attention::avx2 {
namespace {

constexpr std::size_t kRows = 4;  // of a tile: keys of the scores, depths of the result
constexpr std::size_t kVectors = kQueries / 8;
constexpr std::size_t kChunk = 64;  // keys whose probabilities stay in the first-level cache

std::size_t round_up(std::size_t size) { return (size + kRows - 1) / kRows * kRows; }

struct alignas(32) Work {
    float queries[kMaxDepth * kQueries];  // [depth][query]
    float scores[kChunk * kQueries];  // [key][query]; later, unnormalised probabilities
    float out[kMaxDepth * kQueries];  // [depth][query]
    float sum[kQueries], shift[kQueries];  // shift: subtracted from scores, in log2 units
};

// kRows rows of kQueries numbers in registers.
struct Tile {
    __m256 at[kRows][kVectors];

    void clear() {
        for (auto &row : at)
            for (auto &vector : row) vector = _mm256_setzero_ps();
    }

    void load(const float *from) {
        for (std::size_t row = 0; row < kRows; ++row)
            for (std::size_t i = 0; i < kVectors; ++i) at[row][i] = _mm256_load_ps(from + row * kQueries + 8 * i);
    }

    void store(float *to) const {
        for (std::size_t row = 0; row < kRows; ++row)
            for (std::size_t i = 0; i < kVectors; ++i) _mm256_store_ps(to + row * kQueries + 8 * i, at[row][i]);
    }

    // Adds the products of `columns` [count][kRows] and `rows` [count][kQueries].
    void add(const float *columns, const float *rows, std::size_t count) {
        for (; count > 0; --count, columns += kRows, rows += kQueries) {
            const __m256 first = _mm256_load_ps(rows), second = _mm256_load_ps(rows + 8), third = _mm256_load_ps(rows + 16);
            for (std::size_t row = 0; row < kRows; ++row) {
                const __m256 number = _mm256_broadcast_ss(columns + row);
                at[row][0] = _mm256_fmadd_ps(number, first, at[row][0]);
                at[row][1] = _mm256_fmadd_ps(number, second, at[row][1]);
                at[row][2] = _mm256_fmadd_ps(number, third, at[row][2]);
            }
        }
    }
};

// 2^t with a relative error of at most 2.2e-7, and at least 2^-125. NaN is handed on: the second operand of the extremes.
__m256 exp2(__m256 t) {
    t = _mm256_min_ps(_mm256_set1_ps(127.0F), _mm256_max_ps(_mm256_set1_ps(-125.0F), t));
    const __m256 whole = _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 part = _mm256_sub_ps(t, whole);
    __m256 p = _mm256_set1_ps(0.00132764715F);
    p = _mm256_fmadd_ps(p, part, _mm256_set1_ps(0.00967554133F));
    p = _mm256_fmadd_ps(p, part, _mm256_set1_ps(0.0555071327F));
    p = _mm256_fmadd_ps(p, part, _mm256_set1_ps(0.240221197F));
    p = _mm256_fmadd_ps(p, part, _mm256_set1_ps(0.693146967F));
    p = _mm256_fmadd_ps(p, part, _mm256_set1_ps(1.00000007F));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

// The first `count` of four numbers, and zeros.
__m128 first_numbers(const float *from, std::size_t count) {
    alignas(16) static constexpr std::int32_t kMasks[2 * kRows] = {-1, -1, -1, -1, 0, 0, 0, 0};
    if (count == kRows) return _mm_loadu_ps(from);
    return _mm_maskload_ps(from, _mm_loadu_si128(reinterpret_cast<const __m128i *>(kMasks + kRows - count)));
}

void pack_queries(const Shape &shape, const float *queries, std::size_t num_queries, Work &work) {
    for (std::size_t query = 0; query < kQueries; ++query)
        for (std::size_t d = 0; d < shape.depth; ++d)
            work.queries[d * kQueries + query] = query < num_queries ? queries[query * shape.width() + d] : 0.0F;
}

// Computes the scores of `num_keys` keys, from `first` on, with the block's queries.
void score(const Shape &shape, const float *packed, std::size_t first, std::size_t num_keys, Work &work) {
    for (std::size_t key = 0; key < num_keys; key += kRows) {
        Tile tile;
        tile.clear();
        tile.add(packed + (first + key) * shape.depth, work.queries, shape.depth);
        tile.store(work.scores + key * kQueries);
    }
}

// Converts the scores to unnormalised probabilities in place.
void weigh(__m256 factor, std::size_t num_keys, Work &work) {
    for (std::size_t i = 0; i < kVectors; ++i) {
        const __m256 shift = _mm256_load_ps(work.shift + 8 * i);
        __m256 sum = _mm256_load_ps(work.sum + 8 * i);
        float *scores = work.scores + 8 * i;
        for (std::size_t key = 0; key < num_keys; ++key, scores += kQueries) {
            const __m256 power = exp2(_mm256_fmsub_ps(_mm256_load_ps(scores), factor, shift));
            _mm256_store_ps(scores, power);
            sum = _mm256_add_ps(sum, power);
        }
        _mm256_store_ps(work.sum + 8 * i, sum);
    }
}

// Computes the weighted values and the sums over all keys, with the shifts in `work`.
void run(const Shape &shape, __m256 factor, const float *packed, Work &work) {
    const float *values = packed + round_up(shape.tokens) * shape.depth;
    std::memset(work.out, 0, sizeof work.out);
    std::memset(work.sum, 0, sizeof work.sum);
    for (std::size_t first = 0; first < shape.tokens; first += kChunk) {
        const std::size_t num_keys = std::min(kChunk, shape.tokens - first);
        score(shape, packed, first, num_keys, work);
        weigh(factor, num_keys, work);
        for (std::size_t d = 0; d < shape.depth; d += kRows) {
            Tile tile;
            tile.load(work.out + d * kQueries);
            tile.add(values + d * shape.tokens + first * kRows, work.scores, num_keys);
            tile.store(work.out + d * kQueries);
        }
    }
}

// Whether a query's unshifted scores sufficed: float32 has enough exponent range for all but extreme scores, which saves
// finding the maximum and rescaling. False for NaN.
bool is_in_range(float sum) { return sum > 0x1p-60F && sum < 0x1p60F; }

// Sets the shifts of the queries whose sums are out of range to their largest scores; the others keep 0, so that a query's
// result does not depend on its neighbours. Returns whether there are any.
bool find_shifts(const Shape &shape, float factor, const float *packed, Work &work) {
    if (std::all_of(work.sum, work.sum + kQueries, is_in_range)) return false;
    __m256 most[kVectors];
    for (auto &vector : most) vector = _mm256_set1_ps(-__builtin_inff());
    for (std::size_t first = 0; first < shape.tokens; first += kChunk) {
        const std::size_t num_keys = std::min(kChunk, shape.tokens - first);
        score(shape, packed, first, num_keys, work);
        for (std::size_t key = 0; key < num_keys; ++key)
            for (std::size_t i = 0; i < kVectors; ++i) {
                const __m256 scores = _mm256_load_ps(work.scores + key * kQueries + 8 * i);
                most[i] = _mm256_max_ps(most[i], _mm256_mul_ps(scores, _mm256_set1_ps(factor)));
            }
    }
    alignas(32) float largest[kQueries];
    for (std::size_t i = 0; i < kVectors; ++i) _mm256_store_ps(largest + 8 * i, most[i]);
    for (std::size_t query = 0; query < kQueries; ++query)
        if (!is_in_range(work.sum[query])) work.shift[query] = largest[query];
    return true;
}

void write(const Shape &shape, const Work &work, std::size_t num_queries, float *out) {
    for (std::size_t query = 0; query < num_queries; ++query) {
        const float norm = 1.0F / work.sum[query];
        for (std::size_t d = 0; d < shape.depth; ++d) out[query * shape.width() + d] = work.out[d * kQueries + query] * norm;
    }
}

}  // namespace

std::size_t packed_elements(const Shape &shape) {
    return round_up(shape.tokens) * shape.depth + round_up(shape.depth) * shape.tokens;
}

// Keys become [tokens / kRows][depth][kRows], values [depth / kRows][tokens][kRows], both padded with zeros.
void pack(const Shape &shape, const float *keys, const float *values, std::size_t first, std::size_t last, float *packed) {
    float *const packed_values = packed + round_up(shape.tokens) * shape.depth;
    for (std::size_t token = first; token < last; token += kRows) {
        const std::size_t at = token * shape.width(), num_tokens = std::min(kRows, last - token);
        for (std::size_t d = 0; d < shape.depth; d += kRows) {
            const std::size_t num_depths = std::min(kRows, shape.depth - d);
            __m128 key[kRows];
            for (std::size_t i = 0; i < kRows; ++i)
                key[i] = i < num_tokens ? first_numbers(keys + at + i * shape.width() + d, num_depths) : _mm_setzero_ps();
            _MM_TRANSPOSE4_PS(key[0], key[1], key[2], key[3]);
            for (std::size_t i = 0; i < num_depths; ++i)
                _mm_storeu_ps(packed + token * shape.depth + (d + i) * kRows, key[i]);
            for (std::size_t i = 0; i < num_tokens; ++i)
                _mm_storeu_ps(packed_values + d * shape.tokens + (token + i) * kRows,
                              first_numbers(values + at + i * shape.width() + d, num_depths));
        }
    }
}

void attend(const Shape &shape, float scale, const float *queries, std::size_t num_queries, const float *packed,
            float *out) {
    constexpr float kLog2E = 1.44269504F;
    const float factor = scale * kLog2E;
    Work work;
    std::memset(work.shift, 0, sizeof work.shift);
    pack_queries(shape, queries, num_queries, work);
    run(shape, _mm256_set1_ps(factor), packed, work);
    if (find_shifts(shape, factor, packed, work)) run(shape, _mm256_set1_ps(factor), packed, work);
    write(shape, work, num_queries, out);
}

}  // namespace mvde::internal::attention::avx2
