// Points of one row of pixels, written once over Lanes. Included like kernel.hpp.
#pragma once

#include "kernel/interface.hpp"

#include <cstring>
#include <limits>

namespace mvde::internal {
namespace {

constexpr std::int64_t kPointLanes = 16;

// Writes sixteen points: XYZ, and the colour if there are colours. Those without depth or without a ray are NaN.
void write_points(const float *depth, Lanes::F ray_x, Lanes::F ray_y, const float *colours, float *out) {
    constexpr std::uint32_t kLargest = 0x5A0E1BCA;  // MVDE_LARGEST_DEPTH; bit patterns from 1 on are of floats above 0
    const Lanes::F z = Lanes::load(depth), nan = Lanes::broadcast(std::numeric_limits<float>::quiet_NaN());
    const Lanes::M valid = Lanes::both(Lanes::in_bits(z, 1, kLargest - 1), Lanes::ordered(ray_x));
    const Lanes::F x = Lanes::select(valid, Lanes::mul(z, ray_x), nan);
    const Lanes::F y = Lanes::select(valid, Lanes::mul(z, ray_y), nan);
    if (colours) Lanes::store_interleaved(out, x, y, Lanes::select(valid, z, nan), Lanes::load(colours));
    else Lanes::store_interleaved(out, x, y, Lanes::select(valid, z, nan));
}

void point_row(const PointRow &row) {
    const std::int64_t values = row.colours ? 4 : 3;
    const auto write = [&](const PointRow &part, std::int64_t at, float *out) {
        const Lanes::F ray_y = part.ray_y ? Lanes::load(part.ray_y + at) : Lanes::broadcast(part.constant_y);
        write_points(part.depth + at, Lanes::load(part.ray_x + at), ray_y, part.colours ? part.colours + at : nullptr, out);
    };
    std::int64_t i = 0;
    for (; i + kPointLanes <= row.count; i += kPointLanes) write(row, i, row.out + i * values);
    if (i == row.count) return;
    // The last few through copies: nothing beyond a row is read or written.
    const std::size_t rest = static_cast<std::size_t>(row.count - i);
    float depth[kPointLanes] = {}, ray_x[kPointLanes] = {}, ray_y[kPointLanes] = {}, colours[kPointLanes] = {};
    float out[4 * kPointLanes];
    std::memcpy(depth, row.depth + i, rest * sizeof(float));
    std::memcpy(ray_x, row.ray_x + i, rest * sizeof(float));
    if (row.ray_y) std::memcpy(ray_y, row.ray_y + i, rest * sizeof(float));
    if (row.colours) std::memcpy(colours, row.colours + i, rest * sizeof(float));
    write({depth, ray_x, row.ray_y ? ray_y : nullptr, row.constant_y, row.colours ? colours : nullptr, kPointLanes, out}, 0,
          out);
    std::memcpy(row.out + i * values, out, rest * static_cast<std::size_t>(values) * sizeof(float));
}

}  // namespace
}  // namespace mvde::internal
