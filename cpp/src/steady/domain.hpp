// The numbers in which maps are compared and averaged over time, with the bits of mvde/runtime/steady_scale.py.
#pragma once

#include "kernel/interface.hpp"
#include "mvde/mvde.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace mvde::internal {

// A map with a row stride in floats.
struct Grid {
    const float *values;
    std::int64_t height, width, stride;

    const float *row(std::int64_t y) const { return values + y * stride; }
};

// How a change of scale is let through: `gain` up to `opens`, all of it from `full` on.
struct Opening {
    double gain, opens, full;

    double of(double change) const;
};

// Conversion to and from the domain, where NaN is no value, and alignment to the past. Maps in it are dense.
class SteadyDomain {
public:
    virtual ~SteadyDomain() = default;
    virtual float log_per_unit() const = 0;
    virtual void begin(const Grid &raw) = 0;  // the first map after a reset
    virtual void enter(const Kernel &kernel, const float *raw, std::int64_t count, float *out) const = 0;
    virtual void leave(const Kernel &kernel, const float *values, const float *raw, std::int64_t count,
                       float *out) const = 0;
    // What a zoom of the picture adds to the past.
    virtual float nearer(const Kernel &kernel, double zoom) const = 0;
    // Brings values [height, width] to the scale of the past but for a share of the change.
    virtual void align(const Kernel &kernel, float *values, const Grid &past, const Opening &opening) = 0;
    virtual void reserve(std::int64_t height, std::int64_t width) = 0;

    static std::unique_ptr<SteadyDomain> of(mvde_depth_kind kind);
};

}  // namespace mvde::internal
