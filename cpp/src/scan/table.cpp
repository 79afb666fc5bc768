#include "scan/table.hpp"

#include "kernel/interface.hpp"
#include "scan/level.hpp"
#include "scan/settings.hpp"
#include "session/refused.hpp"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>

namespace mvde::internal {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kRadiansPerDegree = kPi / 180;

// Right and down of a pixel's ray, per metre of depth.
double right_of(const Rays &rays, std::int64_t y, std::int64_t x) { return static_cast<double>(rays.x(y)[x]); }
double down_of(const Rays &rays, std::int64_t y, std::int64_t x) {
    return static_cast<double>(rays.y(y)[rays.is_distorted() ? x : 0]);
}

struct Bounds {
    double low, high, range_max;  // heights from the camera
};

// Range at which a ray leaves the heights of obstacles, at most the largest one; 0 if it misses them.
double exit_range(double rho, double up, const Bounds &bounds) {
    const double slope = up / rho;
    double enter = 0.0, leave = bounds.low < 0 && 0 < bounds.high ? std::numeric_limits<double>::infinity() : 0.0;
    if (slope > 0) {
        enter = bounds.low / slope;
        leave = bounds.high / slope;
    } else if (slope < 0) {
        enter = bounds.high / slope;
        leave = bounds.low / slope;
    }
    return rho > 0 && enter < bounds.range_max && leave > 0 ? std::min(leave, bounds.range_max) : 0.0;
}

// A number from -2 to 2 that grows with the angle of (x, y), from behind on the right counter-clockwise.
double turn(double x, double y) {
    const double share = y / (std::abs(x) + std::abs(y));
    return x >= 0 ? share : y >= 0 ? 2 - share : -2 - share;
}

std::int32_t half_sectors(double increment_deg) { return static_cast<std::int32_t>(180 / increment_deg); }

std::vector<double> sector_edges(double increment_deg) {
    const std::int32_t half = half_sectors(increment_deg);
    std::vector<double> edges;
    for (std::int32_t step = -half; step <= half; ++step) {
        const double angle = step * increment_deg * kRadiansPerDegree;
        edges.push_back(turn(std::cos(angle), std::sin(angle)));
    }
    return edges;
}

// Sector of a ray; -1 for rays behind, straight down, or not there (NaN).
std::int32_t sector_of(double x, double y, const std::vector<double> &edges) {
    const auto after = std::upper_bound(edges.begin(), edges.end(), turn(x, y));
    const auto found = static_cast<std::int32_t>(after - edges.begin()) - 1;
    return found < static_cast<std::int32_t>(edges.size()) - 1 && (x != 0 || y != 0) ? found : -1;
}

// Signed solid angle between the optical axis and the rays (x, y, 1) and (next_x, next_y, 1): Van Oosterom and Strackee.
double triangle(double x, double y, double next_x, double next_y) {
    const double length = std::sqrt(x * x + y * y + 1), next_length = std::sqrt(next_x * next_x + next_y * next_y + 1);
    const double below = length * next_length + next_length + length + (x * next_x + y * next_y + 1);
    return 2 * std::atan2(x * next_y - y * next_x, below);
}

std::vector<std::pair<double, double>> border_of(const Rays &rays, const mvde_box &box) {
    std::vector<std::pair<double, double>> border;
    const auto add = [&](std::int64_t y, std::int64_t x) {
        const double right = right_of(rays, y, x), down = down_of(rays, y, x);
        if (std::isfinite(right) && std::isfinite(down)) border.emplace_back(right, down);
    };
    for (std::int64_t x = box.left; x < box.right; ++x) add(box.top, x);
    for (std::int64_t y = box.top + 1; y < box.bottom; ++y) add(y, box.right - 1);
    for (std::int64_t x = box.right - 2; x >= box.left; --x) add(box.bottom - 1, x);
    for (std::int64_t y = box.bottom - 2; y > box.top; --y) add(y, box.left);
    return border;
}

// Number of pixels of average size that fit into a solid angle, at least one.
std::int64_t support_of(const Rays &rays, const mvde_box &box, double support_deg2) {
    const auto border = border_of(rays, box);
    double steradians = 0.0;
    for (std::size_t i = 0; i < border.size(); ++i) {
        const auto &[x, y] = border[i];
        const auto &[next_x, next_y] = border[(i + 1) % border.size()];
        steradians += triangle(x, y, next_x, next_y);
    }
    const std::int64_t height = box.bottom - box.top, width = box.right - box.left;
    if (steradians == 0.0) return height * width + 1;  // no ray, or a box of one row: no sector has as many
    std::int64_t num_rays = 0;
    for (std::int64_t y = box.top; y < box.bottom; ++y)
        for (std::int64_t x = box.left; x < box.right; ++x)
            num_rays += std::isfinite(right_of(rays, y, x)) && std::isfinite(down_of(rays, y, x));
    const double share = static_cast<double>(num_rays) / static_cast<double>(height * width);
    const double num_pixels = static_cast<double>((height - 1) * (width - 1)) * share;
    const double pixel_deg2 = std::abs(steradians) / (kRadiansPerDegree * kRadiansPerDegree) / num_pixels;
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(support_deg2 / pixel_deg2));
}

struct Sectors {
    std::vector<std::int32_t> of_pixel;    // that see obstacles, else -1
    std::vector<double> exit_m;            // of each pixel
    std::vector<std::int64_t> num_pixels;  // in each sector's direction
};

// Range that `support` rays of each sector reach between the heights; 0 if it has fewer rays.
std::vector<double> reaches(const Sectors &sectors, std::int64_t support) {
    const std::size_t count = sectors.num_pixels.size();
    std::vector<std::size_t> start(count + 1, 0);
    for (const std::int32_t sector : sectors.of_pixel)
        if (sector >= 0) ++start[static_cast<std::size_t>(sector) + 1];
    for (std::size_t i = 0; i < count; ++i) start[i + 1] += start[i];
    std::vector<double> exits(start[count]), reach(count, 0.0);
    std::vector<std::size_t> next(start.begin(), start.end() - 1);
    for (std::size_t i = 0; i < sectors.of_pixel.size(); ++i)
        if (const std::int32_t sector = sectors.of_pixel[i]; sector >= 0)
            exits[next[static_cast<std::size_t>(sector)]++] = sectors.exit_m[i];
    for (std::size_t i = 0; i < count; ++i) {
        const auto first = exits.begin() + static_cast<std::ptrdiff_t>(start[i]);
        const auto last = exits.begin() + static_cast<std::ptrdiff_t>(start[i + 1]);
        if (last - first < support) continue;
        std::nth_element(first, first + support - 1, last, std::greater<>());
        reach[i] = first[support - 1];
    }
    return reach;
}

std::int32_t cell_of(float range) {
    std::int32_t bits;
    std::memcpy(&bits, &range, sizeof bits);
    return bits >> kScanCellShift;
}

double edge_of(std::int32_t cell) {
    const std::int32_t bits = cell << kScanCellShift;
    float edge;
    std::memcpy(&edge, &bits, sizeof edge);
    return static_cast<double>(edge);
}

// Cells of the histogram, and the range told for each: its geometric centre, shortened by the margin.
void set_cells(const mvde_scan_settings &settings, ScanTable &table) {
    const auto least = static_cast<float>(settings.range_min_m), most = static_cast<float>(settings.range_max_m);
    const double shortened = std::exp(-settings.margin);
    table.first_cell = cell_of(least);
    for (std::int32_t cell = table.first_cell; cell <= cell_of(most); ++cell) {
        const double centre = std::sqrt(edge_of(cell) * edge_of(cell + 1)) * shortened;
        table.range_m.push_back(std::min(std::max(static_cast<float>(centre), least), most));
    }
}

[[noreturn]] void refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void refuse(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    throw Refused(MVDE_ERROR_ARGUMENT, text);
}

// Fills the factors of every pixel, and returns its sector.
Sectors aim(const Rays &rays, const mvde_box &box, const mvde_scan_settings &settings, ScanTable &table) {
    const Rotation level = level_rotation(settings.pitch_deg, settings.roll_deg);
    const auto component = [&](int row, double right, double down) {
        return level.rows[row][0] * right + level.rows[row][1] * down + level.rows[row][2];
    };
    const std::vector<double> edges = sector_edges(settings.increment_deg);
    const Bounds bounds{lowest_m(settings) - settings.height_m, settings.max_height_m - settings.height_m,
                        settings.range_max_m};
    const auto num_pixels = static_cast<std::size_t>(rays.height() * rays.width());
    Sectors sectors{std::vector<std::int32_t>(num_pixels, -1), std::vector<double>(num_pixels, 0.0),
                    std::vector<std::int64_t>(edges.size() - 1, 0)};
    table.range_factor.resize(num_pixels);
    table.height_factor.resize(num_pixels);
    for (std::int64_t y = 0; y < rays.height(); ++y) {
        for (std::int64_t x = 0; x < rays.width(); ++x) {
            const auto i = static_cast<std::size_t>(y * rays.width() + x);
            const double right = right_of(rays, y, x), down = down_of(rays, y, x);
            const double forward = component(0, right, down), left = component(1, right, down);
            const double up = component(2, right, down), rho = std::sqrt(forward * forward + left * left);
            table.range_factor[i] = static_cast<float>(rho);
            table.height_factor[i] = static_cast<float>(up);
            if (y < box.top || y >= box.bottom || x < box.left || x >= box.right) continue;
            const std::int32_t sector = sector_of(forward, left, edges);
            if (sector < 0) continue;
            ++sectors.num_pixels[static_cast<std::size_t>(sector)];
            sectors.exit_m[i] = exit_range(rho, up, bounds);
            if (sectors.exit_m[i] > 0) sectors.of_pixel[i] = sector;
        }
    }
    return sectors;
}

}  // namespace

Rotation level_rotation(double pitch_deg, double roll_deg) {
    const double pitch = pitch_deg * kRadiansPerDegree, roll = roll_deg * kRadiansPerDegree;
    const double sp = std::sin(pitch), cp = std::cos(pitch), sr = std::sin(roll), cr = std::cos(roll);
    return {{{-(sp * sr), -(sp * cr), cp}, {-cr, sr, 0.0}, {-(cp * sr), -(cp * cr), -sp}}};
}

ScanTable scan_table(const Rays &rays, const mvde_box &box, const mvde_scan_settings &settings) {
    ScanTable table;
    table.height = rays.height();
    table.width = rays.width();
    const Sectors sectors = aim(rays, box, settings, table);
    const std::int64_t support = support_of(rays, box, settings.support_deg2);
    const std::vector<double> reach = reaches(sectors, support);
    const auto sees = [&](double metres) { return metres > settings.range_min_m; };
    const auto begin = std::find_if(reach.begin(), reach.end(), sees);
    const auto end = std::find_if(reach.rbegin(), reach.rend(), sees).base();
    if (begin == reach.end())
        refuse("no sector of %g degrees sees heights of %g to %g m beyond %g m: the camera is at %g m with a pitch of %g and"
               " a roll of %g degrees; check these, or lower support_deg2, %g square degrees",
               settings.increment_deg, lowest_m(settings), settings.max_height_m, settings.range_min_m, settings.height_m,
               settings.pitch_deg, settings.roll_deg, settings.support_deg2);
    const auto first = begin - reach.begin();
    const std::int64_t fewest = *std::min_element(sectors.num_pixels.begin() + first,
                                                  sectors.num_pixels.begin() + (end - reach.begin()));
    if (fewest < support)
        refuse("a sector of %g degrees holds %lld pixels of the network's map, but the support of %g square degrees is %lld"
               " pixels: raise increment_deg or lower support_deg2",
               settings.increment_deg, static_cast<long long>(fewest), settings.support_deg2,
               static_cast<long long>(support));
    for (auto metres = begin; metres != end; ++metres) table.reach_m.push_back(static_cast<float>(*metres));
    set_cells(settings, table);
    table.support = static_cast<std::int32_t>(support);
    table.angle_increment = settings.increment_deg * kRadiansPerDegree;
    table.angle_min = (static_cast<double>(first - half_sectors(settings.increment_deg)) + 0.5) * table.angle_increment;
    table.sector_start.reserve(sectors.of_pixel.size());
    for (const std::int32_t sector : sectors.of_pixel) {
        const std::int32_t kept = sector - static_cast<std::int32_t>(first);
        const bool is_kept = sector >= 0 && kept >= 0 && kept < table.num_bearings();
        table.sector_start.push_back((is_kept ? kept : table.num_bearings()) * table.cells_a_sector());
    }
    return table;
}

}  // namespace mvde::internal
