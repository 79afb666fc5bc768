// Scores are computed transposed, keys in rows and queries in columns: each query is a lane, its sum and maximum need no
// shuffles, and two interleaved rows of probabilities form the pairs that the second product reads.
#include "attention_amx.hpp"

#include "attention_avx512_parts.hpp"

#include <algorithm>
#include <cstring>

namespace mvde::internal::attention::amx {
namespace {

constexpr std::size_t kTile = 512;        // bf16 elements of a tile register (256 of float32)
constexpr std::size_t kGroup = 32;        // keys padded together
constexpr std::size_t kChunkGroups = 2;   // 64 keys: scores, probabilities, keys and values fit the first-level cache
constexpr std::size_t kRowBytes = 64;     // of a tile

// Sizes in tiles: 32 depths per score product, 16 depths per result tile, kGroup keys per group.
struct Steps {
    std::size_t score_depths, value_depths, groups;

    explicit Steps(const Shape &shape)
        : score_depths(round_up(shape.depth, 32) / 32), value_depths(round_up(shape.depth, 16) / 16),
          groups(round_up(shape.tokens, kGroup) / kGroup) {}
};

struct alignas(64) Work {
    float scores[kChunkGroups * kGroup * kQueries];  // tiles [16 keys][16 queries]; of a group: two keys by two queries
    Bf16 probabilities[kChunkGroups * kGroup * kQueries];  // tiles [16 pairs of keys][16 queries][2]
    Bf16 queries[kMaxDepth * kQueries];              // tiles [16 pairs of depths][16 queries][2]
    float out[kMaxDepth * kQueries];                 // tiles [16 depths][16 queries]
    float sum[kQueries], shift[kQueries];            // shift: subtracted from scores, in log2 units
};

// GCC's tile loads are not declared to read memory.
void stored_before_tiles() { asm volatile("" ::: "memory"); }

void store(Bf16 *to, const __m512i row[16]) {
    for (int i = 0; i < 16; ++i) _mm512_store_si512(to + 32 * i, row[i]);
}

void pack_queries(const Shape &shape, const Bf16 *queries, std::size_t num_queries, Work &work) {
    const Steps steps(shape);
    for (std::size_t d = 0; d < steps.score_depths; ++d)
        for (std::size_t half = 0; half < 2; ++half) {
            __m512i row[16];
            for (std::size_t i = 0; i < 16; ++i) {
                const std::size_t query = 16 * half + i;
                row[i] = query < num_queries ? first_pairs(queries + query * shape.width() + 32 * d, shape.depth - 32 * d)
                                             : _mm512_setzero_si512();
            }
            transpose(row);
            store(work.queries + (2 * d + half) * kTile, row);
        }
}

// Computes the scores of a group of 32 keys with the block's queries.
void score(const Steps &steps, const Bf16 *keys, const Bf16 *queries, float *scores) {
    stored_before_tiles();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (std::size_t d = 0; d < steps.score_depths; ++d) {
        _tile_loadd(4, keys + d * kTile, kRowBytes);
        _tile_loadd(5, keys + (steps.score_depths + d) * kTile, kRowBytes);
        _tile_loadd(6, queries + 2 * d * kTile, kRowBytes);
        _tile_loadd(7, queries + (2 * d + 1) * kTile, kRowBytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, scores, kRowBytes);
    _tile_stored(1, scores + 256, kRowBytes);
    _tile_stored(2, scores + 512, kRowBytes);
    _tile_stored(3, scores + 768, kRowBytes);
}

const float *score_row(const float *scores, std::size_t key, std::size_t half) {
    return scores + key / 16 * 512 + half * 256 + key % 16 * 16;
}

// Converts a group's scores to unnormalised probabilities. The sum is of the rounded values, so that they add up to 1.
void weigh(const float *scores, __m512 factor, std::size_t num_keys, Work &work, Bf16 *probabilities) {
    const __m512bh ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
    for (std::size_t half = 0; half < 2; ++half) {
        __m512 sum = _mm512_load_ps(work.sum + 16 * half);
        const __m512 shift = _mm512_load_ps(work.shift + 16 * half);
        for (std::size_t key = 0; key < kGroup; key += 2) {
            const float *row = score_row(scores, key, half);
            const auto power = [&](const float *from) {
                return exp2_to_truncate(_mm512_fmsub_ps(_mm512_load_ps(from), factor, shift));
            };
            __m512i pair = pairs_of_powers(power(row), power(row + 16));
            if (key + 2 > num_keys) pair = _mm512_maskz_mov_epi16(real_keys(key, num_keys), pair);
            _mm512_store_si512(probabilities + half * kTile + key * 16, pair);
            sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(pair), ones);
        }
        _mm512_store_ps(work.sum + 16 * half, sum);
    }
}

// Adds a chunk's weighted values to 16 or 32 depths of the result.
void accumulate(const Steps &steps, const Bf16 *values, std::size_t num_groups, std::size_t depth, Work &work) {
    float *out = work.out + depth * 512;
    const Bf16 *weights = work.probabilities;
    const bool two = depth + 1 < steps.value_depths;
    stored_before_tiles();
    _tile_loadd(0, out, kRowBytes);
    _tile_loadd(1, out + 256, kRowBytes);
    if (two) {
        _tile_loadd(2, out + 512, kRowBytes);
        _tile_loadd(3, out + 768, kRowBytes);
    }
    for (std::size_t group = 0; group < num_groups; ++group) {
        const Bf16 *tiles = values + (group * steps.value_depths + depth) * kTile;
        _tile_loadd(4, tiles, kRowBytes);
        _tile_loadd(6, weights + 2 * group * kTile, kRowBytes);
        _tile_loadd(7, weights + (2 * group + 1) * kTile, kRowBytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (two) {
            _tile_loadd(5, tiles + kTile, kRowBytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, out, kRowBytes);
    _tile_stored(1, out + 256, kRowBytes);
    if (two) {
        _tile_stored(2, out + 512, kRowBytes);
        _tile_stored(3, out + 768, kRowBytes);
    }
}

// Computes the weighted values and the sums over all keys, with the shifts in `work`.
void run(const Shape &shape, __m512 factor, const Bf16 *packed, Work &work) {
    const Steps steps(shape);
    const Bf16 *values = packed + Packed(shape).key_elements;
    std::memset(work.out, 0, steps.value_depths * 512 * sizeof(float));
    std::memset(work.sum, 0, sizeof work.sum);
    for (std::size_t first = 0; first < steps.groups; first += kChunkGroups) {
        const std::size_t num_groups = std::min(kChunkGroups, steps.groups - first);
        for (std::size_t i = 0; i < num_groups; ++i)
            score(steps, packed + (first + i) * 2 * steps.score_depths * kTile, work.queries, work.scores + i * 1024);
        for (std::size_t i = 0; i < num_groups; ++i) {
            const std::size_t num_keys = std::min(kGroup, shape.tokens - (first + i) * kGroup);
            weigh(work.scores + i * 1024, factor, num_keys, work, work.probabilities + i * 2 * kTile);
        }
        for (std::size_t depth = 0; depth < steps.value_depths; depth += 2)
            accumulate(steps, values + first * steps.value_depths * kTile, num_groups, depth, work);
    }
}

// Sets each query's shift to its largest score.
void find_shifts(const Shape &shape, __m512 factor, const Bf16 *packed, Work &work) {
    const Steps steps(shape);
    __m512 most[2] = {_mm512_set1_ps(-__builtin_inff()), _mm512_set1_ps(-__builtin_inff())};
    for (std::size_t group = 0; group < steps.groups; ++group) {
        score(steps, packed + group * 2 * steps.score_depths * kTile, work.queries, work.scores);
        const std::size_t num_keys = std::min(kGroup, shape.tokens - group * kGroup);
        for (std::size_t key = 0; key < num_keys; ++key)
            for (std::size_t half = 0; half < 2; ++half) {
                const __m512 scores = _mm512_mul_ps(_mm512_load_ps(score_row(work.scores, key, half)), factor);
                most[half] = _mm512_max_ps(most[half], scores);
            }
    }
    for (std::size_t half = 0; half < 2; ++half) _mm512_store_ps(work.shift + 16 * half, most[half]);
}

void write(const Shape &shape, const Work &work, std::size_t num_queries, Bf16 *out) {
    const Steps steps(shape);
    for (std::size_t half = 0; half < 2; ++half) {
        const __m512 norm = _mm512_div_ps(_mm512_set1_ps(1.0F), _mm512_load_ps(work.sum + 16 * half));
        for (std::size_t d = 0; d < steps.value_depths; ++d) {
            __m512i row[16];
            for (std::size_t i = 0; i < 16; ++i)
                row[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(work.out + d * 512 + half * 256 + i * 16), norm));
            transpose(row);
            for (std::size_t i = 0; i < 16 && 16 * half + i < num_queries; ++i)
                store_first(out + (16 * half + i) * shape.width() + 16 * d, _mm512_castsi512_ps(row[i]),
                            shape.depth - 16 * d);
        }
    }
}

}  // namespace

Packed::Packed(const Shape &shape)
    : key_elements(round_up(shape.tokens, kGroup) * round_up(shape.depth, 32)),
      value_elements(round_up(shape.tokens, kGroup) * round_up(shape.depth, 16)) {}

void pack(const Shape &shape, const Bf16 *keys, const Bf16 *values, std::size_t first, std::size_t last, Bf16 *packed) {
    const Steps steps(shape);
    Bf16 *const packed_values = packed + Packed(shape).key_elements;
    for (std::size_t key = first; key < round_up(last, kGroup); ++key)
        for (std::size_t d = 0; d < steps.score_depths; ++d) {
            const __m512i row = key < shape.tokens ? first_pairs(keys + key * shape.width() + 32 * d, shape.depth - 32 * d)
                                                   : _mm512_setzero_si512();
            _mm512_store_si512(packed + (key / 16 * steps.score_depths + d) * kTile + key % 16 * 32, row);
        }
    for (std::size_t group = first / kGroup; group * kGroup < last; ++group)
        for (std::size_t d = 0; d < steps.value_depths; ++d) {
            const auto value = [&](std::size_t key) {
                return key < shape.tokens ? values + key * shape.width() + 16 * d : nullptr;
            };
            __m512i row[16];
            for (std::size_t i = 0; i < 16; ++i) {
                const std::size_t key = group * kGroup + 2 * i;
                row[i] = pairs_of_rows(value(key), value(key + 1), shape.depth - 16 * d);
            }
            transpose(row);
            store(packed_values + (group * steps.value_depths + d) * kTile, row);
        }
}

Tiles::Tiles() {
    // Eight tiles of 16 rows of 64 bytes, after the palette ID and reserved bytes.
    alignas(64) std::uint8_t ours[64] = {1};
    for (int i = 0; i < 8; ++i) {
        ours[16 + 2 * i] = kRowBytes;
        ours[48 + i] = 16;
    }
    asm volatile("sttilecfg %0\n\tldtilecfg %1" : "=m"(before_) : "m"(ours));
}

Tiles::~Tiles() { asm volatile("ldtilecfg %0" : : "m"(before_)); }

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

}  // namespace mvde::internal::attention::amx
