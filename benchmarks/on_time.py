"""Late frames of engines with a deadline over long runs, accuracy as delivered, and a picture over time.

    python benchmarks/on_time.py ENGINE ENGINE... --rows rows.jsonl [--clips CLIPS] [--picture docs/on_time.png]

Each engine alone, and the largest of them in time, infer a camera's newest frame, while one busy process per CPU comes
and goes twice in a run, as in ``mvde bench --paced FPS --deadline MS``. "needless" are late frames that the smallest
engine would have held: of a larger one, or in time but for having waited for such a one. "at the onset" are those of
them that were inferred when the load had just come, which no frame before could tell. With ``--clips``, a folder of
``mvde data synth --video``, the depth that was there when each frame was due is held against that frame's truth
(mvde/pipelines/eval_on_time.py). ``--rows`` keeps the runs, with which an interrupted measurement goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from contextlib import ExitStack
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mvde.bench.distribution import Distribution
from mvde.bench.load import Load
from mvde.bench.on_time import ON_TIME, OnTimeRun, PacedFrame, delivered, num_frames, paced_frames
from mvde.datasets.clips import ClipDataset
from mvde.engines.store import find
from mvde.image import read_photographs
from mvde.pipelines.eval_depth import default_protocol
from mvde.pipelines.eval_on_time import delivered_accuracy
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.on_time import load_on_time

WIDTH, LEFT, LEVELS_PX, AGES_PX, GAP_PX = 1000, 46, 90, 190, 18
INK, LOAD, LATE, GRID, TEXT = (0, 90, 160), (232, 232, 232), (205, 45, 30), (150, 150, 150), (70, 70, 70)


def measured(paths: list[Path], name: str, given: argparse.Namespace) -> dict[str, Any]:
    """A run of one engine, or with the name :data:`ON_TIME` of all with a deadline, as a row of the file."""
    images = read_photographs(None)
    with ExitStack() as stack:
        load = stack.enter_context(Load())
        if name == ON_TIME:
            chosen = stack.enter_context(load_on_time(paths, given.deadline))

            def infer(image: NDArray[np.uint8], age_ms: float) -> tuple[int, int]:
                return chosen.infer(image, age_ms=age_ms).placement.target_size
        else:
            runtime = stack.enter_context(DepthRuntime.load(next(one for one in paths if size_of(one) == name)))

            def infer(image: NDArray[np.uint8], age_ms: float) -> tuple[int, int]:
                return runtime.infer(image).placement.target_size

        for image in images:
            infer(image, 0.0)
        frames = paced_frames(infer, images, given.fps, given.duration, load)
    settings = {"fps": given.fps, "deadline_ms": given.deadline, "duration_s": given.duration, "name": name}
    return {**settings, "frames": [dataclasses.astuple(one) for one in frames]}


def size_of(path: Path) -> str:
    """Resolution of an engine."""
    return "x".join(map(str, find(path).manifest.resolution))


def run_of(plain: dict[str, Any]) -> OnTimeRun:
    """A run by its row of the file."""
    frames = [PacedFrame(at, (size[0], size[1]), age_ms, is_loaded) for at, size, age_ms, is_loaded in plain["frames"]]
    late = [one for one in frames if one.age_ms > plain["deadline_ms"]]
    num_switches = sum(one.resolution != other.resolution for one, other in pairwise(frames))
    return OnTimeRun(
        name=plain["name"],
        deadline_ms=plain["deadline_ms"],
        num_late=len(late),
        num_late_loaded=sum(one.is_loaded for one in late),
        num_dropped=num_frames(plain["fps"], plain["duration_s"]) - len(frames),
        num_switches=num_switches,
        memory_bytes=0,
        age=Distribution.of([one.age_ms for one in frames]),
        shares={},
        accuracy=None,
        frames=frames,
    )


def all_runs(paths: list[Path], given: argparse.Namespace) -> list[OnTimeRun]:
    """Runs of the file, after those that are still missing there were measured."""
    kept = []
    if given.rows.exists():
        kept = [json.loads(line) for line in given.rows.read_text(encoding="utf-8").splitlines()]
    for name in [*map(size_of, paths), ON_TIME]:
        missing = given.repeat - sum(one["name"] == name for one in kept)
        for _ in range(missing if given.only in (None, name) else 0):
            kept.append(measured(paths, name, given))
            with given.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(kept[-1]) + "\n")
    return [run_of(one) for one in kept]


def needless(run: OnTimeRun, smallest: int) -> tuple[int, int]:
    """Number of late frames that the smallest engine would have held, and of these the ones at a load's onset."""
    count = onset = 0
    free_s, was_loaded, was_unheld = 0.0, False, False
    for one in run.frames:
        done_s = one.captured_s + one.age_ms / 1e3
        spent_ms, is_late = (done_s - max(one.captured_s, free_s)) * 1e3, one.age_ms > run.deadline_ms
        was_unheld = one.resolution[0] == smallest and (spent_ms > run.deadline_ms or (is_late and was_unheld))
        if is_late and not was_unheld:
            count += 1
            onset += one.is_loaded and not was_loaded
        free_s, was_loaded = done_s, one.is_loaded
    return count, onset


def row(runs: list[OnTimeRun], smallest: int, accuracy: list[dict[str, float]]) -> str:
    """One row of the table: the runs of one name in all reports."""
    frames = [frame for run in runs for frame in run.frames]
    late, dropped = sum(run.num_late for run in runs), sum(run.num_dropped for run in runs)
    held = [needless(run, smallest) for run in runs]
    age = Distribution.of([frame.age_ms for frame in frames])
    heights = [frame.resolution[0] for frame in frames]
    shares = ", ".join(f"{heights.count(one) / len(heights):.0%} {one}" for one in sorted(set(heights)))
    counted = sum(one.get("delivered_frames", 0) for one in accuracy)
    abs_rel = sum(one["delivered_abs_rel"] * one["delivered_frames"] for one in accuracy if one) / (counted or np.nan)
    cells = [
        f"{late} of {len(frames)} ({late / len(frames):.1%}), {dropped} dropped",
        f"{sum(one for one, _ in held)} ({sum(one for one, _ in held) / len(frames):.1%})",
        str(sum(one for _, one in held)),
        f"{age.p50_ms:.0f} and {age.p99_ms:.0f} ms",
        f"{shares}; {sum(run.num_switches for run in runs)} switches",
        f"{abs_rel:.3f}" if counted else "–",
    ]
    return f"| {runs[0].name} | {' | '.join(cells)} |"


def picture(run: OnTimeRun, heights: list[int]) -> Image.Image:
    """Resolution and age of each frame over time; the ground is grey under load, late frames are red."""
    end_s, top_ms = run.frames[-1].captured_s, 1.6 * run.deadline_ms
    canvas = Image.new("RGB", (WIDTH, LEVELS_PX + GAP_PX + AGES_PX + GAP_PX), "white")
    draw = ImageDraw.Draw(canvas)
    base = LEVELS_PX + GAP_PX + AGES_PX

    def x_of(time_s: float) -> float:
        return LEFT + (WIDTH - LEFT - 6) * time_s / end_s

    def level_of(height: int) -> float:
        return LEVELS_PX * (1 - (heights.index(height) + 0.5) / len(heights))

    def y_of(age_ms: float) -> float:
        return base - AGES_PX * min(age_ms, top_ms) / top_ms

    for loaded, group in groupby(run.frames, key=lambda one: one.is_loaded):
        if loaded:
            times = [one.captured_s for one in group]
            for top, bottom in ((0, LEVELS_PX), (LEVELS_PX + GAP_PX, base)):
                draw.rectangle((x_of(times[0]), top, x_of(times[-1]), bottom), LOAD)
    for height in heights:
        draw.text((4, level_of(height) - 5), str(height), TEXT)
    for before, one in pairwise(run.frames):
        at = level_of(before.resolution[0])
        line = [(x_of(before.captured_s), at), (x_of(one.captured_s), at)]
        draw.line([*line, (x_of(one.captured_s), level_of(one.resolution[0]))], INK, 2)
    for age_ms in (0.0, run.deadline_ms):
        draw.line((LEFT, y_of(age_ms), WIDTH, y_of(age_ms)), GRID)
        draw.text((4, y_of(age_ms) - 5), f"{age_ms:g} ms", TEXT)
    for one in run.frames:
        x, y, is_late = x_of(one.captured_s), y_of(one.age_ms), one.age_ms > run.deadline_ms
        radius = 3 if is_late else 1
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), LATE if is_late else INK)
    for time_s in range(0, int(end_s) + 1, 5):
        draw.text((x_of(time_s) - 4, base + 4), f"{time_s} s", TEXT)
    return canvas


def accuracy_of(runs: list[OnTimeRun], paths: list[Path], given: argparse.Namespace) -> list[dict[str, float]]:
    """Accuracy as delivered of each run; nothing without clips."""
    if given.clips is None:
        return [{} for _ in runs]
    dataset = ClipDataset(given.clips)
    with ExitStack() as stack:
        members = [stack.enter_context(DepthRuntime.load(path)) for path in paths]
        engines = {one.info.resolution: one for one in members}
        due = [delivered(run, given.fps) for run in runs]
        return delivered_accuracy(due, engines, dataset, default_protocol(dataset), fps=given.fps)


def main() -> None:
    """Measure what is missing, print the table, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", type=Path, help="engines' folders, of one model at several resolutions")
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--deadline", type=float, default=120.0, help="milliseconds")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of a run")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each")
    parser.add_argument("--only", help=f"measure only runs of this name: a resolution, or {ON_TIME!r}")
    parser.add_argument("--rows", type=Path, required=True, help="keep the runs here, and take those that are here")
    parser.add_argument("--clips", type=Path, help="folder made by mvde data synth --video")
    parser.add_argument("--picture", type=Path, help="write the picture of the first choice among the engines")
    given = parser.parse_args()
    paths = sorted((find(one).path.parent for one in given.engines), key=lambda one: find(one).manifest.resolution)
    runs = all_runs(paths, given)
    smallest = min(one.resolution[0] for run in runs for one in run.frames)
    accuracy = accuracy_of(runs, paths, given)
    print(f"deadline {given.deadline:g} ms, {given.fps:g} frames a second, runs of {given.duration:g} s\n")
    print("| | late | needless | at the onset | age, median and p99 | resolutions | AbsRel as delivered |")
    print("|---" * 7 + "|")
    for name in dict.fromkeys(run.name for run in runs):
        own = [index for index, run in enumerate(runs) if run.name == name]
        print(row([runs[index] for index in own], smallest, [accuracy[index] for index in own]))
    if given.picture:
        chosen = next(run for run in runs if run.name == ON_TIME)
        heights = sorted({find(path).manifest.resolution[0] for path in paths})
        picture(chosen, heights).quantize(32).save(given.picture, optimize=True)


if __name__ == "__main__":
    main()
