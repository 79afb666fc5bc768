"""Accuracy of depth as it was delivered over time: a late frame has the depth of an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from mvde.alignment import Alignment
from mvde.camera import Camera
from mvde.metrics import depth_errors
from mvde.runtime.frame_camera import camera_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.datasets.clips import Clip, ClipDataset
    from mvde.protocols import EvaluationProtocol
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.frame_camera import CameraOf

Resolution = tuple[int, int]
Delivery = tuple[int, Resolution] | None
"""Number of the captured frame that a result is of, and the resolution it was inferred at."""


class _Place(NamedTuple):
    """Where a captured frame is: which showing of a clip, of the clips one after the other, and the frame in it."""

    showing: int
    frame: int


def delivered_accuracy(
    runs: Sequence[Sequence[Delivery]],
    runtimes: Mapping[Resolution, DepthRuntime],
    dataset: ClipDataset,
    protocol: EvaluationProtocol,
    *,
    fps: float,
    max_frames: int = 0,
    camera: CameraOf | None = None,
) -> list[dict[str, float]]:
    """AbsRel and delta1 of each run's deliveries, against the depth of the frames that they stand for.

    A camera of ``fps`` frames a second films the clips, one after the other and again, in their own time. Frames whose
    newest result is of the clip before, where no camera is, do not count. ``max_frames`` > 0 takes as many whole clips
    as it needs. A run of which no frame counts has no entries.
    """
    num_clips = dataset.num_clips if max_frames <= 0 else min(-(-max_frames // dataset.num_frames), dataset.num_clips)
    sums = [{"delivered_abs_rel": 0.0, "delivered_delta1": 0.0, "delivered_frames": 0.0} for _ in runs]
    for number, clip in enumerate(islice(dataset.clips(), num_clips)):
        film = _Film(clip, runtimes, protocol, camera)
        for run, total in zip(runs, sums, strict=True):
            for captured, delivery in enumerate(run):
                now = _place(captured, fps, dataset)
                if delivery is None or now.showing % num_clips != number:
                    continue
                then = _place(delivery[0], fps, dataset)
                if then.showing != now.showing or not film.is_counted(now.frame):
                    continue
                abs_rel, delta1 = film.errors(then.frame, delivery[1], now.frame)
                total["delivered_abs_rel"] += abs_rel
                total["delivered_delta1"] += delta1
                total["delivered_frames"] += 1
    return [_means(total) for total in sums]


class _Film:
    """A clip: what each engine makes of its frames, and how far that is from the truth of these or of later ones."""

    def __init__(
        self,
        clip: Clip,
        runtimes: Mapping[Resolution, DepthRuntime],
        protocol: EvaluationProtocol,
        camera: CameraOf | None,
    ) -> None:
        self._clip, self._runtimes, self._protocol, self._camera = clip, runtimes, protocol, camera
        self._depth: dict[tuple[int, Resolution], NDArray[np.float32]] = {}
        self._errors: dict[tuple[int, Resolution, int], tuple[float, float]] = {}

    def is_counted(self, frame: int) -> bool:
        """Whether a frame has true depth that counts."""
        return bool(self._protocol.counted(self._clip.depth_m[frame]).any())

    def errors(self, of_frame: int, resolution: Resolution, at_frame: int) -> tuple[float, float]:
        """AbsRel and delta1 of one frame's depth against the truth of another one."""
        key = (of_frame, resolution, at_frame)
        if key not in self._errors:
            truth = self._clip.depth_m[at_frame]
            found = depth_errors(
                self._inferred(of_frame, resolution),
                truth,
                self._protocol.counted(truth),
                alignment=Alignment.NONE,
                range_m=self._protocol.range_m,
            ).metrics
            self._errors[key] = found["abs_rel"], found["delta1"]
        return self._errors[key]

    def _inferred(self, frame: int, resolution: Resolution) -> NDArray[np.float32]:
        key = (frame, resolution)
        if key not in self._depth:
            picture = self._clip.rgb[frame]
            size = (picture.shape[0], picture.shape[1])
            fx, fy, cx, cy = (float(one) for one in self._clip.intrinsics[frame])
            own = Camera(fx, fy, cx, cy, size)
            camera = own if self._camera is None else camera_of(self._camera, size)
            self._depth[key] = self._runtimes[resolution].infer(picture, camera=camera).depth
        return self._depth[key]


def _place(captured: int, fps: float, dataset: ClipDataset) -> _Place:
    frame = int(captured * dataset.fps / fps + 1e-9)  # of all showings; a rate that divides the clips' hits each frame
    return _Place(*divmod(frame, dataset.num_frames))


def _means(total: dict[str, float]) -> dict[str, float]:
    count = total["delivered_frames"]
    if not count:
        return {}
    return {name: value if name == "delivered_frames" else value / count for name, value in total.items()}
