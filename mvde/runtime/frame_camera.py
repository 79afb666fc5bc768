"""The frame's camera on its way into the network, and the factor it gives the network's map.

One function for the runtime, evaluation and the gate of typed graphs, so that metres mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mvde.camera import Camera

if TYPE_CHECKING:
    from mvde.contract import DepthKind, FocalConvention
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
    """Metres of the frame's ``camera`` over those of the canonical camera, f / f_canonical.

    1 for kinds without a canonical camera. Without a camera, that of the input is taken to be the canonical one, as
    libmvde's sessions do.
    """
    canonical, convention = contract.canonical_focal, contract.focal_convention
    if camera is None or canonical is None or convention is None:
        return 1.0
    return input_camera(camera, placement).focal(convention) / canonical


def map_scale(kind: DepthKind, factor: float) -> float:
    """What a map of that kind is multiplied by where metres are multiplied by ``factor``."""
    return 1 / factor if kind.is_inverse else factor
