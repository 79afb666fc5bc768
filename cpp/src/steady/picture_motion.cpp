#include "steady/picture_motion.hpp"

#include "steady/order.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mvde::internal {
namespace {

constexpr float kBlack = 16.0F;  // added to brightness
constexpr float kNoiseFloor = 1e-3F;
constexpr double kDamping = 1e-3, kSmallestStep = 0.01;
constexpr struct {
    std::int64_t side;
    int steps;
} kLevels[] = {{12, 6}, {24, 4}, {48, 4}};

float narrow(double value) { return static_cast<float>(value); }
double wide(std::int64_t value) { return static_cast<double>(value); }
bool is_known(float value) { return value == value; }

// Solves a positive definite system by elimination without pivots, in the order of its rows.
void eliminate(double (&matrix)[4][4], double (&right)[4]) {
    for (int i = 0; i < 4; ++i)
        for (int k = i + 1; k < 4; ++k) {
            const double factor = matrix[k][i] / matrix[i][i];
            for (int j = i; j < 4; ++j) matrix[k][j] -= factor * matrix[i][j];
            right[k] -= factor * right[i];
        }
    for (int i = 3; i >= 0; --i) {
        for (int j = i + 1; j < 4; ++j) right[i] -= matrix[i][j] * right[j];
        right[i] /= matrix[i][i];
    }
}

double mean_of(const float *values, std::int64_t count) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
    return sum / wide(count);
}

}  // namespace

double Motion::largest_shift(std::int64_t height, std::int64_t width) const {
    const double turned = (std::abs(zoom) + std::abs(roll)) * wide(std::max(height, width)) / 2;
    return std::max(std::abs(across) * wide(width), std::abs(down) * wide(height)) + turned;
}

MovedGrid::MovedGrid(std::int64_t height, std::int64_t width, const Motion &motion, double aspect)
    : grow(narrow(1 + motion.zoom)), row_base(narrow(motion.down * wide(height) + wide(height - 1) / 2)),
      column_base(narrow(motion.across * wide(width) + wide(width - 1) / 2)),
      cross_of_row(narrow(motion.roll * aspect * wide(width) / wide(height))),
      cross_of_column(narrow(motion.roll / aspect * wide(height) / wide(width))), middle_y(narrow(wide(height - 1) / 2)),
      middle_x(narrow(wide(width - 1) / 2)) {}

void MovedGrid::fill(std::int64_t width, float *columns, float *cross_rows) const {
    for (std::int64_t i = 0; i < width; ++i) {
        const float x = static_cast<float>(i) - middle_x;
        columns[i] = grow * x + column_base;
        cross_rows[i] = cross_of_column * x;
    }
}

void MovedGrid::place(std::int64_t y, FollowRow &row) const {
    const float from_middle = static_cast<float>(y) - middle_y;
    row.row = grow * from_middle + row_base;
    row.cross_column = cross_of_row * from_middle;
}

MotionEstimator::MotionEstimator() {
    constexpr std::int64_t kMaps = 9, kPadded = (kThumbnailSide + 2) * (kThumbnailSide + 2);
    memory_.resize(static_cast<std::size_t>(kMaps * kThumbnailPixels + kPadded));
    float *next = memory_.data();
    for (float **map : {&before_, &now_, &across_, &down_, &left_, &weight_, &gx_, &gy_, &scratch_}) {
        *map = next;
        next += kThumbnailPixels;
    }
    padded_ = next;
}

void MotionEstimator::reserve(std::int64_t width) {
    const auto bytes = static_cast<std::size_t>(3 * width);
    if (sums_.size() < bytes) sums_.resize(bytes);
}

void MotionEstimator::thumbnail(const Kernel &kernel, const Picture &picture, float *out) {
    for (std::int64_t row = 0; row < kThumbnailSide; ++row) {
        const Cell rows = cell_of(row, picture.height, kThumbnailSide);
        std::fill(sums_.begin(), sums_.begin() + 3 * picture.width, 0);
        for (std::int64_t y = rows.first; y < rows.last; ++y)
            kernel.steady->add_bytes(picture.rgb + y * picture.row_stride, 3 * picture.width, sums_.data());
        for (std::int64_t column = 0; column < kThumbnailSide; ++column) {
            const Cell columns = cell_of(column, picture.width, kThumbnailSide);
            std::int64_t sum = 0;
            for (std::int64_t x = columns.first; x < columns.last; ++x) {
                const std::int32_t *const rgb = sums_.data() + 3 * x;
                sum += static_cast<std::int64_t>(rgb[0]) + 2 * static_cast<std::int64_t>(rgb[1]) + rgb[2];
            }
            const float count = static_cast<float>(rows.size() * columns.size());
            out[row * kThumbnailSide + column] = static_cast<float>(sum) / (4.0F * count) + kBlack;
        }
    }
    kernel.steady->log(out, kThumbnailPixels, out);
}

// Halves a thumbnail down to `side`, then filters it with a binomial of borders that are repeated.
void MotionEstimator::shrink(const float *image, std::int64_t side, float *out) {
    const float *from = image;
    std::int64_t length = kThumbnailSide;
    for (; length > side; length /= 2) {
        const std::int64_t half = length / 2;
        for (std::int64_t y = 0; y < half; ++y)
            for (std::int64_t x = 0; x < half; ++x) {
                const float *const a = from + 2 * y * length + 2 * x;
                scratch_[y * half + x] = ((a[0] + a[length]) + (a[1] + a[length + 1])) * 0.25F;
            }
        from = scratch_;  // each value is written behind the ones that are still to be read
    }
    const std::int64_t stride = side + 2;
    for (std::int64_t y = 0; y < stride; ++y)
        for (std::int64_t x = 0; x < stride; ++x)
            padded_[y * stride + x] =
                from[std::clamp<std::int64_t>(y - 1, 0, side - 1) * side + std::clamp<std::int64_t>(x - 1, 0, side - 1)];
    const auto column = [&](const float *p) { return ((p[0] + p[2 * stride]) + (p[stride] + p[stride])) * 0.25F; };
    for (std::int64_t y = 0; y < side; ++y)
        for (std::int64_t x = 0; x < side; ++x) {
            const float *const p = padded_ + y * stride + x;
            const float middle = column(p + 1);
            out[y * side + x] = ((column(p) + column(p + 2)) + (middle + middle)) * 0.25F;
        }
}

Motion MotionEstimator::estimate(const Kernel &kernel, const float *before, const float *now, double aspect) {
    double found[4] = {};
    for (const auto &[side, steps] : kLevels) {
        shrink(before, side, before_);
        shrink(now, side, now_);
        refine(kernel, side, steps, aspect, found);
    }
    return {found[0], found[1], found[2], found[3]};
}

// Fills maps of the row's size with what is found at the places of the grid.
void MotionEstimator::look_up(const Kernel &kernel, FollowRow row, const MovedGrid &grid) {
    const std::int64_t side = row.width;
    grid.fill(side, columns_, cross_rows_);
    row.columns = columns_;
    row.cross_rows = cross_rows_;
    row.nearer = -0.0F;
    row.count = side;
    for (std::int64_t y = 0; y < side; ++y) {
        grid.place(y, row);
        kernel.steady->follow(row);
        for (float *&out : row.out) out += out ? side : 0;
    }
}

void MotionEstimator::refine(const Kernel &kernel, std::int64_t side, int steps, double aspect, double *found) {
    for (std::int64_t y = 0; y < side; ++y)
        for (std::int64_t x = 0; x < side; ++x) {
            const std::int64_t at = y * side + x;
            const bool has_x = x > 0 && x + 1 < side, has_y = y > 0 && y + 1 < side;
            across_[at] = has_x ? (before_[at + 1] - before_[at - 1]) * 0.5F : 0.0F;
            down_[at] = has_y ? (before_[at + side] - before_[at - side]) * 0.5F : 0.0F;
        }
    for (int step = 0; step < steps; ++step) {
        const MovedGrid grid(side, side, {found[0], found[1], found[2], found[3]}, aspect);
        look_up(kernel, {{before_, across_, down_}, {left_, gx_, gy_}, side, side, nullptr, nullptr, 0, 0, 0, 0}, grid);
        if (!weigh(side)) return;
        double change[4];
        solve(kernel, side, aspect, change);
        const double unit[] = {1 / wide(side), 1 / wide(side), 1.0, 1.0},
                     pixels[] = {1.0, 1.0, wide(side) / 2, wide(side) / 2};
        double largest = 0;
        for (int i = 0; i < 4; ++i) {
            found[i] -= change[i] * unit[i];
            largest = std::max(largest, std::abs(change[i] * pixels[i]));
        }
        if (largest < kSmallestStep) return;
    }
}

// Leaves the difference of the moved picture without its median, and computes weights against what moves by itself, 0 outside the
// picture. False if too little of it is inside.
bool MotionEstimator::weigh(std::int64_t side) {
    const std::int64_t num_pixels = side * side;
    std::int64_t num_inside = 0;
    for (std::int64_t i = 0; i < num_pixels; ++i) {
        left_[i] -= now_[i];
        scratch_[num_inside] = left_[i];
        num_inside += is_known(left_[i]);
    }
    if (num_inside < num_pixels / 4) return false;
    const float middle = lower_median(scratch_, num_inside);
    num_inside = 0;
    for (std::int64_t i = 0; i < num_pixels; ++i) {
        left_[i] -= middle;
        scratch_[num_inside] = std::abs(left_[i]);
        num_inside += is_known(left_[i]);
    }
    const float spread = 3.0F * lower_median(scratch_, num_inside) + kNoiseFloor;
    for (std::int64_t i = 0; i < num_pixels; ++i) {
        const bool is_inside = is_known(left_[i]);
        if (!is_inside) left_[i] = 0;
        const float ratio = left_[i] / spread, weight = is_inside ? 1.0F / (1.0F + ratio * ratio) : 0.0F;
        weight_[i] = weight * weight;
    }
    return true;
}

// Step of Gauss-Newton: the damped normal equations of four parameters, scaled to one size.
void MotionEstimator::solve(const Kernel &kernel, std::int64_t side, double aspect, double *step) const {
    const double scale[] = {1.0, 1.0, 2 / wide(side), 2 / wide(side)};
    NormalJob job{gx_, gy_, left_, weight_, side, scale[2], narrow(1 / aspect), narrow(aspect), {}};
    kernel.steady->normal_sums(job);
    double normal[4][4], right[4];
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) normal[i][j] = job.sums[i][j];
        right[i] = job.sums[4][i];
    }
    const double trace = ((normal[0][0] + normal[1][1]) + normal[2][2]) + normal[3][3];
    for (int i = 0; i < 4; ++i) normal[i][i] += kDamping * trace / 4 + 1e-9;
    eliminate(normal, right);
    for (int i = 0; i < 4; ++i) step[i] = right[i] * scale[i];
}

Change MotionEstimator::compare(const Kernel &kernel, const float *before, const float *now, const Motion &motion,
                                double aspect) {
    const double mean_before = mean_of(before, kThumbnailPixels), mean_now = mean_of(now, kThumbnailPixels);
    double product = 0, squares_before = 0, squares_now = 0;
    for (std::int64_t i = 0; i < kThumbnailPixels; ++i) {
        const double a = static_cast<double>(before[i]) - mean_before, b = static_cast<double>(now[i]) - mean_now;
        product += a * b;
        squares_before += a * a;
        squares_now += b * b;
    }
    Change change;
    change.correlation = product / std::sqrt(squares_before * squares_now + 1e-9);
    change.spread = std::sqrt(squares_now / wide(kThumbnailPixels));
    const MovedGrid grid(kThumbnailSide, kThumbnailSide, motion, aspect);
    look_up(kernel, {{before}, {left_}, kThumbnailSide, kThumbnailSide, nullptr, nullptr, 0, 0, 0, 0}, grid);
    std::int64_t num_inside = 0;
    for (std::int64_t i = 0; i < kThumbnailPixels; ++i) {
        left_[num_inside] = left_[i] - now[i];
        num_inside += is_known(left_[num_inside]);
    }
    if (!num_inside) {
        change.residual = std::numeric_limits<double>::infinity();
        return change;
    }
    std::copy(left_, left_ + num_inside, scratch_);
    const float middle = lower_median(scratch_, num_inside);
    double sum = 0;
    for (std::int64_t i = 0; i < num_inside; ++i) sum += static_cast<double>(std::abs(left_[i] - middle));
    change.residual = sum / wide(num_inside);
    return change;
}

}  // namespace mvde::internal
