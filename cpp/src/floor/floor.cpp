#include "floor/floor.hpp"

#include "error.hpp"
#include "float_environment.hpp"
#include "image/all_rays.hpp"
#include "scan/level.hpp"
#include "session/classic_numbers.hpp"
#include "session/refused.hpp"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <limits>

namespace mvde::internal {
namespace {

// Each is explained in mvde/runtime/floor.py.
constexpr int kCellShift = 13, kNumCells = 2048;
constexpr float kLeastFall = 0.12F;
constexpr double kHalfWidth = 0.06, kPriorWidth = 0.2, kLeastSeen = 0.05, kLeastShare = 0.25, kSpreadWidth = 0.25,
                 kMostResidual = 0.06, kMostBelow = 0.02;
constexpr double kSteadyGain = 0.1;  // of mvde/runtime/frame_floor.py
constexpr std::int32_t kFirstCell = 0x3F000000 >> kCellShift;  // of the factor 1/2

float factor_of(std::int32_t cell) {
    const std::int32_t bits = (kFirstCell + cell) << kCellShift;
    float factor;
    std::memcpy(&factor, &bits, sizeof factor);
    return factor;
}

// Of each cell: its centre, first and one past the last cell of the window around it, and its weight.
struct Windows {
    double centre[kNumCells];
    std::int32_t first[kNumCells], last[kNumCells];
    std::int64_t weight[kNumCells];

    Windows() {
        for (std::int32_t i = 0; i < kNumCells; ++i)
            centre[i] = (static_cast<double>(factor_of(i)) + static_cast<double>(factor_of(i + 1))) / 2;
        for (std::int32_t i = 0; i < kNumCells; ++i) {
            first[i] = below(centre[i] * (1 - kHalfWidth));
            last[i] = below(centre[i] * (1 + kHalfWidth));
            const double change = (centre[i] - 1 / centre[i]) / (2 * kPriorWidth);
            weight[i] = static_cast<std::int64_t>(std::floor(65536 / (1 + change * change)));
        }
    }

    // Number of cells whose centre is below a factor.
    std::int32_t below(double factor) const {
        return static_cast<std::int32_t>(std::lower_bound(std::begin(centre), std::end(centre), factor) - centre);
    }
};

const Windows &windows() {
    static const Windows all;
    return all;
}

// Factors by cell, then their number below each edge of a cell.
struct Factors {
    std::int64_t upto[kNumCells + 1] = {};
    std::int64_t num_rays = 0, num_pixels = 0;
};

void count_row(const Rays &rays, const mvde_box &box, const Rotation &level, float height, const float *depth,
               std::int64_t y, Factors &factors) {
    const float *const right = rays.x(y), *const down = rays.y(y);
    for (std::int64_t x = box.left; x < box.right; ++x) {
        const double up = level.rows[2][0] * static_cast<double>(right[x]) +
                          level.rows[2][1] * static_cast<double>(down[rays.is_distorted() ? x : 0]) + level.rows[2][2];
        const auto fall = static_cast<float>(-up);
        if (!(fall >= kLeastFall) || !(depth[x] > 0) || !(depth[x] < std::numeric_limits<float>::infinity())) continue;
        ++factors.num_rays;
        const float factor = height / (fall * depth[x]);
        std::int32_t bits;
        std::memcpy(&bits, &factor, sizeof bits);
        const std::int32_t cell = (bits >> kCellShift) - kFirstCell;
        if (cell < kNumCells) ++factors.upto[std::max(cell, -1) + 1];
    }
}

// Mean relative distance of the factors around `scale` from it.
double residual_of(const Factors &factors, double scale) {
    const Windows &all = windows();
    const std::int32_t lowest = all.below(scale * (1 - kSpreadWidth)), highest = all.below(scale * (1 + kSpreadWidth));
    double total = 0.0;
    for (std::int32_t i = lowest; i < highest; ++i)
        total += static_cast<double>(factors.upto[i + 1] - factors.upto[i]) * std::abs(all.centre[i] / scale - 1);
    return total / static_cast<double>(factors.upto[highest] - factors.upto[lowest]);
}

mvde_floor scale_of(const Factors &factors) {
    const Windows &all = windows();
    const std::int64_t *const upto = factors.upto;
    std::int32_t best = 0;
    std::int64_t most = -1;
    for (std::int32_t i = 0; i < kNumCells; ++i) {
        const std::int64_t weighed = (upto[all.last[i]] - upto[all.first[i]]) * all.weight[i];
        if (weighed > most) {
            most = weighed;
            best = i;
        }
    }
    const std::int64_t num_floor = upto[all.last[best]] - upto[all.first[best]];
    const auto num_rays = static_cast<double>(factors.num_rays);
    mvde_floor found{sizeof found, MVDE_FLOOR_UNSEEN, 1.0, 0.0, 0.0};
    if (factors.num_rays) found.share = static_cast<double>(num_floor) / num_rays;
    if (num_rays < kLeastSeen * static_cast<double>(factors.num_pixels) ||
        static_cast<double>(num_floor) < kLeastShare * num_rays)
        return found;
    const std::int64_t half = upto[all.first[best]] + (num_floor + 1) / 2;
    const double scale = all.centre[std::lower_bound(upto, upto + kNumCells + 1, half) - upto - 1];
    found.residual = residual_of(factors, scale);
    const std::int64_t num_below = upto[all.below(scale * (1 - kSpreadWidth))];
    if (found.residual > kMostResidual || static_cast<double>(num_below) > kMostBelow * num_rays) {
        found.status = MVDE_FLOOR_UNEVEN;
        return found;
    }
    found.status = MVDE_FLOOR_USED;
    found.scale = scale;
    return found;
}

[[noreturn]] void refuse_value(const char *name, double low, double high, double value) {
    char text[160];
    std::snprintf(text, sizeof text, "%s of a mounting lies between %g and %g, but got %g", name, low, high, value);
    throw Refused(MVDE_ERROR_ARGUMENT, text);
}

}  // namespace

void check_mounting(const mvde_mounting &mounting) {
    const auto check = [](const char *name, double value, double low, double high) {
        if (!(low <= value && value <= high)) refuse_value(name, low, high, value);
    };
    check("height_m", mounting.height_m, 0.01, 100);
    check("pitch_deg", mounting.pitch_deg, -80, 80);
    check("roll_deg", mounting.roll_deg, -180, 180);
}

mvde_floor floor_of(const Rays &rays, const mvde_box &box, const mvde_mounting &mounting, const float *depth,
                    std::int64_t row_stride) {
    const Rotation level = level_rotation(mounting.pitch_deg, mounting.roll_deg);
    Factors factors;
    factors.num_pixels = (box.bottom - box.top) * (box.right - box.left);
    const auto *const bytes = reinterpret_cast<const unsigned char *>(depth);
    for (std::int64_t y = box.top; y < box.bottom; ++y)
        count_row(rays, box, level, static_cast<float>(mounting.height_m),
                  reinterpret_cast<const float *>(bytes + y * row_stride), y, factors);
    for (int i = 0; i < kNumCells; ++i) factors.upto[i + 1] += factors.upto[i];
    return scale_of(factors);
}

mvde_floor SteadyScale::update(mvde_floor found, bool is_anew) {
    if (is_anew) *this = {};
    if (found.status == MVDE_FLOOR_USED) {
        ++num_frames_;
        scale_ += std::max(kSteadyGain, 1.0 / static_cast<double>(num_frames_)) * (found.scale - scale_);
        found.scale = scale_;
    } else if (num_frames_) {
        found.status = MVDE_FLOOR_HELD;
        found.scale = scale_;
    }
    return found;
}

}  // namespace mvde::internal

using namespace mvde::internal;

extern "C" {

void mvde_mounting_defaults(mvde_mounting *mounting) {
    if (mounting) *mounting = {sizeof *mounting, std::numeric_limits<double>::quiet_NaN(), 0.0, 0.0};
}

int32_t mvde_floor_scale(const mvde_rays *handle, const mvde_box *box, const mvde_mounting *mounting, const float *depth_m,
                         int64_t depth_row_stride, mvde_floor *floor) {
    if (!handle || !mounting || !depth_m || !floor)
        return fail(MVDE_ERROR_ARGUMENT, "rays, mounting, depth_m or floor is NULL");
    if (mounting->struct_size != sizeof *mounting)
        return fail(MVDE_ERROR_ARGUMENT, "mounting.struct_size is %u: start from mvde_mounting_defaults()",
                    mounting->struct_size);
    if (floor->struct_size != sizeof *floor)
        return fail(MVDE_ERROR_ARGUMENT, "floor.struct_size is %u: expected sizeof(mvde_floor)", floor->struct_size);
    const FloatEnvironment environment;
    const AllRays::Hold rays = all_rays().read(handle);
    if (rays.access() != AllRays::Access::granted) return refuse(rays.access());
    const std::int64_t height = rays->height(), width = rays->width();
    const std::int64_t stride = depth_row_stride ? depth_row_stride : width * static_cast<std::int64_t>(sizeof(float));
    if (stride % static_cast<std::int64_t>(sizeof(float)) || reinterpret_cast<std::uintptr_t>(depth_m) % alignof(float))
        return fail(MVDE_ERROR_ALIGNMENT, "depth_m or its row stride is not aligned to 4 bytes");
    if (std::abs(stride) < width * static_cast<std::int64_t>(sizeof(float)))
        return fail(MVDE_ERROR_SHAPE, "rows of %" PRId64 " values do not fit a stride of %" PRId64 " bytes", width, stride);
    const mvde_box whole{0, 0, height, width}, inside = box ? *box : whole;
    if (inside.top < 0 || inside.left < 0 || inside.bottom > height || inside.right > width || inside.top >= inside.bottom ||
        inside.left >= inside.right)
        return fail(MVDE_ERROR_SHAPE, "the box is not within the map of %" PRId64 "x%" PRId64 ", or empty", height, width);
    try {
        const ClassicCNumbers classic;
        check_mounting(*mounting);
    } catch (const Refused &error) {
        return fail(error.status, "%s", error.what());
    }
    *floor = floor_of(*rays, inside, *mounting, depth_m, stride);
    return MVDE_OK;
}

}  // extern "C"
