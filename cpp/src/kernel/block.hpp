// Sums over one block (up to 16 rows of one patch) of each patch of a group, read in place from a tile or the caller's map.
#pragma once

#include "kernel/convert.hpp"

#include <initializer_list>

namespace mvde::internal {
namespace {

// A group is up to sixteen adjacent patches, whose horizontal sums and statistics are computed together.
constexpr int kGroup = kLanes;

// Four cache lines ahead on the same row: the jumps between rows defeat the hardware prefetcher of the first-level cache.
constexpr std::int64_t kAheadBytes = 256;

// The pixels of a group's first block; each following block is one block width to the right.
struct Pixels {
    const float *first;          // first row
    std::int64_t stride;         // floats between rows
    const float *above, *below;  // the rows adjacent to the block
};

enum class Care {
    kNone,   // all pixels, neighbours included, are known to be valid
    kCheck,  // as kNone, but unverified: the result is in Blocks::all_valid
    kMask,   // invalid pixels are NaN
};

struct Blocks {
    float count[kGroup];  // valid pixels
    float shift[kGroup];  // close to the mean, so that summands are small: an offset of kilometres costs no precision
    float sum[kGroup], sum_squares[kGroup];  // of depth - shift
    float slope[kGroup];                     // sum of 2 * gradient magnitude
    float lowest[kGroup], highest[kGroup];
    bool all_valid;
};

struct Bounds {
    float lower_m, upper_m;
};

// Sum per lane of every `step`-th row of a block, and the number of pixels in it.
template <bool kMasked>
MVDE_INLINE F sparse_sum(const float *first, std::int64_t stride, int height, int width, int step, F &count) {
    F sum = Lanes::broadcast(0.0F);
    count = sum;
    for (int x = 0; x < width; x += kLanes) {
        const M lanes = Lanes::first(width - x < kLanes ? width - x : kLanes);
        for (int y = step / 2; y < height; y += step) {
            const F depth = Lanes::load(first + y * stride + x);
            const M used = kMasked ? Lanes::both(lanes, Lanes::ordered(depth)) : lanes;
            sum = Lanes::add(sum, Lanes::keep(used, depth));
            if (kMasked) count = Lanes::add(count, Lanes::keep(used, Lanes::broadcast(1.0F)));
        }
    }
    return sum;
}

// The mean over every fourth row if all of it is valid, else over all valid pixels. For k of n pixels, (mean - shift)^2 <=
// variance * n / k, so cancellation in the variance costs at most a factor 5 in relative error; in practice nothing.
template <bool kMasked>
MVDE_INLINE void set_shifts(const Pixels &pixels, int num_blocks, int height, int width, float *shift) {
    const int step = height < 8 ? 1 : 4;
    const float num_seen = static_cast<float>((height - step / 2 + step - 1) / step * width);
    F sums[kGroup], counts[kGroup];
    for (int i = 0; i < num_blocks; ++i)
        sums[i] = sparse_sum<kMasked>(pixels.first + i * width, pixels.stride, height, width, step, counts[i]);
    Lanes::sums(sums, num_blocks, shift);
    for (int i = 0; i < num_blocks; ++i) {
        if (kMasked && Lanes::sum(counts[i]) < num_seen) {
            const F all = sparse_sum<true>(pixels.first + i * width, pixels.stride, height, width, 1, counts[i]);
            const float num_valid = Lanes::sum(counts[i]);
            shift[i] = num_valid > 0.0F ? Lanes::sum(all) / num_valid : 0.0F;
        } else {
            shift[i] /= num_seen;
        }
    }
}

struct Sums {
    F sum, sum_squares, slope, count, lowest, highest;
};

// Extremes of all pixels that a group reads, neighbours included.
struct Seen {
    F lowest, highest;
    MVDE_INLINE void add(F depth) {
        lowest = Lanes::min(depth, lowest);
        highest = Lanes::max(depth, highest);
    }
};

struct Chunk {
    F above, depth, below, left, right;
};

// kPartial: only `lanes` lanes belong to the block.
template <bool kPartial, bool kMasked, bool kExtremes>
MVDE_INLINE void accumulate(Sums &sums, const Chunk &chunk, F shift, M lanes) {
    const F depth = chunk.depth;
    F gx = Lanes::sub(chunk.right, chunk.left);
    F gy = Lanes::sub(chunk.below, chunk.above);
    if (kMasked) {  // a difference with an invalid pixel is NaN here; the specification says 0
        gx = Lanes::keep(Lanes::ordered(gx), gx);
        gy = Lanes::keep(Lanes::ordered(gy), gy);
        lanes = Lanes::both(lanes, Lanes::ordered(depth));
        sums.count = Lanes::add(sums.count, Lanes::keep(lanes, Lanes::broadcast(1.0F)));
    }
    // The sqrt instruction rather than an estimate with Newton steps: with AVX-512 the latter was 15 % slower, and no mix
    // of the two was faster, because the steps compete for the arithmetic ports.
    F slope = Lanes::sqrt(Lanes::add(Lanes::mul(gx, gx), Lanes::mul(gy, gy)));
    F deviation = Lanes::sub(depth, shift);
    if (kMasked || kPartial) {
        slope = Lanes::keep(lanes, slope);
        deviation = Lanes::keep(lanes, deviation);
    }
    sums.sum = Lanes::add(sums.sum, deviation);
    sums.sum_squares = Lanes::add(sums.sum_squares, Lanes::mul(deviation, deviation));
    sums.slope = Lanes::add(sums.slope, slope);
    if (kExtremes) {
        const bool all = !kMasked && !kPartial;
        sums.lowest = Lanes::min(all ? depth : Lanes::select(lanes, depth, Lanes::broadcast(kInfinity)), sums.lowest);
        sums.highest = Lanes::max(all ? depth : Lanes::keep(lanes, depth), sums.highest);
    }
}

// A column of chunks, top to bottom: each row's "below" is the next row's depth.
template <bool kPartial, Care kCare, bool kExtremes>
MVDE_INLINE void accumulate_column(Sums &sums, Seen &seen, const Pixels &pixels, std::int64_t x, int height, F shift,
                                   M lanes) {
    const float *p = pixels.first + x;
    Chunk chunk{Lanes::load(pixels.above + x), Lanes::load(p), {}, {}, {}};
    if (kCare == Care::kCheck) seen.add(chunk.above);
    for (int y = 0; y < height; ++y, p += pixels.stride) {
        chunk.below = Lanes::load(y + 1 < height ? p + pixels.stride : pixels.below + x);
        chunk.left = Lanes::load(p - 1);
        chunk.right = Lanes::load(p + 1);
        if (kCare == Care::kCheck) {
            seen.add(chunk.left);
            seen.add(chunk.right);
            prefetch(p, kAheadBytes);
        }
        accumulate<kPartial, kCare == Care::kMask, kExtremes>(sums, chunk, shift, lanes);
        chunk.above = chunk.depth;
        chunk.depth = chunk.below;
    }
    if (kCare == Care::kCheck) seen.add(chunk.below);
}

// Positive floats sort like their bits. A NaN can escape the extremes, but not the sums that include it.
MVDE_INLINE bool are_valid(const Seen &seen, const Blocks &blocks, const Bounds &bounds) {
    const std::uint32_t low = bits_of(bounds.lower_m), span = bits_of(bounds.upper_m) - low;
    const M in_range = Lanes::both(Lanes::in_bits(seen.lowest, low, span), Lanes::in_bits(seen.highest, low, span));
    const F sums = Lanes::add(Lanes::load(blocks.sum_squares), Lanes::load(blocks.slope));
    return Lanes::all(Lanes::both(in_range, Lanes::ordered(Lanes::sub(sums, sums))));
}

// kWidth: the blocks' width if known at compile time (14 and 16), else 0.
template <int kWidth, Care kCare, bool kExtremes>
void group_sums(const Pixels &pixels, int num_blocks, int block_height, int block_width, const Bounds &bounds,
                Blocks &blocks) {
    const int height = kWidth ? kWidth : block_height, width = kWidth ? kWidth : block_width;
    const int full = width / kLanes * kLanes;
    const M every = Lanes::first(kLanes), rest = Lanes::first(width - full);
    const F zero = Lanes::broadcast(0.0F), infinity = Lanes::broadcast(kInfinity);
    for (float *values :
         {blocks.count, blocks.shift, blocks.sum, blocks.sum_squares, blocks.slope, blocks.lowest, blocks.highest})
        Lanes::store(values, zero);
    set_shifts<kCare == Care::kMask>(pixels, num_blocks, height, width, blocks.shift);
    F sum[kGroup], sum_squares[kGroup], slope[kGroup];
    Seen seen{infinity, zero};
    for (int i = 0; i < num_blocks; ++i) {
        const F shift = Lanes::broadcast(blocks.shift[i]);
        Sums sums{zero, zero, zero, zero, infinity, zero};
        for (int x = i * width; x < i * width + full; x += kLanes)
            accumulate_column<false, kCare, kExtremes>(sums, seen, pixels, x, height, shift, every);
        if (full < width)
            accumulate_column<true, kCare, kExtremes>(sums, seen, pixels, i * width + full, height, shift, rest);
        sum[i] = sums.sum;
        sum_squares[i] = sums.sum_squares;
        slope[i] = sums.slope;
        blocks.count[i] = kCare == Care::kMask ? Lanes::sum(sums.count) : static_cast<float>(height * width);
        if (kExtremes) blocks.lowest[i] = Lanes::lowest(sums.lowest);
        if (kExtremes) blocks.highest[i] = Lanes::highest(sums.highest);
    }
    Lanes::sums(sum, num_blocks, blocks.sum);
    Lanes::sums(sum_squares, num_blocks, blocks.sum_squares);
    Lanes::sums(slope, num_blocks, blocks.slope);
    blocks.all_valid = kCare != Care::kCheck || are_valid(seen, blocks, bounds);
}

using GroupFunction = void (*)(const Pixels &pixels, int num_blocks, int height, int width, const Bounds &bounds,
                               Blocks &blocks);

template <int kWidth, Care kCare>
GroupFunction group_function(bool extremes) {
    return extremes ? group_sums<kWidth, kCare, true> : group_sums<kWidth, kCare, false>;
}

// `width`: width of patches that consist of a single block, else 0.
template <Care kCare>
GroupFunction group_function(int width, bool extremes) {
    if constexpr (Lanes::kHasFixedWidths) {
        if (width == 16) return group_function<16, kCare>(extremes);
        if (width == 14) return group_function<14, kCare>(extremes);
    }
    return group_function<0, kCare>(extremes);
}

}  // namespace
}  // namespace mvde::internal
