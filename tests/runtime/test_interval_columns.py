"""The columns lo, hi and near of a runtime: from a calibration with intervals, or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.calibration.interval_record import HeldOutRecord, IntervalsRecord, IntervalTable, NearestTable
from mvde.calibration.record import (
    Calibration,
    CameraRecord,
    MeasuredRecord,
    fp32_graph_sha256,
    read_calibration,
    write_calibration,
)
from mvde.camera import Camera
from mvde.contract import DepthKind, FocalConvention
from mvde.errors import CalibrationError, UsageError
from mvde.manifest import EngineManifest
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.mounting import Mounting
from mvde.runtime.stabilize import Stabilization

pytest.importorskip("openvino")

CAMERA = Camera(90.0, 90.0, 47.5, 31.5, (64, 96))
RECORD = CameraRecord(90.0, 90.0, 47.5, 31.5)
HELD = HeldOutRecord(
    num_scenes=40, num_frames=80, num_patches=900, patches=0.9, scenes=0.9, worst_scenes=0.7, bins=(0.9, 0.9, 0.9),
    nearest=0.95, width=0.85,
)  # fmt: skip
INTERVALS = IntervalsRecord(
    coverage=0.9,
    nearest_coverage=0.95,
    mean=IntervalTable((1.3, 2.5), (0.9, 0.8, 0.7), (1.1, 1.25, 1.5)),
    nearest=NearestTable((2.0,), (0.85, 0.6)),
    camera_factor=(0.9, 1.5),
    held_out=HELD,
)
COLUMNS = ("lo", "valid", "hi", "near")


@pytest.fixture(scope="module")
def metric(engine_folder: Path) -> Iterator[DepthRuntime]:
    with DepthRuntime.load(engine_folder) as loaded:
        yield loaded


def calibration_of(manifest: EngineManifest, **fields: object) -> Calibration:
    made = Calibration(
        name=manifest.name,
        created="2026-01-01T00:00:00+00:00",
        graph_sha256=fp32_graph_sha256(manifest),
        engine="openvino:fp32",
        depth_kind=manifest.depth_kind,
        resolution=manifest.resolution,
        fit="stretch",
        frame=(64, 96),
        camera=RECORD,
        intervals=INTERVALS,
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def of_focal_kind(manifest: EngineManifest) -> EngineManifest:
    return dataclasses.replace(
        manifest,
        depth_kind=DepthKind.METRIC_FOCAL,
        canonical_focal=0.8,
        focal_convention=FocalConvention.GEOMETRIC,
    )


def test_intervals_are_multiples_by_distance(metric: DepthRuntime, random_images: Callable[..., np.ndarray]) -> None:
    image = random_images(64, 96, 3)
    base = DepthRuntime(metric.engine, metric.manifest, stats=("mean", "min", "valid")).infer(image).stats
    runtime = DepthRuntime(metric.engine, metric.manifest, stats=COLUMNS, calibration=calibration_of(metric.manifest))
    result = runtime.infer(image)
    assert result.stat_names == COLUMNS
    for row, (mean, lowest, valid) in zip(result.stats, base.astype(np.float64), strict=True):
        place = 0 if mean < 1.3 else 1 if mean < 2.5 else 2
        near = lowest * (0.85 if lowest < 2 else 0.6)
        expected = (mean * (0.9, 0.8, 0.7)[place], valid, mean * (1.1, 1.25, 1.5)[place], near)
        np.testing.assert_array_equal(row, np.array(expected, np.float32))
    assert result.depth_kind is DepthKind.METRIC
    assert result.calibrated is None
    np.testing.assert_array_equal(runtime.patch_stats(image), result.stats)
    np.testing.assert_array_equal(next(runtime.stream([image])).stats, result.stats)
    np.testing.assert_array_equal(next(runtime.stream([image], stabilize=Stabilization())).stats, result.stats)


def test_an_edge_is_in_the_bin_above_and_a_patch_without_depth_is_0(metric: DepthRuntime) -> None:
    runtime = DepthRuntime(
        metric.engine, metric.manifest, stats=("mean", "lo", "hi", "near"),
        calibration=calibration_of(metric.manifest, fit="letterbox", frame=(32, 16), camera=CameraRecord(9, 9, 7, 15)),
    )  # fmt: skip
    mean = np.float32(metric.infer(np.full((32, 48, 3), 51, np.uint8)).stats[0, 0])
    table = dataclasses.replace(INTERVALS, mean=IntervalTable((float(mean),), (0.9, 0.8), (1.1, 1.25)))
    calibration = dataclasses.replace(runtime.calibration, intervals=table)  # type: ignore[type-var]
    runtime = DepthRuntime(metric.engine, metric.manifest, stats=("mean", "lo", "near"), calibration=calibration)
    rows = runtime.infer(np.full((32, 16, 3), 51, np.uint8), "letterbox").stats.reshape(2, 3, 3)
    np.testing.assert_array_equal(rows[:, 1, 1], np.float32(np.float64(rows[0, 1, 0]) * 0.8))
    assert (rows[:, [0, 2]] == 0).all()


def test_intervals_without_a_calibration_say_how_to_make_them(metric: DepthRuntime, engine_folder: Path) -> None:
    for names in (("lo",), ("mean", "near")):
        with pytest.raises(
            UsageError, match=f"stats has '{names[-1]}', which needs a calibration with intervals: make"
        ):
            DepthRuntime.load(engine_folder, stats=names)
    scale_only = calibration_of(
        metric.manifest, intervals=None, scale=2.0, measured=MeasuredRecord(20, 5, (0.5, 4.0), 0.03, 0.02)
    )
    with pytest.raises(CalibrationError, match=r"'hi', but the calibration has no intervals; add them with `mvde cal"):
        DepthRuntime(metric.engine, metric.manifest, stats=("hi",), calibration=scale_only)
    with pytest.raises(UsageError, match="stats names a column twice: lo, mean, lo"):
        DepthRuntime(
            metric.engine, metric.manifest, stats=("lo", "mean", "lo"), calibration=calibration_of(metric.manifest)
        )
    with pytest.raises(UsageError, match="stats has 'low': expected a sequence of names"):
        DepthRuntime(metric.engine, metric.manifest, stats=("low",), calibration=calibration_of(metric.manifest))


def test_intervals_of_a_scale_are_in_its_metres(metric: DepthRuntime) -> None:
    measured = MeasuredRecord(20, 5, (0.5, 4.0), 0.03, 0.02)
    calibration = calibration_of(metric.manifest, scale=0.5, measured=measured)
    runtime = DepthRuntime(metric.engine, metric.manifest, stats=("mean", "lo"), calibration=calibration)
    row = runtime.infer(np.full((64, 96, 3), 51, np.uint8)).stats[0]
    assert row[0] == pytest.approx(0.65, rel=1e-5)  # 1.3 of the map, and in the first bin
    assert row[1] == pytest.approx(0.9 * 0.65, rel=1e-5)


def test_frames_of_several_cameras_need_one_within_their_range(metric: DepthRuntime) -> None:
    manifest = of_focal_kind(metric.manifest)
    calibration = calibration_of(manifest, frame=None, camera=None)
    runtime = DepthRuntime(metric.engine, manifest, stats=("mean", "lo"), calibration=calibration)
    image = np.full((64, 96, 3), 51, np.uint8)
    factor = CAMERA.relative_focal / 0.8
    row = runtime.infer(image, camera=CAMERA).stats[0]
    assert row[0] == pytest.approx(1.3 * factor, rel=1e-5)
    assert row[1] == pytest.approx(0.8 * 1.3 * factor, rel=1e-5)
    with pytest.raises(CalibrationError, match="lo need the camera of the frame"):
        runtime.infer(image)
    with pytest.raises(CalibrationError, match=r"f_canonical of 0.9 to 1.5, but this frame has 2\.03; calibrate"):
        runtime.infer(image, camera=dataclasses.replace(CAMERA, fx=180.0))
    with pytest.raises(CalibrationError, match="of fit stretch, but this frame has crop"):
        runtime.infer(image, "crop", camera=CAMERA)


def test_another_camera_than_the_calibrated_is_refused(metric: DepthRuntime) -> None:
    runtime = DepthRuntime(metric.engine, metric.manifest, stats=("lo",), calibration=calibration_of(metric.manifest))
    image = np.full((64, 96, 3), 51, np.uint8)
    with pytest.raises(CalibrationError, match="but this frame has a camera of fx 91"):
        runtime.infer(image, camera=dataclasses.replace(CAMERA, fx=91.0))
    with pytest.raises(UsageError, match="the floor gives depth another scale than that whose errors were calibrated"):
        runtime.infer(image, camera=CAMERA, mounting=Mounting(0.6))
    with pytest.raises(UsageError, match="anchors take the place of the calibration, whose lo do not hold then"):
        runtime.infer(image, anchors=[(3, 3, 1.0)])


def test_a_calibration_of_another_graph_is_refused(engine_folder: Path, metric: DepthRuntime, tmp_path: Path) -> None:
    path = tmp_path / "a.calibration.json"
    made = calibration_of(metric.manifest, graph_sha256="b" * 64)
    write_calibration(made, path)
    assert read_calibration(path) == made
    with pytest.raises(CalibrationError, match="the calibration is of another graph"):
        DepthRuntime.load(engine_folder, calibration=path, stats=("lo",))
