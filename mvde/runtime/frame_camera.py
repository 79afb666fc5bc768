"""The frame's camera on its way into the network, and the factor it gives the network's map.

One function for the runtime, evaluation and the gate of typed graphs, so that metres mean the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mvde.camera import Camera
from mvde.contract import FocalConvention

if TYPE_CHECKING:
    from mvde.contract import DepthKind
    from mvde.runtime.placement import Placement

CameraOf = Callable[[tuple[int, int]], "Camera | None"]
"""Camera of a frame by its size (H, W), for sources of frames of several sizes."""


class DepthContract(Protocol):
    """What a map's numbers are; every manifest is one."""

    @property
    def depth_kind(self) -> DepthKind:
        """Meaning of the map."""
        ...

    @property
    def canonical_focal(self) -> float | None:
        """Focal length that the map's metres are for, in the convention; ``None`` for kinds without one."""
        ...

    @property
    def focal_convention(self) -> FocalConvention | None:
        """How a focal length is expressed; ``None`` for kinds without a canonical camera."""
        ...


def camera_of(camera: Camera | CameraOf | None, size: tuple[int, int]) -> Camera | None:
    """Camera of a frame of ``size`` (H, W), if there is one.

    Raises :class:`UsageError` if it is of frames of another size.
    """
    found = camera(size) if callable(camera) else camera
    if found is not None:
        found.check_frame(size)
    return found


def input_camera(camera: Camera, placement: Placement) -> Camera:
    """Camera of the network's input: of the frame, carried through both boxes of the placement."""
    source, target = placement.source_box, placement.target_box
    inner = camera.cropped(source.top, source.left, source.size).scaled(target.size)
    return inner.cropped(-target.top, -target.left, placement.target_size)


def camera_factor(contract: DepthContract, camera: Camera | None, placement: Placement) -> float:
    """Metres of the frame's ``camera`` over those of the canonical camera, f / f_canonical, at the network's input.

    1 for kinds without a canonical camera. Without a camera, see :func:`assumed_factor`.
    """
    canonical, convention = contract.canonical_focal, contract.focal_convention
    if canonical is None or convention is None:
        return 1.0
    if camera is None:
        return assumed_factor(convention, placement)
    return input_camera(camera, placement).focal(convention) / canonical


def assumed_factor(convention: FocalConvention, placement: Placement) -> float:
    """Factor f / f_canonical of a frame whose camera is unknown and assumed to be the canonical one of the whole frame.

    That is the camera with square pixels whose focal length at the input is the canonical one if the frame is
    stretched. Crop magnifies it, letterbox shrinks it, so that one frame's metres are the same however it is fitted:
    with the box resized by sx = w_target_box / w_source_box along x, and stretch by rx = W_input / W_frame (sy, ry
    along y), the factor is sqrt(sx/rx * sy/ry), sx/rx or (sx + sy) / (rx + ry) in the three conventions.
    """
    down, across = _ratios(placement.target_box.size, placement.source_box.size)
    whole_down, whole_across = _ratios(placement.target_size, placement.source_size)
    match convention:
        case FocalConvention.GEOMETRIC:
            return math.sqrt(across / whole_across * (down / whole_down))
        case FocalConvention.HORIZONTAL:
            return across / whole_across
        case FocalConvention.PIXELS:
            return (across + down) / (whole_across + whole_down)


def assumed_camera(contract: DepthContract, placement: Placement) -> Camera | None:
    """Camera of :func:`assumed_factor`, centred in the whole frame; ``None`` for kinds without a canonical camera."""
    canonical, convention = contract.canonical_focal, contract.focal_convention
    if canonical is None or convention is None:
        return None
    height, width = placement.source_size
    match convention:
        case FocalConvention.GEOMETRIC:
            focal = canonical * math.sqrt(height * width)
        case FocalConvention.HORIZONTAL:
            focal = canonical * width
        case FocalConvention.PIXELS:
            down, across = _ratios(placement.target_size, placement.source_size)
            focal = 2 * canonical / (across + down)
    return Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, placement.source_size)


def _ratios(target: tuple[int, int], source: tuple[int, int]) -> tuple[float, float]:
    """Ratios (along y, along x) of two sizes (H, W)."""
    return target[0] / source[0], target[1] / source[1]


def map_scale(kind: DepthKind, factor: float) -> float:
    """What a map of that kind is multiplied by where metres are multiplied by ``factor``."""
    return 1 / factor if kind.is_inverse else factor
