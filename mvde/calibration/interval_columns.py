"""The columns ``lo``, ``hi`` and ``near``: from a patch's mean and minimum, and the tables of a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mvde.calibration.conformal import bins_of
from mvde.calibration.record import Calibration
from mvde.errors import CalibrationError, UsageError
from mvde.manifest import Manifest
from mvde.stats import INTERVALS, check_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.calibration.interval_record import IntervalsRecord
    from mvde.camera import Camera

_SOURCES = {"lo": "mean", "hi": "mean", "near": "min"}
"""The statistic that each column is a multiple of."""


def base_columns(stats: Sequence[str] | None) -> Sequence[str] | None:
    """Columns that are computed of a map for the columns ``stats``: these without intervals, and what they need.

    ``None`` (those of the manifest), and what is no sequence of names, stay as they are.
    """
    if stats is None or isinstance(stats, str) or not isinstance(stats, Sequence):
        return stats
    kept = [name for name in stats if name not in INTERVALS]
    needed = {_SOURCES[name]: None for name in stats if name in INTERVALS}
    return [*kept, *(name for name in needed if name not in kept)]


class IntervalColumns:
    """The columns of a runtime: ``names`` as they are asked for, and ``base``, those that are computed of a map."""

    def __init__(self, manifest: Manifest, stats: Sequence[str] | None, calibration: Calibration | None) -> None:
        """Check the columns ``stats``, ``None`` for those of the manifest.

        Raises :class:`UsageError` for an unknown or repeated one, and for intervals without a calibration,
        :class:`CalibrationError` for intervals that a calibration does not have.
        """
        self.base = manifest.columns(base_columns(stats))
        self.names = self.base if stats is None else tuple(stats)
        self.asked = tuple(name for name in self.names if name in INTERVALS)
        self._tables: IntervalsRecord | None = None
        self._is_of_any_camera = False
        if not self.asked:
            return
        if calibration is None:
            check_stats(self.asked)  # says what is missing
        if len(set(self.names)) != len(self.names):
            raise UsageError(f"stats names a column twice: {', '.join(self.names)}; give each once")
        if calibration is None or calibration.intervals is None:
            raise CalibrationError(
                f"stats has {self.asked[0]!r}, but the calibration has no intervals; add them with `mvde calibrate "
                "intervals`"
            )
        self._tables, self._is_of_any_camera = calibration.intervals, calibration.frame is None

    def check_frame(self, camera: Camera | None, factor: float, anchors: Sequence[object] | None) -> None:
        """Raise unless intervals, if they are asked for, hold for a frame of ``camera`` with f / f_canonical.

        :class:`UsageError` for ``anchors``, which give depth without the calibration, :class:`CalibrationError` for a
        camera that is unknown, or beyond those that were calibrated.
        """
        if self._tables is None:
            return
        if anchors is not None:
            raise UsageError(
                f"anchors take the place of the calibration, whose {', '.join(self.asked)} do not hold then; leave the "
                "anchors or these statistics out"
            )
        if camera is None:
            raise CalibrationError(
                f"{', '.join(self.asked)} need the camera of the frame, since errors are others with another field of "
                "view; give the camera"
            )
        low, high = self._tables.camera_factor
        if self._is_of_any_camera and not low <= factor <= high:
            raise CalibrationError(
                f"the intervals are of cameras with f / f_canonical of {low:.3g} to {high:.3g}, but this frame has "
                f"{factor:.3g}; calibrate such frames with `mvde calibrate intervals`"
            )

    def check_floor(self) -> None:
        """Raise :class:`UsageError` if intervals are asked for: with the floor's scale, depth has other errors."""
        if self.asked:
            raise UsageError(
                f"the floor gives depth another scale than that whose errors were calibrated, so that "
                f"{', '.join(self.asked)} would not hold; leave the floor or these statistics out"
            )

    def check_device(self) -> None:
        """Raise :class:`UsageError` for intervals, which are computed on the host."""
        if self.asked:
            raise UsageError(f"infer_device has no {', '.join(self.asked)}, which the host computes; use infer")

    def of(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Columns ``names`` (N, S), float32, from rows (N, B) of the columns ``base`` of depth in metres."""
        if self.names == self.base:
            return rows
        assert self._tables is not None
        tables, found = self._tables, np.empty((len(rows), len(self.names)), np.float32)
        for place, name in enumerate(self.names):
            source = rows[:, self.base.index(_SOURCES.get(name, name))]
            match name:
                case "lo":
                    found[:, place] = _multiplied(source, tables.mean.edges_m, tables.mean.lo)
                case "hi":
                    found[:, place] = _multiplied(source, tables.mean.edges_m, tables.mean.hi)
                case "near":
                    found[:, place] = _multiplied(source, tables.nearest.edges_m, tables.nearest.factors)
                case _:
                    found[:, place] = source
        return found


def _multiplied(
    values: NDArray[np.float32], edges_m: tuple[float, ...], factors: tuple[float, ...]
) -> NDArray[np.float32]:
    """Each value (N,), float32, times the factor of its bin, in float64 and rounded once; 0 stays 0."""
    exact = values.astype(np.float64)
    product: NDArray[np.float32] = (exact * np.asarray(factors)[bins_of(edges_m, exact)]).astype(np.float32)
    return product
