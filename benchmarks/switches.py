"""Steadiness of depth whose resolution switches every few frames, as with a deadline, beside that of one engine.

    mvde data synth --video --count 27 --clip-frames 48 --seed 31 --split test --out clips
    python benchmarks/switches.py ENGINE ENGINE... --clips clips [--every 15] [--strict]

Engines are of one model, in metres, at several resolutions, and take turns from the smallest to the largest. Flicker
and AbsRel are ratios of means over the clips to the smallest engine's, frame by frame; "at a switch" is the rms change
of scale, the median of log(depth / truth), at the frames where the engine changes, in per cent. ``--strict`` exits with
1 where the scale flicker of steady depth with switches is above the gate of steady depth without.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.camera import Camera
from mvde.datasets.clips import Clip, ClipDataset
from mvde.engines.store import find
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.engine_set import check_one_model
from mvde.runtime.stabilize import Stabilization
from mvde.runtime.steady_stream import SteadyMaps
from mvde.steadiness import frame_abs_rel, log_errors, point_flicker, point_pairs, scale_flicker

GATE = 0.30
"""Scale flicker that steady depth may have of that frame by frame: see docs/video.md."""


@dataclass(frozen=True)
class Row:
    """What one way to infer does on one clip; ``steps`` are the changes of scale at its switches."""

    scale: float
    point_mean: float
    point_rms: float
    abs_rel: float
    steps: tuple[float, ...]


def inferred(
    runtimes: Sequence[DepthRuntime], cameras: list[Camera], clip: Clip, turns: Sequence[int], *, is_steady: bool
) -> NDArray[np.float32]:
    """Depth (T, H, W) in metres of a clip, each frame by the runtime of its turn; ``cameras`` receives its camera."""
    size = (clip.rgb.shape[1], clip.rgb.shape[2])
    steady, depths = SteadyMaps(runtimes[0].manifest.depth_kind, Stabilization()), []
    for picture, intrinsics, time_s, turn in zip(clip.rgb, clip.intrinsics, clip.time_s, turns, strict=True):
        fx, fy, cx, cy = (float(one) for one in intrinsics)
        cameras[:] = [Camera(fx, fy, cx, cy, size)]
        runtime = runtimes[turn]
        result = runtime.infer_next(picture, steady, time_s=time_s) if is_steady else runtime.infer(picture)
        depths.append(result.depth)
    return np.stack(depths)


def measure(depth_m: NDArray[np.float32], clip: Clip, turns: Sequence[int]) -> Row:
    """Row of depth (T, H, W) in metres on one clip."""
    scales = np.nanmedian(log_errors(depth_m, clip.depth_m).reshape(len(depth_m), -1), axis=1)
    switched = [at for at in range(1, len(turns)) if turns[at] != turns[at - 1] and not clip.is_cut[at]]
    points = point_flicker(depth_m, clip.depth_m, point_pairs(clip.depth_m, clip.intrinsics, clip.poses, clip.is_cut))
    return Row(
        scale_flicker(depth_m, clip.depth_m, clip.is_cut),
        points.mean,
        points.rms,
        float(np.nanmean(frame_abs_rel(depth_m, clip.depth_m))),
        tuple(float(scales[at] - scales[at - 1]) for at in switched),
    )


def ratio(rows: Sequence[Row], reference: Sequence[Row], what: str) -> float:
    """Mean of a measure over the clips, over that of the reference."""
    means = [statistics.fmean(getattr(one, what) for one in several) for several in (rows, reference)]
    return means[0] / means[1]


def line(name: str, rows: Sequence[Row], reference: Sequence[Row]) -> str:
    """A row of the table."""
    cells = [f"{ratio(rows, reference, what):.2f}" for what in ("scale", "point_mean", "point_rms", "abs_rel")]
    steps = [step for one in rows for step in one.steps]
    at_switch = f"{100 * float(np.sqrt(np.mean(np.square(steps)))):.1f} %" if steps else "–"
    return f"| {name} | {' | '.join(cells)} | {at_switch} |"


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", type=Path, help="engines' folders, of one model at several resolutions")
    parser.add_argument("--clips", type=Path, required=True, help="folder made by mvde data synth --video")
    parser.add_argument("--max-clips", type=int, help="take the first so many")
    parser.add_argument("--every", type=int, default=15, help="frames between two switches")
    parser.add_argument("--strict", action="store_true", help="exit with 1 above the gate")
    given = parser.parse_args()
    found = sorted((find(path) for path in given.engines), key=lambda one: one.manifest.resolution)
    check_one_model([one.manifest for one in found])
    cameras: list[Camera] = []
    rows: dict[str, list[Row]] = {}
    with ExitStack() as stack:
        runtimes = [stack.enter_context(DepthRuntime.load(one.path, camera=lambda _: cameras[0])) for one in found]
        sizes = ["x".join(map(str, one.info.resolution)) for one in runtimes]
        for clip in islice(ClipDataset(given.clips).clips(), given.max_clips):
            count = len(clip.rgb)
            ways = {size: [index] * count for index, size in enumerate(sizes)}
            ways["switching"] = [at // given.every % len(runtimes) for at in range(count)]
            for name, turns in ways.items():
                for words, is_steady in (("", False), (", stabilised", True)):
                    depth_m = inferred(runtimes, cameras, clip, turns, is_steady=is_steady)
                    rows.setdefault(name + words, []).append(measure(depth_m, clip, turns))
            print(f"{clip.name}, {clip.kind}", file=sys.stderr)
    reference, steady = rows[sizes[0]], rows["switching, stabilised"]
    print(f"{len(reference)} clips, a switch every {given.every} frames\n")
    print("| | scale flicker | point flicker, mean | rms | AbsRel | at a switch |\n|---" + "|---" * 5 + "|")
    for name, own in rows.items():
        print(line(name, own, reference))
    share = ratio(steady, reference, "scale")
    print(f"\n{'reached' if share <= GATE else 'MISSED'} scale flicker with switches: {share:.3f}, at most {GATE:g}")
    return 1 if given.strict and share > GATE else 0


if __name__ == "__main__":
    sys.exit(main())
