// Merges the blocks of a group's patches (Chan et al., 1979), in double.
#pragma once

#include "kernel/block.hpp"

namespace mvde::internal {
namespace {

// Loops cover the whole group, absent patches included, so that the compiler can vectorise them.
struct Patches {
    double count[kGroup], mean[kGroup], sum_squares[kGroup], slope[kGroup];
    float lowest[kGroup], highest[kGroup];
};

// Initialises the patches from `blocks`. Blocks without a valid pixel are all zero.
inline void start(Patches &patches, const Blocks &blocks) {
    for (int i = 0; i < kGroup; ++i) {
        const double count = blocks.count[i], sum = blocks.sum[i];
        const double offset = sum / (count > 0 ? count : 1.0);
        patches.count[i] = count;
        patches.mean[i] = blocks.shift[i] + offset;
        patches.sum_squares[i] = blocks.sum_squares[i] - sum * offset;
        patches.slope[i] = blocks.slope[i];
        patches.lowest[i] = blocks.lowest[i];
        patches.highest[i] = blocks.highest[i];
    }
}

inline void merge(Patches &patches, const Blocks &blocks) {
    Patches other;
    start(other, blocks);
    for (int i = 0; i < kGroup; ++i) {
        const double total = patches.count[i] + other.count[i];
        const double share = other.count[i] / (total > 0 ? total : 1.0);  // exactly 1 if the patch was empty
        const double distance = other.mean[i] - patches.mean[i];
        patches.mean[i] = share < 1.0 ? patches.mean[i] + distance * share : other.mean[i];
        patches.sum_squares[i] += other.sum_squares[i] + distance * distance * patches.count[i] * share;
        patches.count[i] = total;
        patches.slope[i] += other.slope[i];
        patches.lowest[i] = other.lowest[i] < patches.lowest[i] ? other.lowest[i] : patches.lowest[i];
        patches.highest[i] = other.highest[i] > patches.highest[i] ? other.highest[i] : patches.highest[i];
    }
}

// Writes the requested statistics of `num_patches` patches.
inline void write_patches(const PostprocessJob &job, const Patches &patches, int num_patches, float *out) {
    float columns[MVDE_CONF + 1][kGroup];
    const double area = static_cast<double>(job.patch_size) * job.patch_size;
    for (int i = 0; i < kGroup; ++i) {
        const bool is_empty = !(patches.count[i] > 0);
        const double inverse = 1.0 / (is_empty ? 1.0 : patches.count[i]);
        const double var = patches.sum_squares[i] * inverse;
        columns[MVDE_MEAN][i] = static_cast<float>(patches.mean[i]);
        columns[MVDE_VAR][i] = var > 0 ? static_cast<float>(var) : 0.0F;
        columns[MVDE_GRAD][i] = static_cast<float>(0.5 * patches.slope[i] * inverse);
        columns[MVDE_MIN][i] = is_empty ? 0.0F : patches.lowest[i];
        columns[MVDE_MAX][i] = patches.highest[i];
        columns[MVDE_VALID][i] = static_cast<float>(patches.count[i] / area);
        columns[MVDE_CONF][i] = 0.0F;  // write_confidence fills it in
    }
    for (int s = 0; s < job.num_stats; ++s) {
        const float *column = columns[job.stats[s]];
        for (int i = 0; i < num_patches; ++i) out[i * job.num_stats + s] = column[i];
    }
}

}  // namespace
}  // namespace mvde::internal
