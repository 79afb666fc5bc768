// Reference implementation of the statistics, pixel by pixel in double, independent of the library.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace reference {

struct Image {
    int height, width;
    std::vector<double> metres;  // NaN where invalid
    double at(int y, int x) const {
        y = std::clamp(y, 0, height - 1);
        x = std::clamp(x, 0, width - 1);
        return metres[static_cast<std::size_t>(y) * width + x];
    }
};

inline double difference(double a, double b) { return std::isnan(a) || std::isnan(b) ? 0.0 : (a - b) / 2; }

// mean, var, grad, min, max, valid of the patch whose first pixel is (top, left).
inline std::vector<double> patch_stats(const Image &image, int top, int left, int size) {
    long double sum = 0, squares = 0, slope = 0;
    double lowest = std::numeric_limits<double>::infinity(), highest = 0;
    int count = 0;
    for (int y = top; y < top + size; ++y)
        for (int x = left; x < left + size; ++x) {
            const double depth = image.at(y, x);
            if (std::isnan(depth)) continue;
            ++count;
            sum += depth;
            slope += std::hypot(difference(image.at(y, x + 1), image.at(y, x - 1)),
                                difference(image.at(y + 1, x), image.at(y - 1, x)));
            lowest = std::min(lowest, depth);
            highest = std::max(highest, depth);
        }
    if (!count) return std::vector<double>(6, 0.0);
    const long double mean = sum / count;
    for (int y = top; y < top + size; ++y)
        for (int x = left; x < left + size; ++x) {
            const double depth = image.at(y, x);
            if (!std::isnan(depth)) squares += (depth - mean) * (depth - mean);
        }
    return {static_cast<double>(mean),
            static_cast<double>(squares / count),
            static_cast<double>(slope / count),
            lowest,
            highest,
            static_cast<double>(count) / (static_cast<double>(size) * size)};
}

}  // namespace reference
