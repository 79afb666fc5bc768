"""Steadiness of an engine's depth over clips: frame by frame, averaged, and stabilised.

    mvde data synth --video --count 27 --clip-frames 48 --seed 31 --split test --out data/clips
    python benchmarks/steadiness.py ENGINE --clips data/clips [--every 3] [--rows FILE] [--json FILE] [--strict]
    python benchmarks/steadiness.py ENGINE --clips chess/seq-01 --format 7scenes [--clip-frames 600]

The contenders: "none", the engine frame by frame; "exponential", an average of logarithms with a share of 0.4 for the
new frame, which begins anew at a pixel that changes by more than 0.15; "median of five", of the last five frames; and
"stabilised", :class:`mvde.runtime.stabilize.Stabilizer`, as ``DepthRuntime.stream(stabilize=...)`` has it for frames of
the engine's resolution. "stabilised, cuts missed" is the last one with its detection of cuts off. All are causal and
get the same depth, which without metres is aligned to the truth once per clip, from "none". Flicker and AbsRel are
ratios of means over the clips to "none". ``--every`` takes every n-th frame, as of a slower camera. ``--rows`` keeps
the rows of each clip, with which an interrupted run goes on. ``--strict`` exits with 1 where a target is missed.

A recorded sequence (``--format tum`` or ``7scenes``) is cut into clips, and its frames take the engine's resolution
before anything else: pictures averaged, depth by its nearest pixel. Clips of 200 frames and more show drift: AbsRel of
their first and last 100 frames over that of "none" there.

``--relative`` makes the engine's metres those of a model of relative inverse depth before anything else: 1/d of each
frame with a scale of its own (deviation 5 %) and a shift (5 % of its median), which the contenders have to find;
"undisturbed" is 1/d without them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvde.alignment import fit_inverse
from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.datasets.clips import Clip, ClipDataset
from mvde.datasets.sequences import CLIP_FRAMES, SequenceClips
from mvde.datasets.seven_scenes import SevenScenesClips
from mvde.datasets.tum_clips import TumClips
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.stabilize import Stabilization, Stabilizer
from mvde.steadiness import (
    excess_after_cut,
    frame_abs_rel,
    point_flicker,
    point_pairs,
    scale_flicker,
    step_residual,
)

Maps = NDArray[np.float32]
SHARE, GATE = 0.4, 0.15
BLIND = dataclasses.replace(Stabilization(), cut_correlation=-2.0)  # no correlation is below
NAMES = ("none", "exponential", "median of five", "stabilised", "stabilised, cuts missed", "undisturbed")
LAGS = (0, 1, 2, 4)
END_FRAMES = 100
AFFINE_SPREAD = 0.05
RECORDED: dict[str, Callable[[Path, int], SequenceClips]] = {"tum": TumClips, "7scenes": SevenScenesClips}


@dataclasses.dataclass(frozen=True)
class Row:
    """What one contender does on one clip; ``excess`` is of AbsRel, ``step`` the share left after each of ``LAGS``.

    ``first`` and ``last`` are AbsRel of the first and last ``END_FRAMES`` frames of a clip of at least twice as many.
    """

    scale: float
    point_mean: float
    point_rms: float
    abs_rel: float
    excess: float
    step: tuple[float, ...]
    first: float = float("nan")
    last: float = float("nan")


def every(clip: Clip, count: int) -> Clip:
    """Take every ``count``-th frame; a cut stays one where it fell on a frame between."""
    cuts = [clip.is_cut[max(at - count + 1, 0) : at + 1].any() for at in range(0, len(clip.rgb), count)]
    parts = {name: getattr(clip, name)[::count] for name in ("rgb", "depth_m", "intrinsics", "poses", "time_s")}
    return dataclasses.replace(clip, **parts, is_cut=np.array(cuts))


def at_size(clip: Clip, size: tuple[int, int]) -> Clip:
    """Resample a clip to ``size`` (height, width): pictures averaged, depth by its nearest pixel."""
    height, width = clip.depth_m.shape[1:]
    if (height, width) == size:
        return clip
    rgb = np.stack([np.asarray(Image.fromarray(one).resize(size[::-1], Image.Resampling.BOX)) for one in clip.rgb])
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, (height, width), strict=True)
    )
    factors = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    intrinsics = (clip.intrinsics + np.float32([0, 0, 0.5, 0.5])) * factors - np.float32([0, 0, 0.5, 0.5])
    return dataclasses.replace(clip, rgb=rgb, depth_m=clip.depth_m[:, rows[:, None], columns], intrinsics=intrinsics)


def streamed(runtime: DepthRuntime, clip: Clip) -> Maps:
    """Maps (T, H, W) of the engine over the frames of a clip, with their cameras."""
    size = (clip.rgb.shape[1], clip.rgb.shape[2])
    cameras = iter([Camera(*(float(one) for one in row), size) for row in clip.intrinsics])
    return np.stack([result.depth for result in runtime.stream(clip.rgb, camera=lambda _: next(cameras))])


def steadied(maps: Maps, clip: Clip, kind: DepthKind, settings: Stabilization) -> Maps:
    """Maps (T, H, W) after the stabiliser."""
    stabilizer = Stabilizer(kind, settings)
    return np.stack([stabilizer.update(picture, depth) for picture, depth in zip(clip.rgb, maps, strict=True)])


def as_relative(maps: Maps, name: str) -> Maps:
    """Inverse depth (T, H, W) of metres, each frame's with a random scale and shift; ``name`` seeds them."""
    rng, inverse = np.random.default_rng(zlib.crc32(name.encode())), 1 / maps
    scale, shift = np.exp(rng.normal(0, AFFINE_SPREAD, len(maps))), rng.normal(0, AFFINE_SPREAD, len(maps))
    disturbed = scale[:, None, None] * inverse + (shift * np.median(inverse, axis=(1, 2)))[:, None, None]
    return np.maximum(disturbed, 1e-3 * inverse).astype(np.float32)


def metres_of(maps: Maps, truth_m: Maps, kind: DepthKind) -> Callable[[Maps], Maps]:
    """Conversion of a clip's maps to metres: one alignment for the clip, fitted to ``maps``, where they have none."""
    if kind.unit == "m":
        return lambda one: one
    known = (truth_m > 0) & np.isfinite(maps) & (maps > 0)
    if not kind.is_inverse:
        scale = float(np.median(truth_m[known]) / np.median(maps[known]))
        return lambda one: (one * scale).astype(np.float32)
    found, shift = fit_inverse(maps[known][::17].astype(np.float64), truth_m[known][::17].astype(np.float64))
    return lambda one: (1 / np.maximum(found * one + shift, 1 / truth_m.max())).astype(np.float32)


def exponential(maps: Maps) -> Maps:
    """Gated exponential average of the logarithm of depth."""
    past, found = np.log(maps[0]), [maps[0]]
    for depth in maps[1:]:
        change = np.log(depth) - past
        past = past + np.where(np.abs(change) > GATE, 1.0, SHARE) * change
        found.append(np.exp(past))
    return np.stack(found).astype(np.float32)


def median_of_five(maps: Maps) -> Maps:
    """Median at each pixel of the last five frames, or of those there are."""
    return np.stack([np.median(maps[max(at - 4, 0) : at + 1], axis=0) for at in range(len(maps))]).astype(np.float32)


def measure(clip: Clip, runtime: DepthRuntime, relative: bool) -> dict[str, Row]:
    """Rows of all contenders on one clip."""
    own, kind = streamed(runtime, clip), runtime.manifest.depth_kind
    raw, kind = (as_relative(own, clip.name), DepthKind.INVERSE_RELATIVE) if relative else (own, kind)
    metres = metres_of(raw, clip.depth_m, kind)
    plain = metres(raw)
    depths = {
        "none": plain,
        "exponential": exponential(plain),
        "median of five": median_of_five(plain),
        "stabilised": metres(steadied(raw, clip, kind, Stabilization())),
    }
    if clip.is_cut.any():
        depths["stabilised, cuts missed"] = metres(steadied(raw, clip, kind, BLIND))
    if relative:
        depths["undisturbed"] = metres_of(1 / own, clip.depth_m, kind)(1 / own)
    pairs = point_pairs(clip.depth_m, clip.intrinsics, clip.poses, clip.is_cut)
    rows = {}
    for name, depth in depths.items():
        truth, cut = clip.depth_m, clip.is_cut
        flicker = point_flicker(depth, truth, pairs)
        step = tuple(step_residual(depth, plain, truth, cut, lag) for lag in LAGS)
        no_step = clip.kind != "moving_things"  # elsewhere it is the camera that moves, and edges with it
        errors = frame_abs_rel(depth, truth)
        is_long = len(errors) >= 2 * END_FRAMES
        rows[name] = Row(
            scale_flicker(depth, truth, cut),
            flicker.mean,
            flicker.rms,
            float(np.nanmean(errors)),
            excess_after_cut(depth, plain, truth, cut),
            (float("nan"),) * len(LAGS) if no_step else step,
            *(
                float(np.nanmean(part)) if is_long else float("nan")
                for part in (errors[:END_FRAMES], errors[-END_FRAMES:])
            ),
        )
    return rows


def ratio(clips: Sequence[dict[str, Row]], name: str, what: str) -> float:
    """Mean over the clips of one contender over that of "none"."""
    return statistics.fmean(getattr(one[name], what) for one in clips) / statistics.fmean(
        getattr(one["none"], what) for one in clips
    )


def summary(clips: Sequence[dict[str, Row]], kinds: Sequence[str], name: str) -> dict[str, float]:
    """Figures of one contender over all clips that it has."""
    having = [(kind, one) for kind, one in zip(kinds, clips, strict=True) if name in one]
    rows = [one for _, one in having]
    worst = max(one[name].abs_rel / one["none"].abs_rel - 1 for one in rows)
    found = {what: ratio(rows, name, what) for what in ("scale", "point_mean", "point_rms", "abs_rel")}
    excess = [one[name].excess for one in rows if np.isfinite(one[name].excess)]
    steps = np.array([one[name].step for one in rows])
    counted = np.isfinite(steps).any(axis=1)
    left = np.nanmean(steps[counted], axis=0) if counted.any() else np.full(len(LAGS), np.nan)
    found |= {"worst": worst, "excess": statistics.fmean(excess) if excess else float("nan")}
    return found | {f"step_{lag}": float(value) for lag, value in zip(LAGS, left, strict=True)}


def targets(found: dict[str, dict[str, float]]) -> list[tuple[str, float, float]]:
    """Each target: its words, the largest value allowed, and what was reached."""
    steady, mean = found["stabilised"], found["exponential"]
    rows = [
        ("scale flicker", 0.30, steady["scale"]),
        ("point flicker, mean", 0.45, steady["point_mean"]),
        ("point flicker, rms", 0.60, steady["point_rms"]),
    ]
    rows += [
        (f"{words} over that of the exponential average", 0.7, steady[what] / mean[what])
        for words, what in (("scale flicker", "scale"), ("mean", "point_mean"), ("rms", "point_rms"))
    ]
    rows += [
        ("AbsRel", 1.0, steady["abs_rel"]),
        ("AbsRel, worst clip's change", 0.05, steady["worst"]),
        ("excess AbsRel after a cut that was found", 0.005, steady["excess"]),
        ("a moving thing's step that is left in its frame", 0.15, steady["step_0"]),
        ("a moving thing's step that is left after two frames", 0.15, steady["step_2"]),
    ]
    missed = found.get("stabilised, cuts missed")
    return rows if missed is None else [*rows, ("excess AbsRel after a missed cut", 0.015, missed["excess"])]


def cost(clip: Clip, runtime: DepthRuntime) -> tuple[float, float]:
    """Median milliseconds of the NumPy stabiliser's own thread, and of a whole frame of the engine."""
    stabilizer, own, frames = Stabilizer(runtime.manifest.depth_kind), [], []
    height, width = runtime.info.resolution
    for picture in clip.rgb[:30]:
        result = runtime.infer(picture)
        frames.append(result.timings.total_ms)
        depth = result.depth if result.depth.shape == (height, width) else np.ones((height, width), np.float32)
        started = time.thread_time()
        stabilizer.update(picture, np.ascontiguousarray(depth))
        own.append((time.thread_time() - started) * 1e3)
    return statistics.median(own), statistics.median(frames)


def table(found: dict[str, dict[str, float]]) -> str:
    """The contenders as Markdown."""
    lags = ", ".join(map(str, LAGS))
    head = "| | scale flicker | point flicker, mean | rms | AbsRel | worst clip | excess after a cut "
    lines = [f"{head}| step left, frames {lags} |", "|---|" + "---|" * 7]
    for name, one in found.items():
        ratios = " | ".join(f"{one[what]:.2f}" for what in ("scale", "point_mean", "point_rms"))
        left = [one[f"step_{lag}"] for lag in LAGS]
        steps = ", ".join(f"{share:.2f}" for share in left) if np.isfinite(left).all() else "–"
        excess = f"{100 * one['excess']:+.2f} points" if np.isfinite(one["excess"]) else "–"
        rest = f"{one['abs_rel']:.3f} | {one['worst']:+.1%} | {excess} | {steps}"
        lines.append(f"| {name} | {ratios} | {rest} |")
    return "\n".join(lines)


def kinds_table(clips: Sequence[dict[str, Row]], kinds: Sequence[str]) -> str:
    """The stabilised ratios of each kind of clip, with what "none" has, as Markdown."""
    lines = ["| clips | number | scale flicker | point flicker, mean | rms | AbsRel |", "|---|" + "---|" * 5]
    for kind in dict.fromkeys(kinds):
        rows = [one for own, one in zip(kinds, clips, strict=True) if own == kind]
        cells = []
        for what in ("scale", "point_mean", "point_rms", "abs_rel"):
            before = statistics.fmean(getattr(one["none"], what) for one in rows)
            cells.append(f"{ratio(rows, 'stabilised', what):.2f} of {before:.3f}")
        lines.append(f"| {kind.replace('_', ' ')} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def drift_table(clips: Sequence[dict[str, Row]]) -> str:
    """AbsRel of the first and last frames of long clips, "of" what "none" has there, as Markdown; else empty."""
    rows = [one for one in clips if np.isfinite(one["none"].first)]
    if not rows:
        return ""
    lines = [f"| AbsRel of {len(rows)} clips | first {END_FRAMES} frames | last {END_FRAMES} |", "|---|---|---|"]
    for name in (one for one in NAMES if all(one in row for row in rows)):
        cells = (
            f"{ratio(rows, name, part):.3f} of {statistics.fmean(getattr(one['none'], part) for one in rows):.3f}"
            for part in ("first", "last")
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(
    dataset: ClipDataset | SequenceClips, runtime: DepthRuntime, step: int, path: Path | None, relative: bool
) -> tuple[list[str], list[dict[str, Row]]]:
    """Kinds and rows of all clips; those in the file at ``path`` are taken from it, and others are added to it."""
    kept, engine = {}, f"{runtime.manifest.name}{', relative' if relative else ''}"
    if path is not None and path.exists():
        plain = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if any(one["every"] != step or one["engine"] != engine for one in plain):
            sys.exit(f"{path} holds rows of another engine, --every or --relative; give another file")
        kept = {one["clip"]: {name: Row(**row) for name, row in one["rows"].items()} for one in plain}
    kinds, rows = [], []
    for clip in dataset.clips():
        if clip.name not in kept:
            kept[clip.name] = measure(every(at_size(clip, runtime.info.resolution), step), runtime, relative)
            print(f"{clip.name}, {clip.kind}", file=sys.stderr)
            if path is not None:
                own = {name: dataclasses.asdict(row) for name, row in kept[clip.name].items()}
                line = {"clip": clip.name, "engine": engine, "every": step, "rows": own}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        kinds.append(clip.kind)
        rows.append(kept[clip.name])
    return kinds, rows


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="engine folder or id")
    parser.add_argument("--clips", type=Path, required=True, help="folder made by mvde data synth --video")
    parser.add_argument("--format", choices=("clips", *RECORDED), default="clips", help="tum, 7scenes: one sequence")
    parser.add_argument("--clip-frames", type=int, default=CLIP_FRAMES, help="frames of a clip of a sequence")
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame")
    parser.add_argument("--relative", action="store_true", help="as of a model of relative inverse depth")
    parser.add_argument("--rows", type=Path, help="keep each clip's rows here, and take those that are here")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a target is missed")
    given = parser.parse_args()
    recorded = RECORDED.get(given.format)
    dataset = ClipDataset(given.clips) if recorded is None else recorded(given.clips, given.clip_frames)
    with DepthRuntime.load(given.engine) as runtime:
        if given.relative and runtime.manifest.depth_kind.unit != "m":
            parser.error(f"--relative is of metres, but this engine's depth is {runtime.manifest.depth_kind}")
        kinds, rows = measured(dataset, runtime, given.every, given.rows, given.relative)
        own_ms, frame_ms = cost(at_size(next(dataset.clips()), runtime.info.resolution), runtime)
    present = [name for name in NAMES if any(name in one for one in rows)]
    found = {name: summary(rows, kinds, name) for name in present}
    reached = [row for row in targets(found) if np.isfinite(row[2])]
    tables = (table(found), kinds_table(rows, kinds), drift_table(rows))
    print(f"{len(rows)} clips, every {given.every}. frame\n", *(f"{one}\n" for one in tables if one), sep="\n")
    for words, most, value in reached:
        print(f"{'reached' if value <= most else 'MISSED ':8} {words}: {value:.3f}, at most {most:g}")
    print(f"the specification in NumPy: {own_ms:.1f} ms of one thread, beside {frame_ms:.1f} ms of a frame")
    if given.json:
        plain = {
            "every": given.every,
            "contenders": found,
            "targets": [{"target": words, "most": most, "value": value} for words, most, value in reached],
            "clips": [
                {"kind": kind, **{name: dataclasses.asdict(row) for name, row in one.items()}}
                for kind, one in zip(kinds, rows, strict=True)
            ],
            "numpy_ms": own_ms,
            "frame_ms": frame_ms,
        }
        given.json.write_text(json.dumps(plain, indent=1), encoding="utf-8")
    return 1 if given.strict and any(not value <= most for _, most, value in reached) else 0


if __name__ == "__main__":
    sys.exit(main())
