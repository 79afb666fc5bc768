"""Scale from the floor over clips: errors of depth and of distances by bearing, without it, with it, and mis-mounted.

    mvde data synth --video --count 27 --clip-frames 24 --seed 31 --split test --out data/clips
    python benchmarks/floor_scale.py ENGINE --clips data/clips [--pitch 1 2] [--every 2] [--rows FILE] [--json FILE]

The contenders: "none", the engine's metres; "floor", these with the scale of the floor that the frame shows, by the
clip's true height, pitch and roll; "floor, pitch ±N°", with a pitch that is wrong by as much; "median", with the scale
that aligns the frame's median to the truth, which no camera has; and "steady", "steady, floor": the same behind the
stabiliser, as ``DepthRuntime.stream(stabilize=..., mountings=...)`` has them.

AbsRel is the mean over frames, once over those in which "floor" finds one and once over all. False and missed are the
shares of ``benchmarks/scan.py``, of frames within 33 degrees of level, each ``--every`` th one, with the interval that
holds them in 90 % of the draws of as many clips. Frames of a clip err alike, so clips count: "worse" is the share of
clips whose AbsRel rose by a twentieth.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scan import exact_ranges, score, share

from mvde.camera import Camera
from mvde.datasets.clips import Clip, ClipDataset
from mvde.errors import UsageError
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.floor import FloorScale, FloorStatus, floor_falls, floor_scale
from mvde.runtime.frame_floor import SteadyScale
from mvde.runtime.mounting import Mounting
from mvde.runtime.placement import Box
from mvde.runtime.scan import numpy_scan
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import scan_table
from mvde.runtime.stabilize import Stabilizer
from mvde.steadiness import scale_flicker

Maps = NDArray[np.float32]
MOST_SCAN_PITCH_DEG, MOST_SCAN_HEIGHT_M = 33.0, 1.5
"""Of a robot that drives, as in ``benchmarks/scan.py``."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What one contender does on one clip: AbsRel and status of each frame, scale flicker, and counts of obstacles."""

    abs_rel: list[float]
    status: list[str]
    flicker: float
    obstacles: dict[str, int]


def mountings_of(clip: Clip, pitch_error_deg: float = 0.0) -> list[Mounting | None]:
    """Mounting of the camera at each frame, ``None`` near the vertical."""
    found: list[Mounting | None] = []
    for mounting in map(Mounting.of_pose, clip.poses):
        try:
            found.append(mounting and dataclasses.replace(mounting, pitch_deg=mounting.pitch_deg + pitch_error_deg))
        except UsageError:  # steeper than any
            found.append(None)
    return found


def floors_of(
    depths: Maps, cameras: Sequence[Camera], mountings: Sequence[Mounting | None], num_steady: Sequence[int] | None
) -> list[FloorScale]:
    """Scale of each frame by the floor, as a runtime's stream has it."""
    steady, found = SteadyScale(), []
    for at, (depth, camera, mounting) in enumerate(zip(depths, cameras, mountings, strict=True)):
        floor = FloorScale(FloorStatus.UNKNOWN)
        if mounting is not None:
            box = Box(0, 0, *camera.size)
            floor = floor_scale(depth, floor_falls(camera, mounting), mounting.height_m, box)
        found.append(floor if num_steady is None else steady.update(floor, is_anew=num_steady[at] == 1))
    return found


def scaled(depths: Maps, floors: Sequence[FloorScale]) -> Maps:
    """Depths times the frames' scales."""
    return depths * np.array([one.scale for one in floors], np.float32)[:, None, None]


def abs_rels(depths: Maps, truth_m: Maps) -> list[float]:
    """Mean relative error of each frame."""
    errors = []
    for depth, truth in zip(depths, truth_m, strict=True):
        known = truth > 0
        errors.append(float(np.mean(np.abs(depth[known] / truth[known] - 1))))
    return errors


class Scans:
    """True obstacles of a clip's frames, and what depth tells of them."""

    def __init__(self, clip: Clip, cameras: Sequence[Camera], every: int) -> None:
        self._frames = []
        for at, mounting in enumerate(mountings_of(clip)):
            is_mobile = mounting is not None and abs(mounting.pitch_deg) < MOST_SCAN_PITCH_DEG
            if at % every or mounting is None or not is_mobile or mounting.height_m > MOST_SCAN_HEIGHT_M:
                continue
            settings = ScanSettings(mounting.height_m, mounting.pitch_deg, mounting.roll_deg)
            try:
                table = scan_table(cameras[at], settings, Box(0, 0, *cameras[at].size))
            except UsageError:
                continue  # the camera sees no obstacle between the heights
            true = np.where(clip.depth_m[at] > 0, clip.depth_m[at], np.inf).astype(np.float32)
            self._frames.append((at, table, exact_ranges(true, table)))

    def counts(self, depths: Maps) -> dict[str, int]:
        """Numbers of near, missed, told and false obstacles."""
        total: Counter[str] = Counter(near=0, missed=0, told=0, false=0)
        for at, table, true in self._frames:
            total.update(score(true, numpy_scan(np.ascontiguousarray(depths[at]), table)))
        return dict(total)


def contenders(
    clip: Clip, runtime: DepthRuntime, cameras: Sequence[Camera], errors_deg: Sequence[float]
) -> dict[str, tuple[Maps, list[FloorScale]]]:
    """Depths (T, H, W) of each contender, and what the floor gave its frames."""
    given = iter(cameras)
    none = np.stack([result.depth for result in runtime.stream(clip.rgb, camera=lambda _: next(given))])
    stabilizer, ages = Stabilizer(runtime.manifest.depth_kind), []
    steady = np.empty_like(none)
    for at, (picture, depth) in enumerate(zip(clip.rgb, none, strict=True)):
        steady[at] = stabilizer.update(picture, depth)
        ages.append(stabilizer.num_frames)
    unscaled = [FloorScale(FloorStatus.UNSEEN)] * len(none)
    found = {"none": (none, unscaled)}
    for name, depths, num_steady in (("floor", none, None), ("steady, floor", steady, ages)):
        if num_steady is not None:
            found["steady"] = (steady, unscaled)
        for error in (0.0, *errors_deg):
            floors = floors_of(depths, cameras, mountings_of(clip, error), num_steady)
            found[f"{name}, pitch {error:+g}°" if error else name] = (scaled(depths, floors), floors)
    truth = clip.depth_m
    medians = [
        float(np.median(true[true > 0] / depth[true > 0])) if (true > 0).any() else 1.0
        for true, depth in zip(truth, none, strict=True)
    ]
    found["median"] = (none * np.array(medians, np.float32)[:, None, None], unscaled)
    return found


def measure(clip: Clip, runtime: DepthRuntime, errors_deg: Sequence[float], every: int) -> dict[str, Row]:
    """Rows of all contenders on one clip. Raises UsageError for clips of another size than the engine's."""
    size = (clip.rgb.shape[1], clip.rgb.shape[2])
    if size != runtime.info.resolution:
        raise UsageError(f"the clips are {size[0]}x{size[1]}, but the engine takes {runtime.info.resolution}")
    cameras = [Camera(*(float(one) for one in row), size) for row in clip.intrinsics]
    scans = Scans(clip, cameras, every)
    return {
        name: Row(
            abs_rels(depths, clip.depth_m),
            [str(one.status) for one in floors],
            scale_flicker(depths, clip.depth_m, clip.is_cut),
            scans.counts(depths),
        )
        for name, (depths, floors) in contenders(clip, runtime, cameras, errors_deg).items()
    }


def summary(clips: Sequence[dict[str, Row]], name: str) -> dict[str, float]:
    """Figures of one contender over all clips."""
    seen = np.concatenate([[one == "used" for one in rows["floor"].status] for rows in clips])
    own = np.concatenate([rows[name].abs_rel for rows in clips])
    status = np.concatenate([rows[name].status for rows in clips])
    worse = [np.mean(rows[name].abs_rel) > 1.05 * np.mean(rows["none"].abs_rel) for rows in clips]
    found = {
        "scaled": float(np.isin(status, ["used", "held"]).mean()),
        "abs_rel_floor": float(own[seen].mean()) if seen.any() else float("nan"),
        "abs_rel": float(own.mean()),
        "worse": float(np.mean(worse)),
        "flicker": float(np.nanmean([rows[name].flicker for rows in clips])),
    }
    for part, whole in (("false", "told"), ("missed", "near")):
        counts = np.array([[rows[name].obstacles[part], rows[name].obstacles[whole]] for rows in clips])
        found |= dict(zip((part, f"{part}_low", f"{part}_high"), share(counts), strict=True))
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """The contenders as Markdown."""
    lines = [
        "| | frames scaled | AbsRel where a floor is found | in all frames | clips worse | false obstacles | missed "
        "| scale flicker |",
        "|---|" + "---|" * 7,
    ]
    for name, one in found.items():
        false, missed = (
            f"{one[part]:.3f} ({one[f'{part}_low']:.3f} to {one[f'{part}_high']:.3f})" for part in ("false", "missed")
        )
        share_scaled = f"{one['scaled']:.0%}" if one["scaled"] else "–"
        lines.append(
            f"| {name} | {share_scaled} | {one['abs_rel_floor']:.4f} | {one['abs_rel']:.4f} | {one['worse']:.0%} | "
            f"{false} | {missed} | {one['flicker']:.4f} |"
        )
    return "\n".join(lines)


def measured(
    dataset: ClipDataset, runtime: DepthRuntime, errors_deg: Sequence[float], every: int, path: Path | None
) -> list[dict[str, Row]]:
    """Rows of all clips; those in the file at ``path`` are taken from it, and others are added to it."""
    meant = {"engine": runtime.manifest.name, "pitch": list(errors_deg), "every": every}
    kept: dict[str, dict[str, Row]] = {}
    if path is not None and path.exists():
        for plain in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if any(plain[key] != value for key, value in meant.items()):
                sys.exit(f"{path} holds rows of other settings; give another file")
            kept[plain["clip"]] = {name: Row(**row) for name, row in plain["rows"].items()}
    rows = []
    for clip in dataset.clips():
        if clip.name not in kept:
            kept[clip.name] = measure(clip, runtime, errors_deg, every)
            print(f"{clip.name}, {clip.kind}", file=sys.stderr)
            if path is not None:
                own = {name: dataclasses.asdict(row) for name, row in kept[clip.name].items()}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"clip": clip.name, **meant, "rows": own}) + "\n")
        rows.append(kept[clip.name])
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="engine folder or id")
    parser.add_argument("--clips", type=Path, required=True, help="folder made by mvde data synth --video")
    parser.add_argument("--pitch", type=float, nargs="*", default=[2.0], help="errors of pitch in degrees, both ways")
    parser.add_argument("--every", type=int, default=2, help="scan every n-th frame")
    parser.add_argument("--rows", type=Path, help="keep each clip's rows here, and take those that are here")
    parser.add_argument("--json", type=Path, help="write the figures")
    given = parser.parse_args()
    errors = [sign * error for error in given.pitch for sign in (1, -1)]
    with DepthRuntime.load(given.engine) as runtime:
        rows = measured(ClipDataset(given.clips), runtime, errors, given.every, given.rows)
    found = {name: summary(rows, name) for name in rows[0]}
    num_frames = sum(len(one["none"].abs_rel) for one in rows)
    print(f"{len(rows)} clips, {num_frames} frames\n\n{table(found)}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
