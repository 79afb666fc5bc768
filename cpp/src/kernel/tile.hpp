// A tile stays in the first-level cache while all sums of a block are computed: 16 rows, one neighbour above and below, and
// a chunk left and right, of which only the adjacent pixel is used.
#pragma once

#include "kernel/mask.hpp"
#include "kernel/patch.hpp"

namespace mvde::internal {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileColumns = 256;
constexpr int kTileStride = kTileColumns + 3 * kLanes;

struct Tile {
    std::int64_t image, y, x;  // of the first pixel
    int height, width;
};

MVDE_INLINE std::int64_t clamped(std::int64_t value, std::int64_t low, std::int64_t high) {
    return value < low ? low : value > high ? high : value;
}

// Fills rows -1 … height and columns -1 … width of the tile around `origin`, and writes the tile's part of the depth map.
// Returns whether every pixel, neighbours included, is valid.
bool load_tile(const PostprocessJob &job, RowConverter convert, const Tile &tile, float *origin) {
    const std::int64_t left = clamped(tile.x, 0, kLanes);
    const std::int64_t end = clamped(tile.x + tile.width + kLanes, 0, job.width);
    const bool needs_neighbours = job.num_stats > 0;
    bool all_valid = true;
    for (int y = needs_neighbours ? -1 : 0; y < tile.height + (needs_neighbours ? 1 : 0); ++y) {
        const std::int64_t source_y = clamped(tile.y + y, 0, job.height - 1);
        float *row = origin + y * kTileStride;
        all_valid &= convert_pixels(job, convert, tile.image, source_y, tile.x - left, end - tile.x + left, row - left,
                                    kTileStride);
        if (left == 0) row[-1] = row[0];
        if (tile.x + tile.width == job.width) row[tile.width] = row[tile.width - 1];
        if (job.depth.data && y >= 0 && y < tile.height) {
            unsigned char *depth = address(job.depth, tile.image, source_y, tile.x);
            write_row(job, row, tile.width, depth);
            if (job.marks_sky)
                mark_sky(job, address(job.mask, tile.image, source_y, tile.x), tile.width, reinterpret_cast<float *>(depth));
        }
    }
    return all_valid;
}

}  // namespace
}  // namespace mvde::internal
