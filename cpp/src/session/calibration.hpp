// The calibration file: scale and shift, and intervals, of one graph's map, read as strictly as in mvde/calibration/record.py, with the same
// messages.
#pragma once

#include "session/intervals.hpp"
#include "session/manifest.hpp"

#include "mvde/mvde.h"

#include <cstdint>
#include <optional>
#include <string>

namespace mvde::internal {

// Depth in metres is scale * x, or 1 / (scale * x + shift) of an inverse kind; without a scale it is the network's.
struct Calibration {
    std::string name, graph_sha256, engine, depth_kind, fit;
    std::int64_t height = 0, width = 0;  // of the network's input
    std::int64_t frame_height = 0, frame_width = 0;  // of the calibrated frames; 0 if they are of several cameras
    std::optional<double> scale;
    double shift = 0.0;
    std::optional<mvde_camera> camera;  // none if it was not given
    std::optional<Intervals> intervals;

    bool is_of_any_camera() const { return frame_height == 0; }

    mvde_calibrated describes() const;
};

// Throws Refused (MVDE_ERROR_MANIFEST) naming the file, the problem and its remedy.
Calibration read_calibration(const std::string &path);

// Throws Refused (MVDE_ERROR_INCOMPATIBLE) unless it is of this engine's fp32 graph and resolution.
void check_engine(const Calibration &calibration, const EngineManifest &manifest);

// Throws Refused (MVDE_ERROR_INCOMPATIBLE) unless frames enter as the calibrated ones did.
void check_frames(const Calibration &calibration, std::int64_t height, std::int64_t width, std::int32_t fit,
                  const mvde_camera *camera);

}  // namespace mvde::internal
