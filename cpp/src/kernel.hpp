// The fused post-processing kernel, written once over Lanes. Each kernel_<isa>.cpp includes one lanes_<isa>.hpp and then
// this file; everything here has internal linkage, so that no code built for a newer CPU can be linked in elsewhere.
#pragma once

#include "block.hpp"

namespace mvde {
namespace {

struct Tile {
    std::int64_t image, y, x;  // of the first pixel
    int height, width;
};

MVDE_INLINE std::int64_t clamped(std::int64_t value, std::int64_t low, std::int64_t high) {
    return value < low ? low : value > high ? high : value;
}

// Fills rows -1 … height and columns -1 … width of the tile around `origin`, and writes the tile's part of the depth
// map. Says whether every pixel, neighbours included, is valid.
bool load_tile(const Job &job, RowConverter convert, const Tile &tile, float *origin) {
    const std::int64_t left = tile.x > 0 ? kLanes : 0;
    const std::int64_t end = clamped(tile.x + tile.width + kLanes, 0, job.width);
    const bool needs_neighbours = job.num_stats > 0;
    bool all_valid = true;
    for (int y = needs_neighbours ? -1 : 0; y < tile.height + (needs_neighbours ? 1 : 0); ++y) {
        const std::int64_t source_y = clamped(tile.y + y, 0, job.height - 1);
        const unsigned char *source = job.raw.data + tile.image * job.raw.batch_stride + source_y * job.raw.row_stride +
                                      (tile.x - left) * job.raw.pixel_stride;
        float *row = origin + y * kTileStride;
        all_valid &= convert(job, source, end - tile.x + left, row - left);
        if (left == 0) row[-1] = row[0];
        if (tile.x + tile.width == job.width) row[tile.width] = row[tile.width - 1];
        if (job.depth.data && y >= 0 && y < tile.height) {
            write_row(job, row, tile.width, job.depth.data + tile.image * job.depth.batch_stride +
                                                source_y * job.depth.row_stride + tile.x * job.depth.pixel_stride);
        }
    }
    return all_valid;
}

struct Functions {
    RowConverter convert;
    BlockFunction clean, masked;
};

// The patches [first_patch, first_patch + num_patches) of one row of patches; they fit side by side into a tile, or it is
// one patch that is wider than a tile.
void run_patches(const Job &job, const Functions &functions, std::int64_t image, std::int64_t patch_row,
                 std::int64_t first_patch, std::int64_t num_patches, float *origin, Patch *patches) {
    const std::int64_t size = job.patch_size, width = num_patches * size;
    for (std::int64_t i = 0; i < num_patches; ++i) patches[i] = Patch{};
    for (std::int64_t y = 0; y < size; y += kTileRows) {
        for (std::int64_t x = 0; x < width; x += kTileColumns) {
            const Tile tile{image, patch_row * size + y, first_patch * size + x,
                            static_cast<int>(clamped(size - y, 1, kTileRows)),
                            static_cast<int>(clamped(width - x, 1, kTileColumns))};
            const bool clean = load_tile(job, functions.convert, tile, origin);
            const BlockFunction block = clean ? functions.clean : functions.masked;
            const int block_width = static_cast<int>(clamped(size, 1, tile.width));
            for (int i = 0; i * block_width < tile.width; ++i)
                merge(patches[i], block(origin + i * block_width, tile.height, block_width));
        }
    }
    const std::int64_t columns = job.width / size, rows = job.height / size;
    float *out = job.stats_out + ((image * rows + patch_row) * columns + first_patch) * job.num_stats;
    for (std::int64_t i = 0; i < num_patches; ++i) write_patch(job, patches[i], out + i * job.num_stats);
}

// Sixteen rows of an image whose statistics nobody asked for.
void run_depth_only(const Job &job, RowConverter convert, std::int64_t image, std::int64_t y, float *origin) {
    for (std::int64_t x = 0; x < job.width; x += kTileColumns) {
        const Tile tile{image, y, x, static_cast<int>(clamped(job.height - y, 1, kTileRows)),
                        static_cast<int>(clamped(job.width - x, 1, kTileColumns))};
        load_tile(job, convert, tile, origin);
    }
}

void run(const Job &job, std::int64_t first, std::int64_t last, const char **executed) {
    *executed = Lanes::kName;
    alignas(64) float scratch[(kTileRows + 2) * kTileStride];
    float *origin = scratch + kTileStride + kLanes;
    Patch patches[kTileColumns];
    const bool extremes = [&job] {
        for (int i = 0; i < job.num_stats; ++i)
            if (job.stats[i] == MVDE_MIN || job.stats[i] == MVDE_MAX) return true;
        return false;
    }();
    const int block_width = job.patch_size < kTileColumns ? job.patch_size : 0;
    const Functions functions{row_converter(job), block_function(block_width, false, extremes),
                              block_function(block_width, true, extremes)};
    const std::int64_t units = (job.height + job.patch_size - 1) / job.patch_size;  // per image
    const std::int64_t columns = job.width / job.patch_size;
    const std::int64_t per_tile = clamped(kTileColumns / job.patch_size, 1, kTileColumns);
    for (std::int64_t unit = first; unit < last; ++unit) {
        const std::int64_t image = unit / units, row = unit % units;
        if (job.num_stats == 0) {
            run_depth_only(job, functions.convert, image, row * job.patch_size, origin);
            continue;
        }
        for (std::int64_t patch = 0; patch < columns; patch += per_tile)
            run_patches(job, functions, image, row, patch, clamped(columns - patch, 1, per_tile), origin, patches);
    }
}

}  // namespace
}  // namespace mvde
