// The frame's camera on its way into the network, and the factor it gives the network's map, with the results and words of
// mvde/runtime/frame_camera.py.
#pragma once

#include "session/manifest.hpp"

#include "mvde/mvde.h"

#include <cstdint>
#include <optional>

namespace mvde::internal {

// How a frame enters the network; sizes in pixels.
struct FrameView {
    std::int64_t frame_height, frame_width, model_height, model_width;
    mvde_box source, target;
};

// Throws Refused (MVDE_ERROR_ARGUMENT) unless focal lengths and sides are positive and all numbers are finite.
void check_camera(const mvde_camera &camera);

// Returns the camera of the network's input: the frame's, carried through both boxes. Throws Refused if a number leaves its
// limits on the way.
mvde_camera input_camera(const mvde_camera &camera, const FrameView &view);

// Returns f / f_canonical at the network's input; 1 for kinds without a canonical camera. `camera` is NULL where the canonical
// one is assumed for the whole frame. Throws Refused if the camera is of frames of another size.
double camera_factor(const Manifest &manifest, const mvde_camera *camera, const FrameView &view);

// Returns the canonical camera, assumed for the whole frame; none for kinds without one. With the bits of assumed_camera of
// mvde/runtime/frame_camera.py.
std::optional<mvde_camera> assumed_camera(const Manifest &manifest, const FrameView &view);

bool is_inverse(mvde_depth_kind kind);

// Returns what the network's map is multiplied by where metres are multiplied by `factor`.
double map_scale(mvde_depth_kind kind, double factor);

mvde_depth_kind depth_kind_of(const Manifest &manifest);

}  // namespace mvde::internal
