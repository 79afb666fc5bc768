"""Intervals of an engine's depth: coverage and width in scenes that were not calibrated on, also of other pictures.

Calibrates on one data set and counts on another, whose scenes are others::

    mvde data synth -o rooms --count 1536 --split val
    mvde data synth -o others --count 480 --split test
    python benchmarks/intervals.py ENGINE --calibrate rooms --data others --scores scores.npz --picture intervals.png

The other pictures are the same frames at a fifth of the light, with noise; blurred by two pixels; as they are, but with
a focal length that is stated wrong by a factor of 1.3; and by field of view. ``--clips`` adds clips, frame by frame and
with steady depth, and ``--also FORMAT:FOLDER`` any other data set, such as one of a real camera. ``--scores`` keeps the
scores, with which another run goes on. ``--strict`` exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from mvde.calibration.conformal import Scores, bin_edges, bins_of
from mvde.calibration.interval_record import IntervalTable, NearestTable
from mvde.camera import Camera
from mvde.datasets.clips import ClipDataset
from mvde.datasets.formats import DataFormat, open_dataset
from mvde.datasets.sample import DepthDataset
from mvde.pipelines.eval_depth import default_protocol
from mvde.pipelines.interval_scores import (
    NEAREST_COVERAGE,
    STATS,
    FrameScores,
    beyond,
    coverage_by_scene,
    frame_scores,
    inside,
    joined_scores,
    mean_table,
    nearest_table,
    result_scores,
    scene_names,
    width_m,
)
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.placement import Fit
from mvde.runtime.stabilize import Stabilization

Picture = NDArray[np.uint8]
LIGHT, NOISE, BLUR_PIXELS, WRONG_FOCAL = 0.2, 0.02, 2.0, 1.3
CALIBRATION, AS_THEY_ARE = "calibration", "as they are"
NUM_DRAWS, NUM_SPLITS, CLIP_STEP = 40, 20, 4
NEAR_M = 0.8
WIDTH, HEIGHT, MARGIN, NUM_DOTS = 880, 560, 46, 8000
INSIDE, OUTSIDE, BOUND, ONE = (120, 160, 205), (215, 90, 90), (20, 20, 20), (130, 130, 130)
GRID, TEXT = (225, 225, 225), (80, 80, 80)


@dataclasses.dataclass(frozen=True)
class Both:
    """Scores of means and of nearest points, patch by patch, and f / f_canonical of their frames (n,)."""

    mean: Scores
    nearest: Scores
    factor: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Both:
        """The scores of a mask (n,)."""
        return Both(self.mean.where(chosen), self.nearest.where(chosen), self.factor[chosen])


def both(frames: Iterable[tuple[str, FrameScores]]) -> Both:
    """Scores of frames, each with the name of its scene."""
    found = joined_scores(frames)
    factor = np.concatenate([np.full(len(one.mean_m), one.factor) for one in found.frames])
    return Both(found.mean, found.nearest, factor)


def dark(picture: Picture) -> Picture:
    """Picture at a fifth of the light, with a sensor's noise."""
    light = (picture / 255.0) ** 2.2 * LIGHT
    noisy = light ** (1 / 2.2) + NOISE * np.random.default_rng(0).standard_normal(picture.shape)
    return (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)


def blurred(picture: Picture) -> Picture:
    """Picture with a Gaussian blur."""
    return gaussian_filter(picture.astype(np.float32), (BLUR_PIXELS, BLUR_PIXELS, 0)).astype(np.uint8)


def scored(
    runtime: DepthRuntime, dataset: DepthDataset, every: int, change: Callable[[Picture], Picture] = np.asarray
) -> Both:
    """Scores of a data set whose pictures are changed first."""
    scene_of, protocol, fit = scene_names(dataset), default_protocol(dataset), Fit(runtime.manifest.preprocess.fit)
    frames = []
    for index in range(0, len(dataset), every):
        sample = dataset[index]
        sample = dataclasses.replace(sample, rgb=change(sample.rgb))
        frames.append((scene_of(index), frame_scores(runtime, sample, protocol, fit, sample.camera)))
    return both(frames)


def streamed(runtime: DepthRuntime, folder: Path, every: int, steady: Stabilization | None) -> Both:
    """Scores of every n-th frame of clips, which are seen as streams."""
    dataset, frames = ClipDataset(folder), []
    protocol, patch = default_protocol(dataset), runtime.manifest.stats_patch
    for clip in dataset.clips():
        size = (clip.rgb.shape[1], clip.rgb.shape[2])
        cameras = [Camera(*(float(one) for one in row), size) for row in clip.intrinsics]
        given = iter(cameras)
        results = runtime.stream(clip.rgb, camera=lambda _, given=given: next(given), stabilize=steady)
        for number, result in enumerate(results):
            if number % every == 0:
                frames.append(
                    (clip.name, result_scores(result, clip.depth_m[number], protocol, patch, cameras[number]))
                )
    return both(frames)


def with_wrong_focal(scores: Both) -> Both:
    """Scores of depth that is multiplied by a wrong ratio of focal lengths."""

    def scaled(one: Scores) -> Scores:
        return Scores(one.predicted_m * WRONG_FOCAL, one.log_ratio - np.log(WRONG_FOCAL), one.scene)

    return Both(scaled(scores.mean), scaled(scores.nearest), scores.factor * WRONG_FOCAL)


def by_camera(scores: Both) -> dict[str, Both]:
    """Scores of the third of the frames with the widest field of view, of the middle one and of the narrowest."""
    first, second = np.quantile(scores.factor, (1 / 3, 2 / 3))
    place = np.searchsorted((first, second), scores.factor, side="right")
    words = ("widest third of the fields of view", "middle third", "narrowest third")
    return {name: scores.where(place == number) for number, name in enumerate(words) if (place == number).any()}


def all_scores(given: argparse.Namespace) -> dict[str, Both]:
    """Scores by name, from the file where they are there: of the calibration first."""
    others = open_dataset(given.format, given.data)
    sources: dict[str, Callable[[DepthRuntime], Both]] = {
        CALIBRATION: lambda runtime: scored(runtime, open_dataset(given.format, given.calibrate), given.every),
        AS_THEY_ARE: lambda runtime: scored(runtime, others, given.every),
        "a fifth of the light, with noise": lambda runtime: scored(runtime, others, given.every, dark),
        "blurred by 2 pixels": lambda runtime: scored(runtime, others, given.every, blurred),
    }
    if given.clips is not None:
        sources["clips, frame by frame"] = lambda runtime: streamed(runtime, given.clips, CLIP_STEP, None)
        sources["clips, stabilised"] = lambda runtime: streamed(runtime, given.clips, CLIP_STEP, Stabilization())
    for kind, _, folder in (one.partition(":") for one in given.also):
        sources[f"{kind} {Path(folder).name}"] = lambda runtime, kind=kind, folder=folder: scored(
            runtime, open_dataset(DataFormat(kind), Path(folder)), given.every
        )
    kept: dict[str, Both] = {}
    if given.scores is not None and given.scores.exists():
        with np.load(given.scores) as parts:
            kept = {name: _unpacked(parts, name) for name in sources if f"{name}/factor" in parts}
    if len(kept) < len(sources):
        with DepthRuntime.load(given.engine, stats=STATS) as runtime:
            for name in sources.keys() - kept.keys():
                kept[name] = sources[name](runtime)
                print(name, file=sys.stderr, flush=True)
                if given.scores is not None:
                    np.savez(given.scores, **_packed(kept))
    return {name: kept[name] for name in sources}


def _packed(kept: dict[str, Both]) -> dict[str, NDArray[np.float64]]:
    columns = {f"{name}/factor": one.factor for name, one in kept.items()}
    for name, one in kept.items():
        for kind in ("mean", "nearest"):
            columns |= {f"{name}/{kind}/{key}": column for key, column in vars(getattr(one, kind)).items()}
    return columns


def _unpacked(parts: Mapping[str, NDArray[np.float64]], name: str) -> Both:
    pair = (
        Scores(*(parts[f"{name}/{kind}/{field.name}"] for field in dataclasses.fields(Scores)))
        for kind in ("mean", "nearest")
    )
    return Both(*pair, parts[f"{name}/factor"])


def row(name: str, table: IntervalTable, nearest: NearestTable, scores: Both) -> str:
    """Coverage of one kind of pictures as Markdown."""
    covered = inside(table, scores.mean)
    by_scene = coverage_by_scene(covered, scores.mean.scene)
    cells = [covered.mean(), by_scene.mean(), np.quantile(by_scene, 0.1), min(by_bin(table, scores.mean))]
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


def of_other_splits(calibration: Scores, test: Scores, coverage: float) -> tuple[NDArray[np.float64], ...]:
    """Coverage, least coverage of a bin, and width over one interval's, of splits of all scenes by chance, (splits,).

    As many scenes are calibrated on as before.
    """
    count = len(np.unique(calibration.scene))
    pairs = ((calibration.predicted_m, test.predicted_m), (calibration.log_ratio, test.log_ratio))
    scene = np.concatenate([calibration.scene, test.scene + calibration.scene.max() + 1])
    all_scores, rng, rows = Scores(*(np.concatenate(pair) for pair in pairs), scene), np.random.default_rng(1), []
    for _ in range(NUM_SPLITS):
        is_chosen = np.isin(scene, rng.choice(np.unique(scene), count, replace=False))
        ours, others = all_scores.where(is_chosen), all_scores.where(~is_chosen)
        table, constant = mean_table(ours, bin_edges(ours), coverage), mean_table(ours, (), coverage)
        width = width_m(table, others) / width_m(constant, others)
        rows.append((inside(table, others).mean(), min(by_bin(table, others)), width))
    return tuple(np.array(rows).T)


def by_bin(table: IntervalTable, scores: Scores) -> list[float]:
    """Coverage of the patches of each bin of distance."""
    covered, bins = inside(table, scores), bins_of(table.edges_m, scores.predicted_m)
    return [float(covered[bins == number].mean()) for number in range(len(table.edges_m) + 1) if (bins == number).any()]


def matched_width(table: IntervalTable, calibration: Scores, test: Scores) -> float:
    """Width in metres over that of one interval for all distances that holds as many patches."""
    wanted = inside(table, test).mean()
    for coverage in np.arange(wanted - 0.06, 0.98, 0.0025):
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
    parser.add_argument("--clips", type=Path, help="clips of other scenes, frame by frame and stabilised")
    parser.add_argument("--also", action="append", default=[], help="FORMAT:FOLDER of another data set to count on")
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame")
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--scores", type=Path, help="keep the scores here, and take those that are here")
    parser.add_argument("--picture", type=Path, help="draw intervals against the truth")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a target is missed")
    given = parser.parse_args()
    found = all_scores(given)
    calibration, test = found.pop(CALIBRATION), found[AS_THEY_ARE]
    table = mean_table(calibration.mean, bin_edges(calibration.mean), given.coverage)
    constant = mean_table(calibration.mean, (), given.coverage)
    nearest = nearest_table(calibration.nearest, bin_edges(calibration.nearest))
    found |= {"focal length stated 1.3 times": with_wrong_focal(test), **by_camera(test)}
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
    shares, worst, widths = of_other_splits(calibration.mean, test.mean, given.coverage)
    print(
        f"{NUM_SPLITS} other splits of the {sum(counts)} scenes: {shares.mean():.1%} of patches, deviation "
        f"{shares.std():.1%}, {shares.min():.1%} to {shares.max():.1%}; worst bin {worst.mean():.1%}, deviation "
        f"{worst.std():.1%}; width over one interval's {widths.mean():.2f}, {widths.min():.2f} to {widths.max():.2f}"
    )
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
    worst = min(by_bin(table, test.mean))
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
