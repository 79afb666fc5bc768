// Motion of the picture between two frames, with the bits of mvde/runtime/picture_motion.py.
#pragma once

#include "kernel/interface.hpp"

#include <cstdint>
#include <vector>

namespace mvde::internal {

constexpr std::int64_t kThumbnailSide = 48, kThumbnailPixels = kThumbnailSide * kThumbnailSide;

// Where a frame's pixels were in the frame before: a similarity about the middle, in units of the picture's sides.
struct Motion {
    double across = 0, down = 0, zoom = 0, roll = 0;

    // Bound of the shift of any pixel of a picture, in pixels.
    double largest_shift(std::int64_t height, std::int64_t width) const;
};

// How two thumbnails differ: correlation as they are, mean difference left after the motion, spread of the newer one.
struct Change {
    double correlation = 0, residual = 0, spread = 0;
};

// Places of a map's pixels in the frame before; see FollowRow.
struct MovedGrid {
    MovedGrid(std::int64_t height, std::int64_t width, const Motion &motion, double aspect);
    void fill(std::int64_t width, float *columns, float *cross_rows) const;  // [width] each
    void place(std::int64_t y, FollowRow &row) const;  // of row y

    float grow, row_base, column_base, cross_of_row, cross_of_column, middle_y, middle_x;
};

// An RGB picture with a row stride in bytes.
struct Picture {
    const std::uint8_t *rgb;
    std::int64_t height, width, row_stride;

    double aspect() const { return static_cast<double>(height) / static_cast<double>(width); }
};

// Estimates motion; holds the memory that it needs.
class MotionEstimator {
public:
    MotionEstimator();

    // Computes the thumbnail [48, 48] of a picture of at most `reserve`d width.
    void reserve(std::int64_t width);
    void thumbnail(const Kernel &kernel, const Picture &picture, float *out);

    Motion estimate(const Kernel &kernel, const float *before, const float *now, double aspect);
    Change compare(const Kernel &kernel, const float *before, const float *now, const Motion &motion, double aspect);

private:
    void shrink(const float *image, std::int64_t side, float *out);
    void refine(const Kernel &kernel, std::int64_t side, int steps, double aspect, double *found);
    bool weigh(std::int64_t side);
    void look_up(const Kernel &kernel, FollowRow row, const MovedGrid &grid);
    void solve(const Kernel &kernel, std::int64_t side, double aspect, double *step) const;

    std::vector<std::int32_t> sums_;  // of each byte of a row of cells
    std::vector<float> memory_;
    float *before_, *now_, *across_, *down_, *left_, *weight_, *gx_, *gy_, *scratch_, *padded_;
    float columns_[kThumbnailSide], cross_rows_[kThumbnailSide];
};

}  // namespace mvde::internal
