"""How a frame's map becomes its depth: the frame's camera, and a calibration or anchors that give it metres."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.calibration.record import ANCHORS, Calibration
from mvde.calibration.solve import solve
from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.postprocess import Mask, postprocess
from mvde.runtime.frame_camera import DepthContract, assumed_camera, camera_factor, map_scale
from mvde.runtime.placement import Placement, clear_bars
from mvde.stats import scale_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.native import Postprocessed

Anchor = tuple[float, float, float]
"""Known depth: x (column) and y (row) in pixels of the frame, and metres along the optical axis."""

MAX_ANCHORS = 4096
"""Of a frame; a depth camera's picture belongs in a calibration."""


@dataclass(frozen=True)
class View:
    """Conversion of a frame's map to depth of ``kind``: ``scale`` * x + ``shift``, or its reciprocal.

    ``factor``, ``is_assumed`` and ``camera`` are the camera's, as in :class:`mvde.DepthResult`; ``calibrated`` is what
    the metres come from, ``None`` for the network's own. ``map_unit`` are the factor and the addend by which the map
    gets the unit of that of another engine, in which it is made steady with the maps of both.
    """

    kind: DepthKind
    factor: float
    scale: float
    is_assumed: bool
    shift: float = 0.0
    is_reciprocal: bool = False
    calibrated: str | None = None
    camera: Camera | None = None
    map_unit: tuple[float, float] = (1.0, 0.0)

    @property
    def is_scaling(self) -> bool:
        """Whether depth is a multiple of the map, so that statistics of the map can be scaled."""
        return not self.is_reciprocal and self.shift == 0

    @property
    def invalid(self) -> float:
        """Value where the network gives no distance: 0 in inverse maps, NaN in depth, which has no 0."""
        return 0.0 if self.kind.is_inverse else math.nan

    def meaning(self, placement: Placement) -> tuple[DepthKind, Placement, float, bool, str | None, Camera | None]:
        """What a result says of its depth: kind, placement, and camera and calibration as :class:`mvde.DepthResult`."""
        return self.kind, placement, self.factor, self.is_assumed, self.calibrated, self.camera

    def scaled_by(self, factor: float) -> View:
        """View of depth times ``factor``."""
        if factor == 1:
            return self
        own = 1 / factor if self.is_reciprocal else factor
        return dataclasses.replace(self, scale=self.scale * own, shift=self.shift * own)

    def scaled(self, rows: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """Statistics (N, S) of the depth, from those of the map; for views that only scale."""
        return rows if self.scale == 1 else scale_stats(rows, names, self.scale)

    def apply(
        self,
        raw: NDArray[np.float32],
        placement: Placement,
        patch_size: int,
        names: Sequence[str],
        mask: Mask | None = None,
        confidence: NDArray[np.float32] | None = None,
    ) -> Postprocessed:
        """Depth and statistics at the network's resolution, from its map (H, W); letterbox bars have no statistics.

        ``mask`` and ``confidence`` are as in :func:`mvde.postprocess.postprocess`.
        """
        if names:
            raw = clear_bars(raw, placement)
        return postprocess(
            raw,
            patch_size,
            names,
            conversion="inverse" if self.is_reciprocal else "linear",
            scale=self.scale,
            shift=self.shift,
            invalid=self.invalid,
            mask=mask,
            confidence=confidence,
        )


def frame_view(contract: DepthContract, placement: Placement, camera: Camera | None) -> View:
    """View of a frame at ``placement`` by its ``camera``, without a calibration."""
    kind, factor = contract.depth_kind, camera_factor(contract, camera, placement)
    is_assumed = kind.has_canonical_camera and camera is None
    known = assumed_camera(contract, placement) if is_assumed else camera
    return View(kind, factor, map_scale(kind, factor), is_assumed, camera=known)


def calibrated(view: View, calibration: Calibration) -> View:
    """View with the metres of a calibration, if it has a scale."""
    if calibration.scale is None:
        return view
    return _with_metres(view, calibration.scale, calibration.shift, calibration.describes)


def anchored(view: View, raw: NDArray[np.float32], placement: Placement, anchors: Sequence[Anchor]) -> View:
    """View with metres from the known depths of its own frame, whose map is ``raw`` (H, W).

    Anchors where the network has no value are left out. Raises :class:`UsageError` for an anchor outside the frame,
    :class:`CalibrationError` if too few are left, or they do not determine the scale.
    """
    found = [(_sampled(raw, placement, x, y), metres) for x, y, metres in anchors]
    valid = [(value, metres) for value, metres in found if value > 0]
    values = np.array([value for value, _ in valid], np.float64) * view.scale
    return _with_metres(view, *solve(view.kind, values, np.array([metres for _, metres in valid])), ANCHORS)


def check_anchors(anchors: Sequence[Anchor], size: tuple[int, int]) -> None:
    """Raise :class:`UsageError` unless anchors are numbers, inside a frame of ``size`` (H, W), and above 0 m."""
    if not isinstance(anchors, (list, tuple, np.ndarray)):
        raise UsageError(f"anchors is {anchors!r}, but expected a list of (x, y, metres)")
    if not 0 < len(anchors) <= MAX_ANCHORS:
        raise UsageError(f"a frame takes 1 to {MAX_ANCHORS} anchors, but got {len(anchors)}")
    for number, anchor in enumerate(anchors):
        if np.shape(anchor) != (3,) or not all(isinstance(value, (int, float, np.number)) for value in anchor):
            raise UsageError(f"anchor {number} is {anchor!r}, but expected (x, y, metres)")
        x, y, metres = anchor
        if not (-0.5 <= x < size[1] - 0.5 and -0.5 <= y < size[0] - 0.5):
            raise UsageError(
                f"anchor {number} at x {x:g}, y {y:g} is outside the frame of {size[1]} columns and {size[0]} rows"
            )
        if not 0 < metres < math.inf:
            raise UsageError(f"anchor {number} is at {metres:g} m, but expected a positive number")


def _with_metres(view: View, scale: float, shift: float, calibrated: str | None) -> View:
    """The view with scale and shift of the map behind the camera's own scale."""
    return dataclasses.replace(
        view,
        kind=DepthKind.METRIC,
        scale=view.scale * scale,
        shift=shift,
        is_reciprocal=view.kind.is_inverse,
        calibrated=calibrated,
    )


def _sampled(raw: NDArray[np.float32], placement: Placement, x: float, y: float) -> float:
    """Map (H, W) at pixel (x, y) of the frame, bilinear; 0 outside the view, or where a neighbour has no value."""
    source, target = placement.source_box, placement.target_box
    (source_height, source_width), (height, width) = source.size, target.size
    if not (source.left - 0.5 <= x < source.right - 0.5 and source.top - 0.5 <= y < source.bottom - 0.5):
        return 0.0
    across = (x - source.left + 0.5) * width / source_width - 0.5
    down = (y - source.top + 0.5) * height / source_height - 0.5
    across, down = min(max(across, 0.0), width - 1.0), min(max(down, 0.0), height - 1.0)
    left, top = int(across), int(down)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    inner = raw[target.slices]
    taps = [float(inner[row, column]) for row in (top, bottom) for column in (left, right)]
    if not all(0 < tap < math.inf for tap in taps):
        return 0.0
    u, v = across - left, down - top
    upper, lower = taps[0] + u * (taps[1] - taps[0]), taps[2] + u * (taps[3] - taps[2])
    return upper + v * (lower - upper)
