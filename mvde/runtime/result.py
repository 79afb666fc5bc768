"""Result of one call of the runtime: the map, its statistics, and what both mean."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.runtime.placement import Placement
from mvde.runtime.points import depth_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.runtime.describe import Description
    from mvde.runtime.floor import FloorScale
    from mvde.runtime.scan import Scan

_MAX_DEPTH_MM = 65_535


@dataclass(frozen=True)
class Timings:
    """Latency of one call in milliseconds: preprocessing, inference, and postprocessing with statistics."""

    pre_ms: float
    infer_ms: float
    post_ms: float

    @property
    def total_ms(self) -> float:
        """Sum of the three stages in milliseconds."""
        return self.pre_ms + self.infer_ms + self.post_ms


@dataclass(frozen=True)
class DepthResult:
    """The network's map for the frame's camera, and its patch statistics.

    ``depth`` is (H, W), float32, at the input image's resolution, in :attr:`unit` of ``depth_kind``: inverse kinds keep
    the map, and :meth:`as_depth` takes the reciprocal. NaN marks pixels that the network did not see (``fit="crop"``)
    or masks, or whose value is no distance (inverse kinds keep 0 there), +inf the sky of networks that tell it (0 in
    inverse maps); both are 0 if the runtime was loaded with ``invalid="zero"``. The edges of such holes are those of
    the network's map: pixels beside them have depth of their own, not a mixture.
    ``stats`` is (N, S), float32, on the model's patch grid, row-major, with one column per name in ``stat_names``;
    patches in the bars of ``fit="letterbox"`` are 0. ``grid`` is (rows, columns), with N = rows * columns.
    ``placement`` holds the part of the frame that the network saw and where it was in the network's input.

    ``camera`` is that of the whole frame (the image that was given, not the network's input), as given or, for kinds
    with a canonical camera, as assumed; ``None`` where there is neither. ``camera_factor`` is f / f_canonical, which
    ``depth`` and ``stats`` contain; 1 for kinds without a canonical camera. ``camera_assumed`` says that the kind has
    one, but the frame's camera was not given.

    ``calibrated`` says where metres that are not the network's own come from: ``"one scale"`` or ``"fixed scene"`` of a
    calibration, ``"anchors"`` of the frame; ``depth_kind`` is ``metric`` then. ``None`` without.

    ``scan`` holds distances by bearing, if the runtime was loaded with the settings of one.

    ``num_steady`` is the number of frames that ``depth`` and ``stats`` go back in a stream that is stabilised, this one
    included: 1 after a cut, where they are the network's own. ``None`` without a stabiliser.

    ``floors`` holds the scale that the floor gave each frame, if the camera's mounting is known: whether there was one,
    and what ``depth`` was multiplied by. Empty without.

    For a batch, ``depth`` is (B, H, W), ``stats`` (B, N, S), ``scan.ranges`` (B, bearings), and timings cover the whole
    batch; in a stream they are divided evenly among the frames of a batch.
    """

    depth: NDArray[np.float32]
    stats: NDArray[np.float32]
    grid: tuple[int, int]
    timings: Timings
    stat_names: tuple[str, ...]
    depth_kind: DepthKind
    placement: Placement
    camera_factor: float = 1.0
    camera_assumed: bool = False
    calibrated: str | None = None
    camera: Camera | None = None
    scan: Scan | None = None
    num_steady: int | None = None
    floors: tuple[FloorScale, ...] = ()

    @property
    def unit(self) -> str:
        """Unit of ``depth``: ``"m"``, ``"1"`` (depth up to a scale) or ``"1/u"`` (inverse depth)."""
        return self.depth_kind.unit

    def require_metres(self, what: str) -> None:
        """Raise :class:`UsageError` unless ``depth`` is in metres, which ``what``, the message's subject, needs."""
        check_metres(self.depth_kind, what)

    def as_depth(self) -> NDArray[np.float32]:
        """Depth of the shape of ``depth``, NaN where it is not finite or not above 0; a copy.

        The reciprocal of an inverse kind: metres for ``inverse_canonical``; for ``inverse_relative`` a number that
        grows with distance, but not in proportion, since scale and shift are unknown.
        """
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            valid = np.isfinite(self.depth) & (self.depth > 0)
            depth = np.where(valid, 1 / self.depth if self.depth_kind.is_inverse else self.depth, np.float32(math.nan))
        depth[np.isinf(depth)] = math.nan  # the reciprocal of a subnormal number
        return depth

    def points(
        self, step: int = 1, rgb: NDArray[np.uint8] | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Points (H', W', 3), float32, in metres in the camera's optical frame; NaN where there is no depth.

        X is right, Y down, Z forward (ROS REP 103). There is one for every ``step``-th row and column, organised as the
        image: H' is ceil(H / step). With ``rgb``, the image (H, W, 3), uint8, that was given to the runtime, they are
        (H', W', 4): the last value's bits are 0x00RRGGBB, the field ``rgb`` of a ``sensor_msgs/PointCloud2``, whose
        data this array is (``point_step`` is 12 or 16 bytes). Pixels that the lens cannot show, beyond the fold of its
        distortion, are NaN too. A batch has a leading axis, here and in ``rgb``. ``out``, float32 and contiguous,
        receives the points if given, which saves the allocation of a large array.

        Raises :class:`UsageError` for a map without metres, a camera that is neither given nor assumed, ``rgb`` or
        ``out`` of another shape, and a ``step`` below 1.
        """
        self.require_metres("points()")
        if self.camera is None:
            raise UsageError(
                f"points() needs the camera of the frame, and {self.depth_kind} assumes none: give camera= to "
                "DepthRuntime.load or infer"
            )
        if self.depth.ndim == 2:
            return depth_points(self.depth, self.camera, step, rgb, out)
        frames = [None] * len(self.depth) if rgb is None else rgb
        if len(frames) != len(self.depth) or (out is not None and len(out) != len(self.depth)):
            raise UsageError(f"rgb and out need one entry for each of the {len(self.depth)} maps of the batch")
        outs = [None] * len(self.depth) if out is None else out
        each = zip(self.depth, frames, outs, strict=True)
        points = [depth_points(depth, self.camera, step, frame, buffer) for depth, frame, buffer in each]
        return np.stack(points) if out is None else out

    def describe(self) -> Description:
        """What is near, free and unknown, for a language model: ``str()`` gives sentences, ``to_json()`` JSON.

        From the scan, which knows the floor and how far the camera sees. Raises :class:`UsageError` without one, for a
        map without metres, and for a batch.
        """
        from mvde.runtime.describe import describe_scan

        self.require_metres("describe()")
        if self.scan is None:
            raise UsageError(
                "describe() needs a scan, which knows the floor: give scan= (a file, or ScanSettings) to "
                "DepthRuntime.load"
            )
        return describe_scan(self.scan, camera_assumed=self.camera_assumed, calibrated=self.calibrated)

    def millimetres(self) -> NDArray[np.uint16]:
        """Depth in whole millimetres (ROS REP 118), uint16, of the shape of ``depth``; 0 is invalid or past 65.535 m.

        Raises :class:`UsageError` for a kind that is not in metres.
        """
        self.require_metres("millimetres()")
        with np.errstate(invalid="ignore", over="ignore"):
            depth_mm = np.rint(self.depth * np.float32(1000))  # rounds to float32 first, as libmvde and the GPU do
        return np.where((depth_mm > 0) & (depth_mm <= _MAX_DEPTH_MM), depth_mm, 0).astype(np.uint16)


def check_metres(kind: DepthKind, what: str) -> None:
    """Raise :class:`UsageError` unless maps of that kind are in metres; ``what``, the message's subject, needs them."""
    if kind.unit != "m":
        raise UsageError(
            f"{what} needs a map in metres, but this one is {kind}, in the unit {kind.unit}: use depth, or give it "
            "metres by a calibration (mvde calibrate) or anchors"
        )


def stacked(results: list[DepthResult]) -> DepthResult:
    """Stack results along a leading batch axis and sum their times."""
    times = [result.timings for result in results]
    timings = Timings(
        sum(one.pre_ms for one in times), sum(one.infer_ms for one in times), sum(one.post_ms for one in times)
    )
    depth, stats = np.stack([result.depth for result in results]), np.stack([result.stats for result in results])
    scans = [result.scan for result in results if result.scan is not None]
    scan = dataclasses.replace(scans[0], ranges=np.stack([one.ranges for one in scans])) if scans else None
    floors = tuple(floor for result in results for floor in result.floors)
    return dataclasses.replace(results[0], depth=depth, stats=stats, timings=timings, scan=scan, floors=floors)
