// A camera frame for session tests.
#pragma once

#include <mvde/mvde.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

inline mvde_outputs outputs_of(mvde::View<float> depth_m, mvde::View<float> stats) {
    return mvde::Outputs{depth_m, stats, {}, {}}.plain();
}

struct Frame {
    explicit Frame(mvde::Size size) : bytes(static_cast<std::size_t>(size.height * size.width * 3)) {
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 % 251);
        view = mvde::frame(bytes.data(), mvde::PixelFormat::rgb, size);
    }
    void fill(int grey) { std::fill(bytes.begin(), bytes.end(), static_cast<uint8_t>(grey)); }

    std::vector<uint8_t> bytes;
    mvde_frame view;
};
