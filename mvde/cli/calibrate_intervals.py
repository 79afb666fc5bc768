"""``mvde calibrate intervals``: how far from the truth depth is, from a data set with ground truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.cli.shared_options import ENGINE_DIR_HELP, FIT_HELP, OUT_HELP, FilmedDataOptions
from mvde.cli.terminal import say
from mvde.errors import CalibrationError, UsageError
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    from mvde.calibration.interval_record import IntervalsRecord
    from mvde.calibration.record import Calibration
    from mvde.datasets.sample import DepthDataset
    from mvde.pipelines.interval_scores import DataScores, FrameScores
    from mvde.runtime.depth import DepthRuntime


def intervals(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="Engine id or folder.")],
    data: FilmedDataOptions,
    coverage: Annotated[
        float, typer.Option("--coverage", help="Share of patches whose true mean is to be between lo and hi.")
    ] = 0.9,
    fit: Annotated[Fit | None, typer.Option("--fit", help=FIT_HELP)] = None,
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help=ENGINE_DIR_HELP)] = Path("engines"),
    out: Annotated[Path, typer.Option("--out", "-o", help=OUT_HELP)] = Path("calibration"),
) -> None:
    """Calibrate intervals of an engine's depth on frames with ground truth.

    Adds to NAME.calibration.json, or makes it, what the columns lo, hi (an interval for a patch's true mean) and near
    (a bound below its nearest point) need. Scenes count, not frames: below 32 is refused. The camera has to be known.
    """
    from mvde.artifact import artifact_stem
    from mvde.calibration.record import SUFFIX, read_calibration, rows, write_calibration
    from mvde.engines.store import find
    from mvde.pipelines.interval_scores import FEW_SCENES, STATS, intervals_of, joined_scores
    from mvde.runtime.depth import DepthRuntime

    dataset = data.open()
    if dataset is None:
        raise UsageError("mvde calibrate intervals needs frames with depth; name the data set: --data FOLDER")
    found = find(engine, root=engine_dir)
    manifest = found.manifest
    path = out / f"{artifact_stem(manifest.name, manifest.resolution, manifest.batch)}{SUFFIX}"
    before = _without_intervals(read_calibration(path)) if path.exists() else None
    with DepthRuntime.load(found.path, stats=STATS, calibration=before) as runtime:
        _check_metres(runtime)
        scores = joined_scores(_scored(runtime, dataset, data, fit))
        made = _calibration(runtime, before, scores, fit, intervals_of(scores, coverage))
    write_calibration(made, path)
    say(f"{path}:")
    for label, text in rows(made):
        say(f"  {label}: {text}")
    if scores.num_scenes < FEW_SCENES:
        say(
            f"warning: {scores.num_scenes} scenes are few: coverage in another place may be several points less; "
            f"{FEW_SCENES} or more are better"
        )


def _without_intervals(calibration: Calibration) -> Calibration | None:
    """The scale of a calibration; ``None`` if it has none."""
    return None if calibration.scale is None else dataclasses.replace(calibration, intervals=None)


def _check_metres(runtime: DepthRuntime) -> None:
    """Raise :class:`CalibrationError` for an engine whose depth has no metres that hold in other scenes."""
    from mvde.contract import DepthKind

    kind = runtime.manifest.depth_kind
    if kind in (DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_RELATIVE):
        raise CalibrationError(
            f"intervals are in metres, but {runtime.manifest.name} is {kind}: its scale differs from scene to scene, "
            "and so would any interval; use a metric model"
        )
    if kind.is_inverse and runtime.calibration is None:
        raise CalibrationError(
            f"intervals are in metres, but the statistics of {runtime.manifest.name} are of {kind}; calibrate its "
            "scale first, into the same folder: `mvde calibrate scale`"
        )


def _scored(
    runtime: DepthRuntime, dataset: DepthDataset, data: FilmedDataOptions, fit: Fit | None
) -> Iterator[tuple[str, FrameScores]]:
    """Scene and scores of each frame that is taken."""
    import numpy as np

    from mvde.pipelines.eval_depth import cameras_of
    from mvde.pipelines.interval_scores import frame_scores, scene_names

    scene_of, camera_of = scene_names(dataset), cameras_of(data.frame_camera)
    protocol, chosen = data.evaluation(dataset), fit or Fit(runtime.manifest.preprocess.fit)
    count = len(dataset)
    taken = min(count, data.max_frames or count)
    for index in np.linspace(0, count - 1, taken).astype(int).tolist():
        sample = dataset[index]
        yield scene_of(index), frame_scores(runtime, sample, protocol, chosen, camera_of(sample))


def _calibration(
    runtime: DepthRuntime, before: Calibration | None, scores: DataScores, fit: Fit | None, found: IntervalsRecord
) -> Calibration:
    """The calibration ``before`` with the intervals ``found``, or a new one for the frames' camera or cameras.

    Raises :class:`CalibrationError` for several cameras, unless the kind's metres contain their focal lengths.
    """
    from datetime import datetime, timezone

    from mvde.calibration.record import Calibration, camera_record, fp32_graph_sha256

    if before is not None:
        if before.camera is None:
            raise CalibrationError(
                "the scale was calibrated without a camera, which intervals need; calibrate it again with --camera"
            )
        return dataclasses.replace(before, intervals=found)
    manifest, first = runtime.manifest, scores.frames[0]
    cameras = {(one.size, one.camera) for one in scores.frames}
    is_one = len(cameras) == 1
    if not is_one and not manifest.depth_kind.has_canonical_camera:
        raise CalibrationError(
            f"the frames are of {len(cameras)} cameras, but {manifest.depth_kind} does not know of cameras: its errors "
            "are others with each field of view; calibrate each camera by itself"
        )
    record = camera_record(first.camera)
    return Calibration(
        name=manifest.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        graph_sha256=fp32_graph_sha256(manifest),
        engine=str(runtime.info.id),
        depth_kind=manifest.depth_kind,
        resolution=manifest.resolution,
        fit=str(fit or Fit(manifest.preprocess.fit)),
        frame=first.size if is_one else None,
        camera=record if is_one else None,
        intervals=found,
    )
