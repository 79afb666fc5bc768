"""What a viewer shows of a frame, and the interface of viewers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mvde.robot.patches import patch_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.result import DepthResult

OPTICAL_FRAME = "camera_optical_frame"
"""Frame of depth and points: x right, y down, z forward (REP 103)."""
BODY_FRAME = "camera_link"
"""The same origin with x forward, y left, z up, for viewers that turn a scene upright."""
SCAN_FRAME = "camera_scan"
"""A level frame at the camera's centre, x forward, y left, z up, in which distances by bearing are told."""
BODY_FROM_OPTICAL = (-0.5, 0.5, -0.5, 0.5)
"""Quaternion (x, y, z, w) of the optical frame in the body's."""
POINT_STEP = 4
"""Every fourth row and column: 19,200 points of a 640x480 frame, enough to recognise a room by."""


@dataclass(frozen=True)
class Viewed:
    """A frame as viewers show it: RGB image (H, W, 3), uint8, its depth, and how long it took.

    ``stamp_ns`` is the time of the frame in nanoseconds since the Unix epoch. ``age_ms`` counts from receiving a live
    frame to its result; ``None`` for frames of files. ``num_passed_over`` and ``num_late`` count frames so far.
    """

    index: int
    image: NDArray[np.uint8]
    result: DepthResult
    stamp_ns: int
    age_ms: float | None = None
    is_late: bool = False
    num_passed_over: int = 0
    num_late: int = 0

    @property
    def has_points(self) -> bool:
        """Whether depth is in metres and the frame has a camera, given or assumed."""
        return self.result.unit == "m" and self.result.camera is not None

    def check_points(self) -> None:
        """Raise :class:`UsageError`, with the reason, if the frame has no points."""
        self.result.points(max(self.image.shape))

    def points(self, step: int) -> NDArray[np.float32]:
        """Points (N, 4), float32, of the pixels with depth: XYZ in metres in the optical frame, and their colour.

        The last value's bytes are blue, green, red and 255. Every ``step``-th row and column has one.
        """
        flat = self.result.points(step, self.image).reshape(-1, 4)
        flat = flat[np.isfinite(flat[:, 2])]
        flat.view(np.uint32)[:, 3] |= 0xFF000000
        return flat

    @property
    def name(self) -> str:
        """``"depth"`` in metres, ``"relative"`` otherwise: nobody may take the one for the other."""
        return "depth" if self.result.unit == "m" else "relative"

    @cached_property
    def patches(self) -> dict[str, NDArray[np.float32]]:
        """Image (rows, columns), float32, of each column of the statistics; NaN for patches without depth."""
        return patch_images(self.result)

    @property
    def latency(self) -> dict[str, float | bool | None]:
        """Times in milliseconds and counts, by name."""
        timings = self.result.timings
        return {
            "pre_ms": timings.pre_ms,
            "infer_ms": timings.infer_ms,
            "post_ms": timings.post_ms,
            "total_ms": timings.total_ms,
            "age_ms": self.age_ms,
            "is_late": self.is_late,
            "num_passed_over": self.num_passed_over,
            "num_late": self.num_late,
        }

    @property
    def floor(self) -> dict[str, float | str] | None:
        """What the floor gave the frame's scale: status, scale, share and residual; ``None`` without a mounting."""
        return asdict(self.result.floors[0]) if self.result.floors else None

    @property
    def statistics(self) -> dict[str, dict[str, float] | int]:
        """Smallest, median and largest value over the patches by column, and the number of patches with depth."""
        rows = self.result.stats
        found: dict[str, dict[str, float] | int] = {
            "num_patches": len(rows),
            "num_valid_patches": int(np.count_nonzero(rows.any(axis=1))),
        }
        for name, values in self.patches.items():
            known = values[np.isfinite(values)]
            if known.size:
                low, middle, high = (float(value) for value in np.quantile(known, (0, 0.5, 1)))
                found[name] = {"min": low, "median": middle, "max": high}
        return found


class Viewer(Protocol):
    """Where frames are shown or recorded."""

    def show(self, viewed: Viewed) -> None:
        """Show a frame."""
        ...

    def close(self) -> None:
        """End; a recording is complete then."""
        ...
