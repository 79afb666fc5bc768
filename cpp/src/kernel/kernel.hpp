// The fused post-processing kernel, written once over Lanes. Each kernel_<isa>.cpp includes one lanes_<isa>.hpp and then
// this file. Everything here has internal linkage, so that code built for a newer CPU is never linked in elsewhere.
//
// Patches take one of two paths, with bit-identical results. A map in metres (the caller's, or the depth map just written)
// is read in place for patches that are all valid and inside the image. All others go through a tile: a copy with
// replicated image borders and NaN for invalid pixels.
#pragma once

#include "kernel/tile.hpp"

namespace mvde::internal {
namespace {

struct Functions {
    RowConverter convert;
    GroupFunction clean, masked, checked;
};

// One call's row of patches.
struct Unit {
    const PostprocessJob &job;
    const Functions &functions;
    std::int64_t image, row;
    float *scratch, *neighbours;  // a tile; two of its rows

    std::int64_t top() const { return row * job.patch_size; }
    float *stats_of(std::int64_t patch) const {
        const std::int64_t rows = job.height / job.patch_size, columns = job.width / job.patch_size;
        return job.stats_out + ((image * rows + row) * columns + patch) * job.num_stats;
    }
};

// --------------------------------------------------------------------------------------------------------- through tiles

// The patches [first, first + num) fit side by side into a tile, or are a single patch wider than a tile.
void run_in_tiles(const Unit &unit, std::int64_t first, std::int64_t num) {
    const std::int64_t size = unit.job.patch_size, width = num * size;
    Patches groups[kTileColumns / kGroup];
    float *origin = unit.scratch + kTileStride + kLanes;
    for (std::int64_t y = 0; y < size; y += kTileRows) {
        for (std::int64_t x = 0; x < width; x += kTileColumns) {
            const Tile tile{unit.image, unit.top() + y, first * size + x, static_cast<int>(clamped(size - y, 1, kTileRows)),
                            static_cast<int>(clamped(width - x, 1, kTileColumns))};
            const bool clean = load_tile(unit.job, unit.functions.convert, tile, origin);
            const GroupFunction sums = clean ? unit.functions.clean : unit.functions.masked;
            const int block_width = static_cast<int>(clamped(size, 1, tile.width));
            const int num_blocks = tile.width / block_width;
            for (int i = 0; i < num_blocks; i += kGroup) {
                const float *pixels = origin + i * block_width;
                Blocks blocks;
                sums({pixels, kTileStride, pixels - kTileStride, pixels + tile.height * kTileStride},
                     static_cast<int>(clamped(num_blocks - i, 1, kGroup)), tile.height, block_width, {}, blocks);
                if (x == 0 && y == 0) start(groups[i / kGroup], blocks);
                else merge(groups[i / kGroup], blocks);
            }
        }
    }
    for (std::int64_t i = 0; i < num; i += kGroup)
        write_patches(unit.job, groups[i / kGroup], static_cast<int>(clamped(num - i, 1, kGroup)), unit.stats_of(first + i));
}

void run_all_in_tiles(const Unit &unit, std::int64_t first, std::int64_t last) {
    const std::int64_t per_tile = clamped(kTileColumns / unit.job.patch_size, 1, kTileColumns);
    for (std::int64_t patch = first; patch < last; patch += per_tile)
        run_in_tiles(unit, patch, clamped(last - patch, 1, per_tile));
}

// -------------------------------------------------------------------------------------------------------------- in place

// A unit's pixels in a map in metres; empty if they must go through tiles.
struct InPlace {
    const float *first;   // the unit's first row
    std::int64_t stride;  // floats
    bool is_raw;          // the caller's map, not yet known to be valid
};

// Columns copied with a patch at the left or right border: its own and one more, in whole chunks.
std::int64_t border_columns(std::int64_t size) { return size / kLanes * kLanes + kLanes; }

// Columns that a group reads, relative to its first patch.
struct Span {
    std::int64_t first, count;
};

// The row adjacent to a unit, starting at `column`; for a map that is being converted, a converted copy of the span.
// nullptr if not all of it is valid.
const float *neighbours(const Unit &unit, const InPlace &place, std::int64_t y, std::int64_t column, const Span &span,
                        float *copy) {
    const PostprocessJob &job = unit.job;
    const std::int64_t source_y = clamped(y, 0, job.height - 1);
    if (place.is_raw || source_y != y) return place.first + (source_y - unit.top()) * place.stride + column;
    const bool valid = convert_pixels(job, unit.functions.convert, unit.image, y, column + span.first, span.count, copy,
                                      span.count + kLanes);
    return valid ? copy - span.first : nullptr;
}

// A copy of a patch at the image's left or right border, with the border replicated.
Pixels with_border(const Pixels &pixels, int height, int width, bool at_left, const Span &span, float *copy) {
    float *origin = copy + kTileStride + kLanes;
    for (int y = -1; y <= height; ++y) {
        const float *source = y < 0 ? pixels.above : y < height ? pixels.first + y * pixels.stride : pixels.below;
        float *row = origin + y * kTileStride;
        for (std::int64_t x = span.first; x < span.first + span.count; x += kLanes)
            Lanes::store(row + x, Lanes::load(source + x));
        if (at_left) row[-1] = row[0];
        else Lanes::store(row + width, Lanes::broadcast(row[width - 1]));
    }
    return {origin, kTileStride, origin - kTileStride, origin + height * kTileStride};
}

// Processes a group of patches; one at the left or right border is a group of its own. Returns false, without writing, if
// it meets an invalid pixel.
bool run_in_place(const Unit &unit, const InPlace &place, std::int64_t first, int num) {
    const PostprocessJob &job = unit.job;
    const std::int64_t size = job.patch_size;
    const bool at_left = first == 0, at_right = first + num == job.width / size;
    const GroupFunction sums = place.is_raw ? unit.functions.checked : unit.functions.clean;
    Patches patches{};
    for (std::int64_t y = 0; y < size; y += kTileRows) {
        for (std::int64_t x = 0; x < size; x += kTileColumns) {
            const std::int64_t column = first * size + x;
            const int width = static_cast<int>(clamped(size - x, 1, kTileColumns));
            const int height = static_cast<int>(clamped(size - y, 1, kTileRows));
            Span span{0, static_cast<std::int64_t>(num) * width};
            if (at_left || at_right) span.count = border_columns(size);
            if (at_right) span.first = width - span.count;
            Pixels pixels{place.first + y * place.stride + column, place.stride, nullptr, nullptr};
            pixels.above = y ? pixels.first - place.stride
                             : neighbours(unit, place, unit.top() - 1, column, span, unit.neighbours);
            pixels.below = y + height < size
                               ? pixels.first + height * place.stride
                               : neighbours(unit, place, unit.top() + size, column, span, unit.neighbours + kTileStride);
            if (!pixels.above || !pixels.below) return false;
            if (at_left || at_right) pixels = with_border(pixels, height, width, at_left, span, unit.scratch);
            Blocks blocks;
            sums(pixels, num, height, width, {job.lower_m, job.upper_m}, blocks);
            if (!blocks.all_valid) return false;
            if (x == 0 && y == 0) start(patches, blocks);
            else merge(patches, blocks);
        }
    }
    write_patches(job, patches, num, unit.stats_of(first));
    return true;
}

bool holds_metres(const PostprocessJob &job) {
    return job.raw.dtype == MVDE_FLOAT32 && job.raw.pixel_stride == static_cast<std::int64_t>(sizeof(float)) &&
           job.conversion == MVDE_LINEAR && job.scale == 1.0F && job.shift == 0.0F && !job.clamps && !job.mask.data &&
           !job.depth.data;
}

// Writes the unit's depth. Returns whether all of it is valid; if not, its rows are incomplete.
bool write_depth(const Unit &unit) {
    const PostprocessJob &job = unit.job;
    for (std::int64_t y = unit.top(); y < unit.top() + job.patch_size; ++y) {
        float *out = reinterpret_cast<float *>(address(job.depth, unit.image, y, 0));
        if (!convert_pixels(job, unit.functions.convert, unit.image, y, 0, job.width, out, job.width)) return false;
    }
    return true;
}

InPlace in_place(const Unit &unit) {
    const PostprocessJob &job = unit.job;
    const bool is_raw = holds_metres(job);
    if (!is_raw && !(job.depth.data && job.depth.dtype == MVDE_FLOAT32 && write_depth(unit))) return {nullptr, 0, false};
    const Plane &plane = is_raw ? job.raw : job.depth;
    const unsigned char *first = plane.data + unit.image * plane.batch_stride + unit.top() * plane.row_stride;
    return {reinterpret_cast<const float *>(first), plane.row_stride / static_cast<std::int64_t>(sizeof(float)), is_raw};
}

void run_patches(const Unit &unit, const InPlace &place, std::int64_t first, std::int64_t last, std::int64_t per_group) {
    for (std::int64_t patch = first; patch < last; patch += per_group) {
        const std::int64_t num = clamped(last - patch, 1, per_group);
        if (!run_in_place(unit, place, patch, static_cast<int>(num))) run_in_tiles(unit, patch, num);
    }
}

// Patches are read in whole chunks plus one pixel on either side. Those at the border, and those whose chunks extend past
// it, cannot be read in place.
void run_unit(const Unit &unit) {
    const PostprocessJob &job = unit.job;
    const std::int64_t size = job.patch_size, columns = job.width / size;
    const InPlace place = in_place(unit);
    const bool is_wide = columns > 2 && job.width >= border_columns(size) && size < kTileColumns;
    if (!place.first || !is_wide) return run_all_in_tiles(unit, 0, columns);
    const std::int64_t read = (size + kLanes - 1) / kLanes * kLanes + 1;
    const std::int64_t last = clamped((job.width - read) / size + 1, 1, columns - 1);
    run_patches(unit, place, 0, 1, 1);
    run_patches(unit, place, 1, last, clamped(kTileColumns / size, 1, kGroup));
    if (last == columns - 1) run_patches(unit, place, last, columns, 1);
    else run_all_in_tiles(unit, last, columns);
}

// ------------------------------------------------------------------------------------------------------------ confidence

// Up to sixteen rows and 256 columns of adjacent patches, from a pixel on.
struct Part {
    std::int64_t y, x, height, width;
};

struct Mean {
    double sum, count;
};

// Adds a part's confidence at valid pixels to its patches. Values that are not finite count as 0.
void add_confidence(const Unit &unit, const Part &part, Mean *patches) {
    const PostprocessJob &job = unit.job;
    for (std::int64_t y = 0; y < part.height; ++y)
        convert_pixels(job, unit.functions.convert, unit.image, part.y + y, part.x, part.width,
                       unit.scratch + y * kTileStride, kTileStride);
    const std::int64_t block = clamped(job.patch_size, 1, part.width);
    for (std::int64_t left = 0; left < part.width; left += block) {
        F sum = Lanes::broadcast(0.0F), count = sum;
        for (std::int64_t y = 0; y < part.height; ++y) {
            const unsigned char *row = address(job.confidence, unit.image, part.y + y, part.x);
            for (std::int64_t x = left; x < left + block; x += kLanes) {
                const F confidence = read_chunk(job.confidence, row, x, job.width - part.x);
                M used = Lanes::first(static_cast<int>(clamped(left + block - x, 1, kLanes)));
                used = Lanes::both(used, Lanes::ordered(Lanes::load(unit.scratch + y * kTileStride + x)));
                count = Lanes::add(count, Lanes::keep(used, Lanes::broadcast(1.0F)));
                used = Lanes::both(used, Lanes::ordered(Lanes::sub(confidence, confidence)));
                sum = Lanes::add(sum, Lanes::keep(used, confidence));
            }
        }
        patches[left / block].sum += static_cast<double>(Lanes::sum(sum));
        patches[left / block].count += static_cast<double>(Lanes::sum(count));
    }
}

// Writes the confidence of the unit's patches into their column `column`. The map is converted once more: a pass of its own
// keeps the sums of the other statistics free of it.
void write_confidence(const Unit &unit, int column) {
    const PostprocessJob &job = unit.job;
    const std::int64_t size = job.patch_size, columns = job.width / size;
    const std::int64_t per_part = clamped(kTileColumns / size, 1, kTileColumns);
    for (std::int64_t first = 0; first < columns; first += per_part) {
        const std::int64_t num = clamped(columns - first, 1, per_part), width = num * size;
        Mean patches[kTileColumns] = {};
        for (std::int64_t y = 0; y < size; y += kTileRows)
            for (std::int64_t x = 0; x < width; x += kTileColumns)
                add_confidence(
                    unit,
                    {unit.top() + y, first * size + x, clamped(size - y, 1, kTileRows), clamped(width - x, 1, kTileColumns)},
                    patches);
        for (std::int64_t i = 0; i < num; ++i)
            if (patches[i].count > 0)
                unit.stats_of(first + i)[column] = static_cast<float>(patches[i].sum / patches[i].count);
    }
}

// ------------------------------------------------------------------------------------------------------------------- all

// Sixteen rows of an image without statistics.
void run_depth_only(const Unit &unit) {
    const PostprocessJob &job = unit.job;
    for (std::int64_t x = 0; x < job.width; x += kTileColumns) {
        const Tile tile{unit.image, unit.top(), x, static_cast<int>(clamped(job.height - unit.top(), 1, kTileRows)),
                        static_cast<int>(clamped(job.width - x, 1, kTileColumns))};
        load_tile(job, unit.functions.convert, tile, unit.scratch + kTileStride + kLanes);
    }
}

bool wants_extremes(const PostprocessJob &job) {
    for (int i = 0; i < job.num_stats; ++i)
        if (job.stats[i] == MVDE_MIN || job.stats[i] == MVDE_MAX) return true;
    return false;
}

void run(const PostprocessJob &job, std::int64_t first, std::int64_t last, const char **executed) {
    *executed = Lanes::kName;
    alignas(64) float scratch[(kTileRows + 4) * kTileStride];
    const bool extremes = wants_extremes(job);
    const int width = job.patch_size <= kTileRows ? job.patch_size : 0;
    const Functions functions{row_converter(job), group_function<Care::kNone>(width, extremes),
                              group_function<Care::kMask>(width, extremes), group_function<Care::kCheck>(width, extremes)};
    const std::int64_t units = (job.height + job.patch_size - 1) / job.patch_size;  // per image
    for (std::int64_t i = first; i < last; ++i) {
        const Unit unit{job, functions, i / units, i % units, scratch, scratch + (kTileRows + 2) * kTileStride};
        if (job.num_stats) run_unit(unit);
        else run_depth_only(unit);
        for (int column = 0; column < job.num_stats; ++column)
            if (job.stats[column] == MVDE_CONF) write_confidence(unit, column);
    }
}

}  // namespace
}  // namespace mvde::internal
