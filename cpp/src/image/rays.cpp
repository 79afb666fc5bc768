#include "image/rays.hpp"

#include "error.hpp"

#include <cmath>
#include <limits>

// Every number is computed by the same additions, multiplications, divisions and square roots as in mvde/runtime/rays.py, in
// the same order, and never by functions whose last bits differ between libraries.
namespace mvde::internal {
namespace {

constexpr int kNumSteps = 10;       // of Newton's method; a lens takes 3 to 6
constexpr int kNumSamples = 4096;   // of a lens's curve
constexpr double kMaxRadius = 16.0;  // x/z of 86 degrees from the optical axis
constexpr double kMaxAngle = 1.5;    // radians from the optical axis, where a ray still has a z
constexpr double kMaxResidual = 1e-9;  // of a ray that the lens bends to where the pixel is
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Ray {
    double x, y;
};

// Radial factor and its slope: of plumb_bob and rational_polynomial as a function of the squared radius.
struct Curve {
    double factor, slope;
};

// Undoes plumb_bob and rational_polynomial.
class Polynomial {
public:
    explicit Polynomial(const double *k) : k_(k), limit_(limit()) {}

    Ray undo(double u, double v) const {
        double x = u, y = v;
        for (int i = 0; i < kNumSteps; ++i) {
            const double r2 = x * x + y * y;
            const Curve at = curve(r2);
            const double p1 = k_[2], p2 = k_[3];
            const double f = x * at.factor + (2 * p1 * x * y + p2 * (r2 + 2 * x * x)) - u;
            const double g = y * at.factor + (p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) - v;
            const double fx = at.factor + 2 * x * x * at.slope + (2 * p1 * y + 6 * p2 * x);
            const double fy = 2 * x * y * at.slope + (2 * p1 * x + 2 * p2 * y);
            const double gy = at.factor + 2 * y * y * at.slope + (6 * p1 * y + 2 * p2 * x);
            const double det = fx * gy - fy * fy;
            x = x - (f * gy - g * fy) / det;
            y = y - (g * fx - f * fy) / det;
        }
        return is_ray(x, y, u, v) ? Ray{x, y} : Ray{kNone, kNone};
    }

private:
    Curve curve(double r2) const {
        const double top = 1 + r2 * (k_[0] + r2 * (k_[1] + r2 * k_[4])),
                     top_slope = k_[0] + r2 * (2 * k_[1] + r2 * (3 * k_[4]));
        const double low = 1 + r2 * (k_[5] + r2 * (k_[6] + r2 * k_[7])),
                     low_slope = k_[5] + r2 * (2 * k_[6] + r2 * (3 * k_[7]));
        return {top / low, (top_slope * low - top * low_slope) / (low * low)};
    }

    // Squared radius up to which the distorted radius grows with the true one.
    double limit() const {
        for (int i = 1; i <= kNumSamples; ++i) {
            const double r = kMaxRadius * i / kNumSamples, r2 = r * r;
            const Curve at = curve(r2);
            if (!(at.factor > 0 && at.factor + 2 * r2 * at.slope > 0)) return r2;
        }
        return kMaxRadius * kMaxRadius;
    }

    bool is_ray(double x, double y, double u, double v) const {
        const double r2 = x * x + y * y;
        const double factor = curve(r2).factor;
        const double du = x * factor + (2 * k_[2] * x * y + k_[3] * (r2 + 2 * x * x)) - u;
        const double dv = y * factor + (k_[2] * (r2 + 2 * y * y) + 2 * k_[3] * x * y) - v;
        return r2 < limit_ && du * du + dv * dv < kMaxResidual * kMaxResidual;  // false for NaN
    }

    const double *k_;
    double limit_;
};

// tan of 0 to kMaxAngle, by the series of sine and cosine of half of it; within 2e-15 of it, relatively.
double tangent(double angle) {
    const double half = angle / 2, h2 = half * half;
    double sine = 1, cosine = 1;
    for (int i = 18; i > 1; i -= 2) {
        sine = 1 - h2 / (i * (i + 1)) * sine;
        cosine = 1 - h2 / (i * (i - 1)) * cosine;
    }
    sine = sine * half;
    return 2 * sine * cosine / (cosine * cosine - sine * sine);
}

// Undoes equidistant distortion: of the angle from the optical axis.
class Angle {
public:
    explicit Angle(const double *k) : k_(k), limit_(limit()) {}

    Ray undo(double u, double v) const {
        const double distorted = std::sqrt(u * u + v * v);
        if (distorted < 1e-9) return {u, v};
        double angle = distorted;
        for (int i = 0; i < kNumSteps; ++i) {
            const double a2 = angle * angle;
            angle = angle - (angle * factor(a2) - distorted) / slope(a2);
        }
        const double residual = angle * factor(angle * angle) - distorted;
        if (!(angle > 0 && angle < limit_ && residual * residual < kMaxResidual * kMaxResidual)) return {kNone, kNone};
        const double stretch = tangent(angle) / distorted;
        return {u * stretch, v * stretch};
    }

private:
    double factor(double a2) const { return 1 + a2 * (k_[0] + a2 * (k_[1] + a2 * (k_[2] + a2 * k_[3]))); }
    double slope(double a2) const { return 1 + a2 * (3 * k_[0] + a2 * (5 * k_[1] + a2 * (7 * k_[2] + a2 * (9 * k_[3])))); }
    double limit() const {
        for (int i = 1; i <= kNumSamples; ++i) {
            const double angle = kMaxAngle * i / kNumSamples;
            if (!(slope(angle * angle) > 0)) return angle;
        }
        return kMaxAngle;
    }

    const double *k_;
    double limit_;
};

template <class Lens>
void fill(const mvde_camera &camera, const Lens &lens, ExactRays &rays) {
    for (std::int64_t row = 0; row < camera.height; ++row) {
        const double v = (static_cast<double>(row) - camera.cy) / camera.fy;
        for (std::int64_t column = 0; column < camera.width; ++column) {
            const Ray ray = lens.undo((static_cast<double>(column) - camera.cx) / camera.fx, v);
            rays.x.push_back(ray.x);
            rays.y.push_back(ray.y);
        }
    }
}

std::vector<float> rounded(const std::vector<double> &values) {
    std::vector<float> found(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) found[i] = static_cast<float>(values[i]);
    return found;
}

}  // namespace

int check_lens(const mvde_distortion &lens) {
    if (lens.model < MVDE_UNDISTORTED || lens.model > MVDE_EQUIDISTANT)
        return fail(MVDE_ERROR_ARGUMENT, "distortion.model is %d: expected a mvde_distortion_model; rectify other frames",
                    lens.model);
    constexpr int kCounts[] = {0, 5, 8, 4};
    for (int i = 0; i < 8; ++i) {
        const double value = lens.coefficients[i];
        if (!(std::fabs(value) < 1e9))
            return fail(MVDE_ERROR_ARGUMENT, "distortion.coefficients[%d] is %g: expected a number below 1e9", i, value);
        if (i >= kCounts[lens.model] && value != 0.0)
            return fail(MVDE_ERROR_ARGUMENT, "distortion.coefficients[%d] is %g: the model has %d, expected 0 after them", i,
                        value, kCounts[lens.model]);
    }
    return MVDE_OK;
}

ExactRays exact_rays(const mvde_camera &camera, const mvde_distortion *lens) {
    ExactRays rays;
    if (lens && lens->model != MVDE_UNDISTORTED) {
        rays.x.reserve(static_cast<std::size_t>(camera.height * camera.width));
        rays.y.reserve(static_cast<std::size_t>(camera.height * camera.width));
        if (lens->model == MVDE_EQUIDISTANT) fill(camera, Angle(lens->coefficients), rays);
        else fill(camera, Polynomial(lens->coefficients), rays);
        return rays;
    }
    for (std::int64_t i = 0; i < camera.width; ++i) rays.x.push_back((static_cast<double>(i) - camera.cx) / camera.fx);
    for (std::int64_t i = 0; i < camera.height; ++i) rays.y.push_back((static_cast<double>(i) - camera.cy) / camera.fy);
    return rays;
}

Rays::Rays(const mvde_camera &camera, const mvde_distortion *lens)
    : height_(camera.height), width_(camera.width), is_distorted_(lens && lens->model != MVDE_UNDISTORTED) {
    const ExactRays exact = exact_rays(camera, lens);
    x_ = rounded(exact.x);
    y_ = rounded(exact.y);
}

}  // namespace mvde::internal
