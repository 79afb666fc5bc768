#include "scan/scanner.hpp"

#include "error.hpp"
#include "float_environment.hpp"
#include "forks.hpp"
#include "handles.hpp"
#include "image/all_rays.hpp"
#include "kernel/dispatch.hpp"
#include "kernel/map.hpp"
#include "scan/settings.hpp"
#include "session/classic_numbers.hpp"
#include "session/refused.hpp"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <new>

namespace mvde::internal {
namespace {

constexpr std::int64_t kChunk = 1024;  // pixels whose cells are computed before they are counted

// Counts cells of a row in four interleaved runs: neighbours often share a cell, and an increment that waits for the last
// one of its own cell takes several times as long.
void count(const std::int32_t *cells, std::int64_t num_cells, std::uint32_t *counts) {
    const std::int64_t quarter = num_cells / 4;
    for (std::int64_t i = 0; i < quarter; ++i) {
        ++counts[cells[i]];
        ++counts[cells[i + quarter]];
        ++counts[cells[i + 2 * quarter]];
        ++counts[cells[i + 3 * quarter]];
    }
    for (std::int64_t i = 4 * quarter; i < num_cells; ++i) ++counts[cells[i]];
}

}  // namespace

Scanner::Scanner(const Rays &rays, const mvde_box &box, const mvde_scan_settings &settings)
    : settings_(settings), table_(scan_table(rays, box, settings)),
      counts_(static_cast<std::size_t>((table_.num_bearings() + 1) * table_.cells_a_sector())) {}

void Scanner::describe(mvde_scan_info &info) const {
    constexpr double kRadiansPerDegree = 3.14159265358979323846 / 180;
    info.num_bearings = table_.num_bearings();
    info.angle_min = table_.angle_min;
    info.angle_increment = table_.angle_increment;
    info.range_min = settings_.range_min_m;
    info.range_max = settings_.range_max_m;
    info.support = table_.support;
    info.reach_m = table_.reach_m.data();
    const double half_pitch = settings_.pitch_deg * kRadiansPerDegree / 2,
                 half_roll = settings_.roll_deg * kRadiansPerDegree / 2;
    const double sp = std::sin(half_pitch), cp = std::cos(half_pitch), sr = std::sin(half_roll), cr = std::cos(half_roll);
    const double x = cp * sr, y = sp * cr, z = -sp * sr, w = cp * cr;  // of the camera's body in the level frame
    // The inverse of that times (-1/2, 1/2, -1/2, 1/2), the optical frame in the body.
    info.rotation[0] = (w - x + y + z) / 2;
    info.rotation[1] = (-w - x - y + z) / 2;
    info.rotation[2] = (w - x - y - z) / 2;
    info.rotation[3] = (w + x - y + z) / 2;
}

void Scanner::scan(const Kernel &kernel, const float *depth, std::int64_t row_stride, float *ranges) {
    std::fill(counts_.begin(), counts_.end(), 0U);
    for (std::int64_t y = 0; y < table_.height; ++y)
        count_row(kernel, reinterpret_cast<const float *>(reinterpret_cast<const unsigned char *>(depth) + y * row_stride),
                  y);
    for (std::int32_t i = 0; i < table_.num_bearings(); ++i)
        ranges[i] = range_of(counts_.data() + i * table_.cells_a_sector());
}

void Scanner::count_row(const Kernel &kernel, const float *depth, std::int64_t y) {
    std::int32_t cells[kChunk];
    ScanRow row{};
    row.height = static_cast<float>(settings_.height_m);
    row.low = static_cast<float>(lowest_m(settings_));
    row.high = static_cast<float>(settings_.max_height_m);
    row.farthest = static_cast<float>(settings_.range_max_m);
    row.first_cell = table_.first_cell;
    row.num_cells = table_.num_cells();
    row.cells = cells;
    for (std::int64_t x = 0; x < table_.width; x += kChunk) {
        const std::int64_t at = y * table_.width + x;
        row.depth = depth + x;
        row.range_factor = table_.range_factor.data() + at;
        row.height_factor = table_.height_factor.data() + at;
        row.sector_start = table_.sector_start.data() + at;
        row.count = std::min(kChunk, table_.width - x);
        kernel.scan_row(row);
        count(cells, row.count, counts_.data());
    }
}

// The range told for a sector, from the counts of its cells.
float Scanner::range_of(const std::uint32_t *cells) const {
    const auto num_cells = static_cast<std::size_t>(table_.num_cells());
    const auto support = static_cast<std::uint64_t>(table_.support);
    std::uint64_t num_obstacles = 0;
    for (std::size_t i = 0; i < num_cells; ++i) {
        num_obstacles += cells[i];
        if (num_obstacles >= support) return table_.range_m[i];
    }
    const std::uint64_t num_seen = num_obstacles + cells[num_cells], num_all = num_seen + cells[num_cells + 1];
    const bool is_free = num_seen >= support && 2 * num_seen >= num_all;
    return is_free ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
}

namespace {

using Scanners = Handles<Scanner, mvde_scanner, 1024>;

Scanners &scanners() {
    static Scanners &all = *new Scanners;  // never destroyed, as sessions
    static const bool watches = (at_fork([] { all.drop_holds(); }), true);
    static_cast<void>(watches);
    return all;
}

int refuse(Scanners::Access access) {
    if (access == Scanners::Access::busy)
        return fail(MVDE_ERROR_BUSY, "the scanner is in use by another call: give each thread its own");
    return fail(MVDE_ERROR_CLOSED, "the scanner was destroyed, or did not come from mvde_scanner_create");
}

// The maps' pixels that show the frame. Throws Refused.
mvde_box checked_box(const Rays &rays, const mvde_box *box) {
    if (!box) return {0, 0, rays.height(), rays.width()};
    const bool is_inside = 0 <= box->top && box->top < box->bottom && box->bottom <= rays.height() && 0 <= box->left &&
                           box->left < box->right && box->right <= rays.width();
    if (is_inside) return *box;
    char text[256];
    std::snprintf(text, sizeof text,
                  "the box is rows %" PRId64 " to %" PRId64 " and columns %" PRId64 " to %" PRId64
                  ": expected a part of %" PRId64 "x%" PRId64,
                  box->top, box->bottom, box->left, box->right, rays.height(), rays.width());
    throw Refused(MVDE_ERROR_SHAPE, text);
}

int check_depth(const Scanner &scanner, const float *depth, std::int64_t &stride, Extent &extent) {
    const std::int64_t bytes = scanner.width() * static_cast<std::int64_t>(sizeof(float));
    if (!stride) stride = bytes;
    if (!is_row_stride(stride, bytes))
        return fail(MVDE_ERROR_SHAPE, "depth_m: the row stride is %" PRId64 " bytes, but a row has %" PRId64, stride, bytes);
    const auto address = reinterpret_cast<std::uintptr_t>(depth);
    if (address % alignof(float) || stride % static_cast<std::int64_t>(alignof(float)))
        return fail(MVDE_ERROR_ALIGNMENT, "depth_m: its pointer and stride must be multiples of 4 bytes");
    const std::uintptr_t last = address + static_cast<std::uintptr_t>((scanner.height() - 1) * stride);
    extent = {std::min(address, last), std::max(address, last) + static_cast<std::uintptr_t>(bytes)};
    return MVDE_OK;
}

int check_ranges(const Scanner &scanner, const float *ranges, std::int64_t capacity, Extent &extent) {
    const auto address = reinterpret_cast<std::uintptr_t>(ranges);
    if (capacity < scanner.num_bearings())
        return fail(MVDE_ERROR_CAPACITY, "ranges holds %" PRId64 " floats: expected %d", capacity, scanner.num_bearings());
    if (address % alignof(float)) return fail(MVDE_ERROR_ALIGNMENT, "ranges is not aligned to 4 bytes");
    extent = {address, address + static_cast<std::uintptr_t>(scanner.num_bearings()) * sizeof(float)};
    return MVDE_OK;
}

}  // namespace

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

void mvde_scan_defaults(mvde_scan_settings *settings) {
    if (!settings) return;
    const double unknown = std::numeric_limits<double>::quiet_NaN();
    *settings = {sizeof *settings, unknown, 0.0, 0.0, unknown, 1.6, 0.1, 10.0, 0.9, 0.7, 0.0};
}

int32_t mvde_scan_read(const char *path, mvde_scan_settings *settings) {
    if (!path || !settings) return fail(MVDE_ERROR_ARGUMENT, "path or settings is NULL");
    try {
        const ClassicCNumbers classic;
        const mvde_scan_settings found = read_settings(path);
        check_settings(found);
        *settings = found;
        return MVDE_OK;
    } catch (const Refused &error) {
        return fail(error.status, "%s: %s", path, error.what());
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory to read %s", path);
    }
}

int32_t mvde_scanner_create(const mvde_rays *rays, const mvde_box *box, const mvde_scan_settings *settings,
                            mvde_scanner **scanner) {
    if (!scanner) return fail(MVDE_ERROR_ARGUMENT, "scanner is NULL: expected the address of a handle");
    *scanner = nullptr;
    if (!rays || !settings) return fail(MVDE_ERROR_ARGUMENT, "rays or settings is NULL");
    if (settings->struct_size != sizeof *settings)
        return fail(MVDE_ERROR_ARGUMENT, "settings.struct_size is %u: expected %u; start from mvde_scan_defaults()",
                    settings->struct_size, static_cast<unsigned>(sizeof *settings));
    const FloatEnvironment environment;
    const AllRays::Hold of_maps = all_rays().read(rays);
    if (of_maps.access() != AllRays::Access::granted) return refuse(of_maps.access());
    try {
        const ClassicCNumbers classic;
        const mvde_box inside = checked_box(*of_maps, box);
        check_settings(*settings);
        *scanner = scanners().add(std::make_unique<Scanner>(*of_maps, inside, *settings));
        return *scanner ? MVDE_OK : fail(MVDE_ERROR_MEMORY, "1024 scanners exist: destroy one first");
    } catch (const Refused &error) {
        return fail(error.status, "%s", error.what());
    } catch (const std::bad_alloc &) {
        return fail(MVDE_ERROR_MEMORY, "no memory to scan maps of %" PRId64 "x%" PRId64, of_maps->height(),
                    of_maps->width());
    }
}

void mvde_scanner_destroy(mvde_scanner *scanner) {
    if (scanner) scanners().close(scanner);
}

int32_t mvde_scanner_query(const mvde_scanner *handle, mvde_scan_info *info) {
    if (!handle || !info) return fail(MVDE_ERROR_ARGUMENT, "scanner or info is NULL");
    if (info->struct_size != sizeof *info)
        return fail(MVDE_ERROR_ARGUMENT, "info.struct_size is %u: expected sizeof(mvde_scan_info)", info->struct_size);
    const Scanners::Hold scanner = scanners().read(handle);
    if (scanner.access() != Scanners::Access::granted) return refuse(scanner.access());
    const FloatEnvironment environment;
    scanner->describe(*info);
    return MVDE_OK;
}

int32_t mvde_scan(mvde_scanner *handle, const float *depth_m, int64_t depth_row_stride, float *ranges, int64_t capacity) {
    if (!handle || !depth_m || !ranges) return fail(MVDE_ERROR_ARGUMENT, "scanner, depth_m or ranges is NULL");
    const FloatEnvironment environment;
    const Scanners::Hold scanner = scanners().change(handle);
    if (scanner.access() != Scanners::Access::granted) return refuse(scanner.access());
    const Kernel *kernel = active_kernel();
    if (!kernel) return MVDE_ERROR_KERNEL;
    Extent in, out;
    if (const int status = check_depth(*scanner, depth_m, depth_row_stride, in)) return status;
    if (const int status = check_ranges(*scanner, ranges, capacity, out)) return status;
    if (overlaps(in, out)) return fail(MVDE_ERROR_OVERLAP, "depth_m and ranges overlap");
    scanner->scan(*kernel, depth_m, depth_row_stride, ranges);
    return MVDE_OK;
}

}  // extern "C"
