// Rays of a camera's pixels, with the bits of mvde/runtime/rays.py.
#pragma once

#include "mvde/mvde.h"

#include <cstdint>
#include <vector>

namespace mvde::internal {

// Checks the numbers and the coefficients of a camera's lens. Returns a mvde_status, with a message.
int check_lens(const mvde_distortion &lens);

// Rays (x/z, y/z): x of each column and y of each row, or both of each pixel with distortion. NaN where the lens has none.
struct ExactRays {
    std::vector<double> x, y;
};

// Camera and lens have been checked; `lens` may be NULL. Throws std::bad_alloc.
ExactRays exact_rays(const mvde_camera &camera, const mvde_distortion *lens);

// The ray (x/z, y/z) of every pixel; NaN where the lens has none. Without distortion x depends on the column and y on the
// row alone, and one row and one column are kept.
class Rays {
public:
    // Camera and lens have been checked; `lens` may be NULL. Throws std::bad_alloc.
    Rays(const mvde_camera &camera, const mvde_distortion *lens);

    std::int64_t height() const { return height_; }
    std::int64_t width() const { return width_; }
    bool is_distorted() const { return is_distorted_; }
    const float *x(std::int64_t row) const { return x_.data() + (is_distorted_ ? row * width_ : 0); }
    const float *y(std::int64_t row) const { return y_.data() + (is_distorted_ ? row * width_ : row); }

private:
    std::int64_t height_, width_;
    bool is_distorted_;
    std::vector<float> x_, y_;
};

}  // namespace mvde::internal
