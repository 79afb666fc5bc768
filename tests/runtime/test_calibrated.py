"""Metres from a calibration or from anchors, on engines with closed-form maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.calibration.record import Calibration, CameraRecord, MeasuredRecord, fp32_graph_sha256, write_calibration
from mvde.camera import Camera
from mvde.contract import DepthKind, FocalConvention
from mvde.errors import CalibrationError, UsageError
from mvde.manifest import EngineManifest
from mvde.runtime.depth import DepthRuntime
from mvde.stats import depth_to_patch_stats

pytest.importorskip("openvino")

Images = Callable[..., np.ndarray]
SCALE, SHIFT = 0.5, 0.0625


@pytest.fixture(scope="module")
def metric(engine_folder: Path) -> Iterator[DepthRuntime]:
    with DepthRuntime.load(engine_folder) as loaded:
        yield loaded


def of_kind(manifest: EngineManifest, kind: DepthKind) -> EngineManifest:
    """The manifest, as if the engine's map (0.5 to 4.5) were of another kind."""
    focal = (0.8, FocalConvention.GEOMETRIC) if kind.has_canonical_camera else (None, None)
    return dataclasses.replace(
        manifest, depth_kind=kind, unit=kind.unit, canonical_focal=focal[0], focal_convention=focal[1]
    )


def calibration_of(manifest: EngineManifest, frame: tuple[int, int] = (64, 96), **fields: object) -> Calibration:
    shift = SHIFT if manifest.depth_kind is DepthKind.INVERSE_RELATIVE else 0.0
    made = Calibration(
        name=manifest.name,
        created="2026-01-01T00:00:00+00:00",
        graph_sha256=fp32_graph_sha256(manifest),
        engine="openvino:fp32",
        depth_kind=manifest.depth_kind,
        resolution=manifest.resolution,
        fit="stretch",
        frame=frame,
        scale=SCALE,
        shift=shift,
        measured=MeasuredRecord(20, 5, (0.5, 4.0), 0.03, 0.02),
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", DepthKind)
def test_a_calibrated_map_is_metric_with_its_statistics(
    metric: DepthRuntime, random_images: Images, closed_form_depth: Images, kind: DepthKind
) -> None:
    manifest = of_kind(metric.manifest, kind)
    calibration = calibration_of(manifest, (32, 48))
    runtime = DepthRuntime(metric.engine, manifest, stats=("mean", "var", "valid"), calibration=calibration)
    image = random_images(32, 48, 3)
    raw = closed_form_depth(image)
    expected = 1 / (SCALE * raw + calibration.shift) if kind.is_inverse else SCALE * raw
    result = runtime.infer(image)
    np.testing.assert_allclose(result.depth, expected, rtol=1e-5)
    rows = depth_to_patch_stats(expected.astype(np.float32)[None], 16, ("mean", "var", "valid"))[0]
    np.testing.assert_allclose(result.stats, rows, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(runtime.patch_stats(image), result.stats)
    np.testing.assert_array_equal(next(runtime.stream([image])).depth, result.depth)
    assert (result.depth_kind, result.unit) == (DepthKind.METRIC, "m")
    is_relative = kind in (DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_RELATIVE)
    assert result.calibrated == ("fixed scene" if is_relative else "one scale")
    np.testing.assert_allclose(result.millimetres(), 1000 * expected, atol=0.51)
    assert runtime.calibration == calibration
    assert metric.infer(image).calibrated is None


def test_the_camera_multiplies_what_was_calibrated(metric: DepthRuntime) -> None:
    manifest = of_kind(metric.manifest, DepthKind.METRIC_FOCAL)
    camera = Camera(96, 64, 47.5, 31.5, (64, 96))  # relative focal length 1
    calibration = calibration_of(manifest, camera=CameraRecord(96, 64, 47.5, 31.5))
    image = np.full((64, 96, 3), 51, np.uint8)  # 1.3
    for given in (None, camera):
        result = DepthRuntime(metric.engine, manifest, given, calibration=calibration).infer(image)
        np.testing.assert_allclose(result.depth, 1.3 / 0.8 * SCALE, rtol=1e-5)
        assert result.camera_factor == pytest.approx(1.25)
        assert not result.camera_assumed
    with pytest.raises(CalibrationError, match="but this frame has a camera of fx 97"):
        DepthRuntime(metric.engine, manifest, calibration=calibration).infer(
            image, camera=dataclasses.replace(camera, fx=97.0)
        )


def test_letterbox_bars_have_no_statistics_of_a_shifted_map(metric: DepthRuntime) -> None:
    manifest = of_kind(metric.manifest, DepthKind.INVERSE_RELATIVE)
    calibration = calibration_of(manifest, (32, 16), fit="letterbox")
    image = np.full((32, 16, 3), 51, np.uint8)
    result = DepthRuntime(metric.engine, manifest, calibration=calibration).infer(image, "letterbox")
    rows = result.stats.reshape(2, 3, 3)
    assert (rows[:, [0, 2]] == 0).all()
    np.testing.assert_allclose(rows[:, 1, 0], 1 / (SCALE * 1.3 + SHIFT), rtol=1e-5)
    np.testing.assert_allclose(result.depth, 1 / (SCALE * 1.3 + SHIFT), rtol=1e-5)


def test_a_frame_that_was_not_calibrated_is_refused(metric: DepthRuntime, random_images: Images) -> None:
    runtime = DepthRuntime(metric.engine, metric.manifest, calibration=calibration_of(metric.manifest))
    with pytest.raises(CalibrationError, match="of frames of 64x96, but this frame is 64x95"):
        runtime.infer(random_images(64, 95, 3))
    with pytest.raises(CalibrationError, match="of fit stretch, but this frame has crop"):
        runtime.infer(random_images(64, 96, 3), "crop")


def test_a_calibration_of_another_graph_is_refused(metric: DepthRuntime, engine_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.calibration.json"
    write_calibration(calibration_of(metric.manifest, graph_sha256="b" * 64), path)
    with pytest.raises(
        CalibrationError, match=r"of another graph: tiny 32x48, fp32 SHA-256 bbbbbbbbbbbb\.\.\., measured"
    ):
        DepthRuntime.load(engine_folder, calibration=path)
    other = calibration_of(of_kind(metric.manifest, DepthKind.SCALE_INVARIANT))
    with pytest.raises(CalibrationError, match="of scale_invariant at 32x48, but this engine is of metric at 32x48"):
        DepthRuntime.load(engine_folder, calibration=other)
    write_calibration(calibration_of(metric.manifest), path)
    with DepthRuntime.load(engine_folder, calibration=str(path)) as runtime:
        assert runtime.calibration == calibration_of(metric.manifest)


def test_another_precision_of_the_graph_may_use_it(metric: DepthRuntime) -> None:
    from mvde.precision import Precision
    from mvde.records import LoweringRecord

    own = metric.manifest
    lowering = LoweringRecord(Precision.FP16, own.engine.onnx_sha256, {}, 0, 0)
    engine = dataclasses.replace(own.engine, onnx_sha256="c" * 64, precision=Precision.FP16)
    typed = dataclasses.replace(own, lowering=lowering, engine=engine)
    calibration_of(own).check_engine(typed)


def scene() -> np.ndarray:
    """An image (64, 96, 3) in four grey columns; the engine's map is 0.5 + 4 * level / 255."""
    columns = np.repeat(np.array([20, 60, 120, 200], np.uint8), 24)
    return np.repeat(np.tile(columns, (64, 1))[..., None], 3, axis=-1)


MAP = 0.5 + 4 * np.array([20, 60, 120, 200]) / 255


@pytest.mark.parametrize("kind", DepthKind)
def test_anchors_give_a_frame_its_metres(metric: DepthRuntime, kind: DepthKind) -> None:
    manifest = of_kind(metric.manifest, kind)
    shift = SHIFT if kind is DepthKind.INVERSE_RELATIVE else 0.0
    metres = 1 / (SCALE * MAP + shift) if kind.is_inverse else SCALE * MAP
    anchors = [(24 * column + 12, 30.5, metres[column]) for column in range(4)]
    with_file = calibration_of(manifest, scale=7.0)  # anchors take its place
    for calibration in (None, with_file):
        result = DepthRuntime(metric.engine, manifest, calibration=calibration).infer(scene(), anchors=anchors)
        np.testing.assert_allclose(result.depth[32, 12::24], metres, rtol=1e-5)
        assert (result.depth_kind, result.calibrated) == (DepthKind.METRIC, "anchors")


def test_anchors_that_the_network_did_not_see_are_left_out(metric: DepthRuntime) -> None:
    image = np.full((64, 192, 3), 51, np.uint8)  # crop sees columns 48 to 143
    result = metric.infer(image, "crop", anchors=[(100, 30, 2.6), (10, 30, 99)])
    np.testing.assert_allclose(result.depth[:, 48:144], 2.6, rtol=1e-5)
    with pytest.raises(CalibrationError, match="needs 1 points or more where it has a value, but got 0"):
        metric.infer(image, "crop", anchors=[(10, 30, 99)])


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([], "a frame takes 1 to 4096 anchors, but got 0"),
        (5, r"anchors is 5, but expected a list of \(x, y, metres\)"),
        ([("a", 1, 1)], r"anchor 0 is \('a', 1, 1\), but expected \(x, y, metres\)"),
        ([(1, 1, 1)] * 4097, "a frame takes 1 to 4096 anchors, but got 4097"),
        ([(1, 1)], r"anchor 0 is \(1, 1\), but expected \(x, y, metres\)"),
        ([(1, 1, 1), (96, 1, 1)], "anchor 1 at x 96, y 1 is outside the frame of 96 columns and 64 rows"),
        ([(1, float("nan"), 1)], "anchor 0 at x 1, y nan is outside the frame"),
        ([(1, 1, 0)], "anchor 0 is at 0 m, but expected a positive number"),
        ([(1, 1, float("inf"))], "anchor 0 is at inf m, but expected a positive number"),
    ],
)
def test_impossible_anchors_are_refused(metric: DepthRuntime, anchors: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metric.infer(scene(), anchors=anchors)


def test_anchors_that_do_not_determine_the_scale_are_refused(metric: DepthRuntime) -> None:
    runtime = DepthRuntime(metric.engine, of_kind(metric.manifest, DepthKind.INVERSE_RELATIVE))
    with pytest.raises(CalibrationError, match="needs 2 points or more where it has a value, but got 1"):
        runtime.infer(scene(), anchors=[(12, 30, 1)])
    with pytest.raises(CalibrationError, match=r"all points are between 1 and 1\.1 m"):
        runtime.infer(scene(), anchors=[(12, 30, 1), (36, 30, 1.1)])
    with pytest.raises(CalibrationError, match="the points contradict the map"):
        runtime.infer(scene(), anchors=[(12, 30, 1), (60, 30, 3)])
    with pytest.raises(UsageError, match="anchors are those of one image; give images of a batch one by one"):
        runtime.infer(scene()[None], anchors=[(12, 30, 1)])
