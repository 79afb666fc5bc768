// Statistics of one block (at most 16 rows of one patch) of a tile, and their merging into whole patches.
#pragma once

#include "convert.hpp"

namespace mvde {
namespace {

// A tile is what stays in the first-level cache while all of a block's sums are taken: 16 rows, one neighbour above and
// below, and a chunk left and right of which the pixel next to the tile is used.
constexpr int kTileRows = 16;
constexpr int kTileColumns = 256;
constexpr int kTileStride = kTileColumns + 3 * kLanes;

struct Block {
    float count;   // valid pixels
    float shift;   // close to the mean: what is summed is small, so an offset of kilometres costs no digits
    float sum, sum_squares;  // of depth - shift
    float slope;             // sum of 2 * gradient magnitude
    float lowest, highest;
};

// Mean over the valid pixels of every `step`-th row. For k of n pixels, (mean - shift)^2 <= variance * n / k, so the
// cancellation in the variance costs at most a factor 1 + n / k in relative error, and in practice none.
template <bool kMasked>
MVDE_INLINE float block_shift(const float *origin, int height, int width) {
    // A masked block looks at every row: the few rows of a sparse look may hold no valid pixel.
    const int step = kMasked || height < 8 ? 1 : 4;
    F sum = Lanes::broadcast(0.0F), count = sum;
    for (int y = step / 2; y < height; y += step) {
        for (int x = 0; x < width; x += kLanes) {
            const F depth = Lanes::load(origin + y * kTileStride + x);
            M lanes = Lanes::first(width - x < kLanes ? width - x : kLanes);
            if (kMasked) lanes = Lanes::both(lanes, Lanes::ordered(depth));
            sum = Lanes::add(sum, Lanes::keep(lanes, depth));
            if (kMasked) count = Lanes::add(count, Lanes::keep(lanes, Lanes::broadcast(1.0F)));
        }
    }
    if (!kMasked) return Lanes::sum(sum) / static_cast<float>((height + step - 1 - step / 2) / step * width);
    const float num_valid = Lanes::sum(count);
    return num_valid > 0.0F ? Lanes::sum(sum) / num_valid : 0.0F;
}

struct Sums {
    F sum, sum_squares, slope, count, lowest, highest;
};

// kPartial: only `lanes` belong to the block. kMasked: some pixels here or next to the block are NaN.
template <bool kPartial, bool kMasked, bool kExtremes>
MVDE_INLINE void accumulate(Sums &sums, const float *p, F shift, M lanes) {
    const F depth = Lanes::load(p);
    F gx = Lanes::sub(Lanes::load(p + 1), Lanes::load(p - 1));
    F gy = Lanes::sub(Lanes::load(p + kTileStride), Lanes::load(p - kTileStride));
    if (kMasked) {  // a difference that touches an invalid pixel is NaN here, and 0 by the specification
        gx = Lanes::keep(Lanes::ordered(gx), gx);
        gy = Lanes::keep(Lanes::ordered(gy), gy);
        lanes = Lanes::both(lanes, Lanes::ordered(depth));
        sums.count = Lanes::add(sums.count, Lanes::keep(lanes, Lanes::broadcast(1.0F)));
    }
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

// kWidth: the block's width where it is known at compile time (14 and 16), else 0.
template <int kWidth, bool kMasked, bool kExtremes>
Block block_stats(const float *origin, int height, int block_width) {
    const int width = kWidth ? kWidth : block_width;
    const int full = width / kLanes * kLanes;
    const M every = Lanes::first(kLanes), rest = Lanes::first(width - full);
    const float block_mean = block_shift<kMasked>(origin, height, width);
    const F zero = Lanes::broadcast(0.0F), shift = Lanes::broadcast(block_mean);
    Sums sums{zero, zero, zero, zero, Lanes::broadcast(kInfinity), zero};
    for (int y = 0; y < height; ++y) {
        const float *row = origin + y * kTileStride;
        for (int x = 0; x < full; x += kLanes) accumulate<false, kMasked, kExtremes>(sums, row + x, shift, every);
        if (full < width) accumulate<true, kMasked, kExtremes>(sums, row + full, shift, rest);
    }
    Block block;
    block.count = kMasked ? Lanes::sum(sums.count) : static_cast<float>(height * width);
    block.shift = block_mean;
    block.sum = Lanes::sum(sums.sum);
    block.sum_squares = Lanes::sum(sums.sum_squares);
    block.slope = Lanes::sum(sums.slope);
    block.lowest = kExtremes ? Lanes::lowest(sums.lowest) : 0.0F;
    block.highest = kExtremes ? Lanes::highest(sums.highest) : 0.0F;
    return block;
}

using BlockFunction = Block (*)(const float *origin, int height, int width);

template <int kWidth>
BlockFunction block_function(bool masked, bool extremes) {
    if (masked) return extremes ? block_stats<kWidth, true, true> : block_stats<kWidth, true, false>;
    return extremes ? block_stats<kWidth, false, true> : block_stats<kWidth, false, false>;
}

inline BlockFunction block_function(int width, bool masked, bool extremes) {
    if (width == 16) return block_function<16>(masked, extremes);
    if (width == 14) return block_function<14>(masked, extremes);
    return block_function<0>(masked, extremes);
}

// A patch that is being put together from its blocks (Chan et al., 1979), in double.
struct Patch {
    double count = 0, mean = 0, sum_squares = 0, slope = 0;
    float lowest = kInfinity, highest = 0;
};

inline void merge(Patch &patch, const Block &block) {
    if (block.count == 0.0F) return;
    const double count = block.count, sum = block.sum;
    const double offset = sum / count;
    const double mean = block.shift + offset, spread = block.sum_squares - sum * offset;
    const double total = patch.count + count, distance = mean - patch.mean;
    if (patch.count == 0) {
        patch.mean = mean;
        patch.sum_squares = spread;
    } else {
        patch.mean += distance * count / total;
        patch.sum_squares += spread + distance * distance * patch.count * count / total;
    }
    patch.count = total;
    patch.slope += block.slope;
    patch.lowest = block.lowest < patch.lowest ? block.lowest : patch.lowest;
    patch.highest = block.highest > patch.highest ? block.highest : patch.highest;
}

inline void write_patch(const Job &job, const Patch &patch, float *out) {
    float values[6] = {};
    if (patch.count > 0) {
        const double inverse = 1.0 / patch.count;
        values[MVDE_MEAN] = static_cast<float>(patch.mean);
        values[MVDE_VAR] = patch.sum_squares > 0 ? static_cast<float>(patch.sum_squares * inverse) : 0.0F;
        values[MVDE_GRAD] = static_cast<float>(0.5 * patch.slope * inverse);
        values[MVDE_MIN] = patch.lowest;
        values[MVDE_MAX] = patch.highest;
        const double area = static_cast<double>(job.patch_size) * job.patch_size;
        values[MVDE_VALID] = static_cast<float>(patch.count / area);
    }
    for (int i = 0; i < job.num_stats; ++i) out[i] = values[job.stats[i]];
}

}  // namespace
}  // namespace mvde
