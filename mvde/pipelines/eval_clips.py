"""Steadiness of an engine over clips, frame by frame and stabilised."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.camera import Camera
from mvde.datasets.clips import Clip, ClipDataset
from mvde.errors import UsageError
from mvde.runtime.stabilize import Stabilization
from mvde.steadiness import point_flicker, point_pairs, scale_flicker

if TYPE_CHECKING:
    from mvde.runtime.depth import DepthRuntime


def clip_steadiness(runtime: DepthRuntime, dataset: ClipDataset, max_frames: int = 0) -> dict[str, float]:
    """Means over clips of the measures of :mod:`mvde.steadiness`, by name; those of steady depth begin ``steady_``.

    ``max_frames`` > 0 takes as many whole clips as it needs, at least one. Raises :class:`UsageError` for depth without
    metres, which has to be aligned first (``benchmarks/steadiness.py`` does).
    """
    if runtime.manifest.depth_kind.unit != "m" and runtime.calibration is None:
        raise UsageError(
            f"steadiness is measured of metres, but this engine's depth is {runtime.manifest.depth_kind}; calibrate it "
            "(mvde calibrate)"
        )
    count = dataset.num_clips if max_frames <= 0 else min(-(-max_frames // dataset.num_frames), dataset.num_clips)
    rows = [_measured(runtime, clip) for clip in islice(dataset.clips(), count)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} | {"num_clips": count}


def _measured(runtime: DepthRuntime, clip: Clip) -> dict[str, float]:
    pairs = point_pairs(clip.depth_m, clip.intrinsics, clip.poses, clip.is_cut)
    found = {}
    for prefix, stabilize in (("", None), ("steady_", Stabilization())):
        depth = _stream(runtime, clip, stabilize)
        points = point_flicker(depth, clip.depth_m, pairs)
        found[f"{prefix}scale_flicker"] = scale_flicker(depth, clip.depth_m, clip.is_cut)
        found |= {f"{prefix}point_flicker": points.mean, f"{prefix}point_flicker_rms": points.rms}
    return found


def _stream(runtime: DepthRuntime, clip: Clip, stabilize: Stabilization | None) -> NDArray[np.float32]:
    """Depth (T, H, W) in metres of a clip's frames, with their cameras."""
    size = (clip.rgb.shape[1], clip.rgb.shape[2])
    cameras = iter(_cameras(clip.intrinsics, size))
    return np.stack(
        [one.depth for one in runtime.stream(clip.rgb, camera=lambda _: next(cameras), stabilize=stabilize)]
    )


def _cameras(intrinsics: Iterable[NDArray[np.float32]], size: tuple[int, int]) -> list[Camera]:
    return [Camera(float(fx), float(fy), float(cx), float(cy), size) for fx, fy, cx, cy in intrinsics]
