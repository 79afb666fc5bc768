"""Intervals of an engine's depth: coverage and width in scenes that were not calibrated on, also of other pictures.

Calibrates on one data set and counts on another, whose scenes are others::

    mvde data synth -o rooms --count 1536 --split val
    mvde data synth -o others --count 480 --split test
    python benchmarks/intervals.py ENGINE --calibrate rooms --data others --scores scores.npz --picture intervals.png

The other pictures are the same frames at a fifth of the light, with noise; blurred by two pixels; and as they are, but
with a focal length that is stated wrong by a factor of 1.3. ``--scores`` keeps the scores, with which another run goes
on without the engine. ``--strict`` exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from mvde.calibration.conformal import Scores, bin_edges, bins_of
from mvde.calibration.interval_record import IntervalTable, NearestTable
from mvde.datasets.formats import DataFormat, open_dataset
from mvde.pipelines.eval_depth import default_protocol
from mvde.pipelines.interval_scores import (
    NEAREST_COVERAGE,
    STATS,
    beyond,
    coverage_by_scene,
    frame_scores,
    inside,
    joined_scores,
    mean_table,
    nearest_table,
    scene_names,
    width_m,
)
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.placement import Fit

Picture = NDArray[np.uint8]
LIGHT, NOISE, BLUR_PIXELS, WRONG_FOCAL = 0.2, 0.02, 2.0, 1.3
NUM_DRAWS = 40
NEAR_M = 0.8
WIDTH, HEIGHT, MARGIN, NUM_DOTS = 880, 560, 46, 8000
INSIDE, OUTSIDE, BOUND, ONE = (120, 160, 205), (215, 90, 90), (20, 20, 20), (130, 130, 130)
GRID, TEXT = (225, 225, 225), (80, 80, 80)


@dataclasses.dataclass(frozen=True)
class Both:
    """Scores of means and of nearest points."""

    mean: Scores
    nearest: Scores


def dark(picture: Picture) -> Picture:
    """Picture at a fifth of the light, with a sensor's noise."""
    light = (picture / 255.0) ** 2.2 * LIGHT
    noisy = light ** (1 / 2.2) + NOISE * np.random.default_rng(0).standard_normal(picture.shape)
    return (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)


def blurred(picture: Picture) -> Picture:
    """Picture with a Gaussian blur."""
    return gaussian_filter(picture.astype(np.float32), (BLUR_PIXELS, BLUR_PIXELS, 0)).astype(np.uint8)


def scored(runtime: DepthRuntime, data: Path, given: argparse.Namespace, change: Callable[[Picture], Picture]) -> Both:
    """Scores of a data set whose pictures are changed first."""
    dataset = open_dataset(given.format, data)
    scene_of, protocol, fit = scene_names(dataset), default_protocol(dataset), Fit(runtime.manifest.preprocess.fit)
    frames = []
    for index in range(0, len(dataset), given.every):
        sample = dataset[index]
        sample = dataclasses.replace(sample, rgb=change(sample.rgb))
        frames.append((scene_of(index), frame_scores(runtime, sample, protocol, fit, sample.camera)))
    found = joined_scores(frames)
    return Both(found.mean, found.nearest)


def with_wrong_focal(scores: Both) -> Both:
    """Scores of depth that is multiplied by a wrong ratio of focal lengths."""

    def scaled(one: Scores) -> Scores:
        return Scores(one.predicted_m * WRONG_FOCAL, one.log_ratio - np.log(WRONG_FOCAL), one.scene)

    return Both(scaled(scores.mean), scaled(scores.nearest))


def all_scores(given: argparse.Namespace) -> dict[str, Both]:
    """Scores of the calibration's frames and of the others, from the file if it is there."""
    names = ("calibration", "as they are", "a fifth of the light", "blurred")
    if given.scores is not None and given.scores.exists():
        with np.load(given.scores) as kept:
            parts = {key: kept[key] for key in kept.files}
        return {name: Both(*(_unpacked(parts, f"{name}/{kind}") for kind in ("mean", "nearest"))) for name in names}
    with DepthRuntime.load(given.engine, stats=STATS) as runtime:
        found = {names[0]: scored(runtime, given.calibrate, given, np.asarray)}
        for name, change in zip(names[1:], (np.asarray, dark, blurred), strict=True):
            found[name] = scored(runtime, given.data, given, change)
            print(name, file=sys.stderr, flush=True)
    if given.scores is not None:
        columns = {}
        for name, both in found.items():
            for kind in ("mean", "nearest"):
                columns |= {f"{name}/{kind}/{key}": one for key, one in vars(getattr(both, kind)).items()}
        np.savez(given.scores, **columns)
    return found


def _unpacked(parts: dict[str, NDArray[np.float64]], where: str) -> Scores:
    return Scores(*(parts[f"{where}/{field.name}"] for field in dataclasses.fields(Scores)))


def row(name: str, table: IntervalTable, nearest: NearestTable, scores: Both) -> str:
    """Coverage of one kind of pictures as Markdown."""
    covered = inside(table, scores.mean)
    by_scene = coverage_by_scene(covered, scores.mean.scene)
    bins = bins_of(table.edges_m, scores.mean.predicted_m)
    each = [covered[bins == number].mean() for number in range(len(table.edges_m) + 1)]
    cells = [covered.mean(), by_scene.mean(), np.quantile(by_scene, 0.1), min(each)]
    shown = " | ".join(f"{100 * one:.1f} %" for one in cells)
    return f"| {name} | {shown} | {100 * beyond(nearest, scores.nearest).mean():.1f} % |"


def of_fewer_scenes(calibration: Scores, test: Scores, count: int, coverage: float) -> tuple[float, float]:
    """Mean and standard deviation of the coverage of tables of ``count`` scenes, drawn again and again."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(NUM_DRAWS):
        chosen = rng.choice(np.unique(calibration.scene), count, replace=False)
        few = calibration.where(np.isin(calibration.scene, chosen))
        shares.append(inside(mean_table(few, bin_edges(few), coverage), test).mean())
    return float(np.mean(shares)), float(np.std(shares))


def matched_width(table: IntervalTable, calibration: Scores, test: Scores) -> float:
    """Width in metres over that of one interval for all distances that holds as many patches."""
    wanted = inside(table, test).mean()
    for coverage in np.arange(0.5, 0.98, 0.0025):
        constant = mean_table(calibration, (), float(coverage))
        if inside(constant, test).mean() >= wanted:
            return width_m(table, test) / width_m(constant, test)
    return float("nan")


def draw(path: Path, table: IntervalTable, constant: IntervalTable, scores: Scores) -> None:
    """Draw intervals against the truth over predicted distance, both axes logarithmic."""
    truth = scores.predicted_m * np.exp(scores.log_ratio)
    left, right = (float(np.quantile(scores.predicted_m, one)) for one in (0.001, 0.999))
    bottom, top = 0.65 * left, 1.55 * right

    def x_of(metres: float) -> float:
        return MARGIN + (WIDTH - MARGIN - 10) * np.log(metres / left) / np.log(right / left)

    def y_of(metres: float) -> float:
        return 10 + (HEIGHT - MARGIN - 10) * np.log(top / metres) / np.log(top / bottom)

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    for metres in (0.3, 0.5, 1, 2, 3, 5, 10):
        if bottom < metres < top:
            pen.line((MARGIN, y_of(metres), WIDTH - 10, y_of(metres)), GRID)
            pen.text((MARGIN - 32, y_of(metres) - 6), f"{metres:g} m", TEXT)
        if left < metres < right:
            pen.line((x_of(metres), 10, x_of(metres), HEIGHT - MARGIN), GRID)
            pen.text((x_of(metres) - 8, HEIGHT - MARGIN + 4), f"{metres:g} m", TEXT)
    is_inside = inside(table, scores)
    for at in np.random.default_rng(0).permutation(len(truth))[:NUM_DOTS]:
        predicted, true = float(scores.predicted_m[at]), float(truth[at])
        if left <= predicted <= right and bottom <= true <= top:
            x, y = x_of(predicted), y_of(true)
            pen.ellipse((x - 1, y - 1, x + 1, y + 1), INSIDE if is_inside[at] else OUTSIDE)
    for factor in (constant.lo[0], constant.hi[0]):
        pen.line((x_of(left), y_of(left * factor), x_of(right), y_of(right * factor)), ONE, 1)
    edges = [left, *(edge for edge in table.edges_m if left < edge < right), right]
    for start, end in pairwise(edges):
        place = int(bins_of(table.edges_m, np.array([(start * end) ** 0.5]))[0])
        for factor in (table.lo[place], table.hi[place]):
            pen.line((x_of(start), y_of(start * factor), x_of(end), y_of(end * factor)), BOUND, 3)
    words = ((BOUND, "lo and hi"), (ONE, "one interval for all distances"), (INSIDE, "inside"), (OUTSIDE, "outside"))
    for number, (colour, text) in enumerate(words):
        pen.rectangle((MARGIN + 12, 20 + 16 * number, MARGIN + 24, 28 + 16 * number), colour)
        pen.text((MARGIN + 30, 18 + 16 * number), text, TEXT)
    pen.text((WIDTH // 2 - 100, HEIGHT - 18), "predicted mean depth of a patch", TEXT)
    pen.text((MARGIN + 12, HEIGHT - MARGIN - 16), "upwards: its true mean depth", TEXT)
    picture.save(path)


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="engine folder or id")
    parser.add_argument("--calibrate", type=Path, required=True, help="data set to calibrate on")
    parser.add_argument("--data", type=Path, required=True, help="data set of other scenes, to count on")
    parser.add_argument("--format", type=DataFormat, default=DataFormat.SYNTHETIC, help="format of both")
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame")
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--scores", type=Path, help="keep the scores here, and take those that are here")
    parser.add_argument("--picture", type=Path, help="draw intervals against the truth")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a target is missed")
    given = parser.parse_args()
    found = all_scores(given)
    calibration, test = found.pop("calibration"), found["as they are"]
    table = mean_table(calibration.mean, bin_edges(calibration.mean), given.coverage)
    constant = mean_table(calibration.mean, (), given.coverage)
    nearest = nearest_table(calibration.nearest, bin_edges(calibration.nearest))
    found["focal length stated 1.3 times"] = with_wrong_focal(test)
    counts = [len(np.unique(one.mean.scene)) for one in (calibration, test)]
    print(f"calibrated on {counts[0]} scenes, counted on {counts[1]} others, {len(test.mean.scene)} patches\n")
    print(
        "| pictures | patches | mean over scenes | a tenth of scenes below | worst bin | nearest |\n|---|" + "---|" * 5
    )
    for name, one in found.items():
        print(row(name, table, nearest, one))
    print(row("as they are, one interval", constant, nearest, test))
    lower = IntervalTable((), (nearest_table(calibration.mean, ()).factors), (1e5,))
    below = (test.nearest.log_ratio + np.log(test.nearest.predicted_m / test.mean.predicted_m)) >= np.log(lower.lo[0])
    print(f"\na one-sided 95 % bound of the mean, taken for the nearest point: {below.mean():.1%} of patches")
    for count in (32, 64):
        mean, spread = of_fewer_scenes(calibration.mean, test.mean, count, given.coverage)
        print(f"calibrated on {count} of the scenes, {NUM_DRAWS} draws: {mean:.1%} of patches, deviation {spread:.1%}")
    matched = matched_width(table, calibration.mean, test.mean)
    print(f"width over that of one interval for all distances that holds as many patches: {matched:.2f}")
    if given.picture is not None:
        draw(given.picture, table, constant, test.mean)
    return report(table, constant, nearest, test, given)


def report(
    table: IntervalTable, constant: IntervalTable, nearest: NearestTable, test: Both, given: argparse.Namespace
) -> int:
    """Print each target and what was reached; return the exit status."""
    covered = inside(table, test.mean)
    bins = bins_of(table.edges_m, test.mean.predicted_m)
    worst = min(covered[bins == number].mean() for number in range(len(table.edges_m) + 1))
    near = test.mean.predicted_m * np.exp(test.mean.log_ratio) < NEAR_M
    shares = [inside(one, test.mean)[near].mean() for one in (table, constant)]
    width = width_m(table, test.mean) / width_m(constant, test.mean)
    off = abs(covered.mean() - given.coverage)
    far = abs(beyond(nearest, test.nearest).mean() - NEAREST_COVERAGE)
    targets = [
        ("coverage is off nominal by, at most 2 points", off, off <= 0.02),
        ("worst bin, at least nominal less 3 points", worst, worst >= given.coverage - 0.03),
        ("width over one interval's, at most 0.9", width, width <= 0.9),
        ("nearest point, off 95 % by at most 2 points", far, far <= 0.02),
    ]
    print(f"\ntruth under {NEAR_M} m: {shares[0]:.1%} covered, {shares[1]:.1%} by one interval for all distances")
    for words, value, is_reached in targets:
        print(f"{'reached' if is_reached else 'MISSED ':8} {words}: {value:.3f}")
    return 1 if given.strict and not all(is_reached for _, _, is_reached in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
