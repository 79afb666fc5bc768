"""The frame's camera: one frame's metres are the same whatever part of it the network sees, and how.

The engine is a stand-in that says how far a ball of 1 m is, as its radius in the input tells for the canonical camera.
That is what a network trained for a canonical camera has learnt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.artifact import GraphArtifact
from mvde.camera import Camera
from mvde.contract import DepthKind, FocalConvention
from mvde.engines.base import EngineInfo
from mvde.errors import UsageError
from mvde.manifest import EngineManifest
from mvde.precision import Precision
from mvde.records import EngineParity, EngineRecord, ParityReport, Tolerance
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.frame_camera import camera_factor, input_camera
from mvde.runtime.placement import place
from mvde.runtime.scan_settings import ScanSettings
from mvde.stats import STATS, depth_to_patch_stats

SIZE, RESOLUTION = (120, 200), (32, 48)
CAMERA = Camera(150.0, 140.0, 97.0, 63.0, SIZE)
DISTANCE_M = 4.0
"""Of the ball, whose picture has ``CAMERA``'s focal lengths over its distance as radii in pixels."""
CONVENTIONS = [
    (FocalConvention.GEOMETRIC, 0.9),
    (FocalConvention.HORIZONTAL, 0.7),
    (FocalConvention.PIXELS, 25.0),
]
FITS = ["stretch", "letterbox", "crop"]


class FakeEngine:
    """Says one number for every pixel of every image."""

    def __init__(self, value: float, resolution: tuple[int, int] = RESOLUTION) -> None:
        self.value = value
        self.info = EngineInfo("openvino:fp32", "openvino", Precision.FP32, "fp32", "a CPU", resolution, 1, "1")

    def infer(self, images: np.ndarray) -> np.ndarray:
        return np.full(images.shape[:3], self.value, np.float32)

    def layers(self) -> str:
        return ""

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def manifest(write_graph: Callable[..., GraphArtifact], tmp_path_factory: pytest.TempPathFactory) -> EngineManifest:
    graph = write_graph(tmp_path_factory.mktemp("graph"), resolution=RESOLUTION).manifest
    shared = {field.name: getattr(graph, field.name) for field in dataclasses.fields(graph) if field.name != "parity"}
    report = ParityReport(0.0, 0.0, 0.0, 0.0, 1)
    return EngineManifest(
        **shared,
        engine=EngineRecord("openvino:fp32", "openvino", Precision.FP32, "fp32", "CPU", "1", (), {}, "0" * 64),
        parity=EngineParity("the fp32 graph", Tolerance(1e-4, 1e-3, 1e-3), graph.parity, report),
    )


def of_kind(
    manifest: EngineManifest, kind: DepthKind, focal: float | None = None, convention: FocalConvention | None = None
) -> EngineManifest:
    return dataclasses.replace(
        manifest, depth_kind=kind, unit=kind.unit, canonical_focal=focal, focal_convention=convention
    )


def radii_in_the_input(fit: str) -> tuple[float, float]:
    """Radii (x, y) in pixels of the network's input of the ball's picture, by the boxes of the placement."""
    placed = place(SIZE, RESOLUTION, fit)
    down, across = (t / s for t, s in zip(placed.target_box.size, placed.source_box.size, strict=True))
    return CAMERA.fx / DISTANCE_M * across, CAMERA.fy / DISTANCE_M * down


def canonical_depth(fit: str, convention: FocalConvention, focal: float) -> float:
    """Distance in metres at which the canonical camera sees the ball of 1 m with these radii."""
    x, y = radii_in_the_input(fit)
    height, width = RESOLUTION
    match convention:
        case FocalConvention.GEOMETRIC:
            return focal * math.sqrt(width * height / (x * y))
        case FocalConvention.HORIZONTAL:
            return focal * width / x
        case FocalConvention.PIXELS:
            return focal / ((x + y) / 2)


@pytest.mark.parametrize(("convention", "focal"), CONVENTIONS)
@pytest.mark.parametrize("fit", FITS)
def test_metres_of_a_frame_do_not_depend_on_the_fit(
    manifest: EngineManifest, fit: str, convention: FocalConvention, focal: float
) -> None:
    said = canonical_depth(fit, convention, focal)
    own = of_kind(manifest, DepthKind.METRIC_FOCAL, focal, convention)
    frame = np.zeros((*SIZE, 3), np.uint8)
    result = DepthRuntime(FakeEngine(said), own).infer(frame, fit, camera=CAMERA)
    box = result.placement.source_box
    np.testing.assert_allclose(result.depth[box.slices], DISTANCE_M, rtol=1e-6)
    assert (result.unit, result.depth_kind, result.camera_assumed) == ("m", DepthKind.METRIC_FOCAL, False)
    assert result.camera_factor == pytest.approx(DISTANCE_M / said)
    assert result.placement == place(SIZE, RESOLUTION, fit)
    inverse = of_kind(manifest, DepthKind.INVERSE_CANONICAL, focal, convention)
    result = DepthRuntime(FakeEngine(1 / said), inverse).infer(frame, fit, camera=CAMERA)
    assert (result.unit, result.camera_assumed) == ("1/u", False)
    np.testing.assert_allclose(result.depth[box.slices], 1 / DISTANCE_M, rtol=1e-6)
    np.testing.assert_allclose(result.as_depth()[box.slices], DISTANCE_M, rtol=1e-6)
    assert np.isnan(result.as_depth()).sum() == result.depth.size - math.prod(box.size)


@pytest.mark.parametrize("fit", FITS)
def test_the_inputs_camera_projects_where_the_placement_puts_the_pixel(fit: str) -> None:
    placed = place(SIZE, RESOLUTION, fit)
    camera = input_camera(CAMERA, placed)
    source, target = placed.source_box, placed.target_box
    assert camera.size == RESOLUTION
    for (u, v), (x, y) in (
        ((source.left - 0.5, source.top - 0.5), (target.left - 0.5, target.top - 0.5)),
        ((source.right - 0.5, source.bottom - 0.5), (target.right - 0.5, target.bottom - 0.5)),
    ):
        # The ray through a corner of the box in the frame meets the corner of the box in the input.
        assert (u - CAMERA.cx) / CAMERA.fx == pytest.approx((x - camera.cx) / camera.fx)
        assert (v - CAMERA.cy) / CAMERA.fy == pytest.approx((y - camera.cy) / camera.fy)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("kind", [DepthKind.METRIC_FOCAL, DepthKind.INVERSE_CANONICAL])
def test_statistics_are_those_of_the_scaled_map(
    manifest: EngineManifest, random_images: Callable[..., np.ndarray], fit: str, kind: DepthKind
) -> None:
    class Slanted(FakeEngine):
        def infer(self, images: np.ndarray) -> np.ndarray:
            return 1 + images.astype(np.float32).mean(axis=-1) / 100

    own = of_kind(manifest, kind, 0.9, FocalConvention.GEOMETRIC)
    frame = random_images(*SIZE, 3)
    plain, known = DepthRuntime(Slanted(0), own, stats=STATS), DepthRuntime(Slanted(0), own, CAMERA, STATS)
    result, assumed = known.infer(frame, fit), plain.infer(frame, fit)
    factor = camera_factor(own, CAMERA, result.placement) / camera_factor(own, None, result.placement)
    scale = 1 / factor if kind.is_inverse else factor
    assert factor != pytest.approx(1, rel=0.01)
    assert result.stat_names == STATS
    np.testing.assert_allclose(result.depth, assumed.depth * scale, rtol=1e-6)
    np.testing.assert_array_equal(known.patch_stats(frame, fit), result.stats)
    if fit == "stretch":  # of a map that is multiplied before its statistics are computed
        small = plain.infer(np.zeros((*RESOLUTION, 3), np.uint8)).depth
        assert small.shape == RESOLUTION
    by_name = dict(zip(STATS, (result.stats / np.where(assumed.stats == 0, 1, assumed.stats)).T, strict=True))
    seen = assumed.stats[:, STATS.index("valid")] > 0
    for name, power in {"mean": 1, "var": 2, "grad": 1, "min": 1, "max": 1, "valid": 0}.items():
        np.testing.assert_allclose(by_name[name][seen], scale**power, rtol=1e-6)
    assert (result.stats[~seen] == 0).all()


def test_statistics_of_a_frame_of_the_models_size_are_those_of_its_depth(
    manifest: EngineManifest, random_images: Callable[..., np.ndarray]
) -> None:
    class Slanted(FakeEngine):
        def infer(self, images: np.ndarray) -> np.ndarray:
            return 1 + images.astype(np.float32).mean(axis=-1) / 100

    own = of_kind(manifest, DepthKind.METRIC_FOCAL, 0.9, FocalConvention.GEOMETRIC)
    camera = Camera.from_fov(60, None, RESOLUTION)
    result = DepthRuntime(Slanted(0), own, camera, STATS).infer(random_images(*RESOLUTION, 3))
    expected = depth_to_patch_stats(result.depth[None], 16, STATS)[0]
    np.testing.assert_allclose(result.stats, expected, rtol=2e-5)


ASSUMED = {
    ("stretch", FocalConvention.GEOMETRIC): 1.0,
    ("stretch", FocalConvention.HORIZONTAL): 1.0,
    ("stretch", FocalConvention.PIXELS): 1.0,
    # 120x200 -> 29x48 of 32x48: sqrt(29/32); 48/48; (48/200 + 29/120) / (48/200 + 32/120)
    ("letterbox", FocalConvention.GEOMETRIC): 0.9519716382329886,
    ("letterbox", FocalConvention.HORIZONTAL): 1.0,
    ("letterbox", FocalConvention.PIXELS): 0.9506578947368423,
    # 120x180 of 120x200: sqrt(200/180); 200/180; (48/180 + 32/120) / (48/200 + 32/120)
    ("crop", FocalConvention.GEOMETRIC): 1.0540925533894598,
    ("crop", FocalConvention.HORIZONTAL): 1.1111111111111112,
    ("crop", FocalConvention.PIXELS): 1.0526315789473684,
}
"""f / f_canonical of a frame of 120x200 in an input of 32x48 if the canonical camera is that of the whole frame."""


@pytest.mark.parametrize(("convention", "focal"), CONVENTIONS)
@pytest.mark.parametrize("fit", FITS)
def test_without_a_camera_the_canonical_one_is_that_of_the_whole_frame(
    manifest: EngineManifest, fit: str, convention: FocalConvention, focal: float
) -> None:
    expected = ASSUMED[fit, convention]
    frame = np.zeros((*SIZE, 3), np.uint8)
    for kind, scale in ((DepthKind.METRIC_FOCAL, expected), (DepthKind.INVERSE_CANONICAL, 1 / expected)):
        result = DepthRuntime(FakeEngine(2.5), of_kind(manifest, kind, focal, convention)).infer(frame, fit)
        assert result.camera_factor == pytest.approx(expected, rel=1e-14)
        assert result.camera_assumed
        seen = result.depth[result.placement.source_box.slices]
        np.testing.assert_allclose(seen, 2.5 * scale, rtol=1e-6)


@pytest.mark.parametrize(("convention", "focal"), CONVENTIONS)
@pytest.mark.parametrize("fit", FITS)
def test_the_assumed_camera_is_one_camera_of_the_frame_whatever_the_fit(
    manifest: EngineManifest, fit: str, convention: FocalConvention, focal: float
) -> None:
    own = of_kind(manifest, DepthKind.METRIC_FOCAL, focal, convention)
    placed, stretch = place(SIZE, RESOLUTION, fit), place(SIZE, RESOLUTION, "stretch")
    unit = Camera(1.0, 1.0, 99.5, 59.5, SIZE)  # square pixels
    side = focal / input_camera(unit, stretch).focal(convention)
    camera = dataclasses.replace(unit, fx=side, fy=side)
    assert camera_factor(own, camera, placed) == pytest.approx(camera_factor(own, None, placed), rel=1e-14)


@pytest.mark.parametrize("kind", [kind for kind in DepthKind if not kind.has_canonical_camera])
@pytest.mark.parametrize("fit", FITS)
def test_kinds_without_a_canonical_camera_are_the_networks_with_any_camera(
    manifest: EngineManifest, kind: DepthKind, fit: str
) -> None:
    runtime = DepthRuntime(FakeEngine(2.5), of_kind(manifest, kind))
    for camera in (None, CAMERA):
        result = runtime.infer(np.zeros((*SIZE, 3), np.uint8), fit, camera=camera)
        assert (result.depth[result.placement.source_box.slices] == 2.5).all()
        assert (result.camera_factor, result.camera_assumed) == (1.0, False)


def test_a_stream_and_a_batch_take_the_camera_too(manifest: EngineManifest) -> None:
    own = of_kind(manifest, DepthKind.METRIC_FOCAL, 0.5, FocalConvention.HORIZONTAL)
    frames = [np.zeros((*size, 3), np.uint8) for size in ((64, 80), (32, 48))]
    fov = lambda size: Camera.from_fov(90, None, size)  # noqa: E731
    for runtime, camera in ((DepthRuntime(FakeEngine(2), own, fov), None), (DepthRuntime(FakeEngine(2), own), fov)):
        for result in runtime.stream(frames, camera=camera):
            np.testing.assert_allclose(result.depth, 2, rtol=1e-6)  # 90° is f / W of 1/2
            assert not result.camera_assumed
    batch = DepthRuntime(FakeEngine(2), own).infer(np.stack([frames[0]] * 3), camera=Camera(80, 80, 40, 32, (64, 80)))
    np.testing.assert_allclose(batch.depth, 4, rtol=1e-6)
    assert (batch.depth.shape, batch.stats.shape, batch.placement.source_size) == ((3, 64, 80), (3, 6, 3), (64, 80))
    np.testing.assert_allclose(batch.stats[..., 0], 4, rtol=1e-6)


def test_a_camera_of_frames_of_another_size_is_refused(manifest: EngineManifest) -> None:
    own = of_kind(manifest, DepthKind.METRIC_FOCAL, 0.5, FocalConvention.HORIZONTAL)
    runtime = DepthRuntime(FakeEngine(2), own, CAMERA)
    frame = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    with pytest.raises(UsageError, match="frames of 120x200, but this frame is 200x120"):
        runtime.infer(frame)
    with pytest.raises(UsageError, match="frames of 120x200"):
        next(runtime.stream([frame]))
    runtime.infer(frame, camera=CAMERA.scaled((200, 120)))


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        (("mean", "median"), "stats has 'median'"),
        ("mean", "stats has 'mean'"),
        ((), "stats has"),
        (("mean", "mean"), "names a column twice"),
    ],
)
def test_statistics_that_do_not_exist_are_refused_at_load(
    manifest: EngineManifest, engine_folder: Path, stats: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        DepthRuntime.load(FakeEngine(1), manifest=manifest, stats=stats)
    with pytest.raises(UsageError, match=message):
        DepthRuntime.load(engine_folder, stats=stats)


def test_statistics_are_chosen_at_load(
    engine_folder: Path, random_images: Callable[..., np.ndarray], manifest: EngineManifest
) -> None:
    image = random_images(*RESOLUTION, 3)
    with DepthRuntime.load(engine_folder, stats=["valid", "max", "mean"]) as runtime:
        result = runtime.infer(image)
        assert result.stat_names == ("valid", "max", "mean")
        np.testing.assert_array_equal(
            result.stats, depth_to_patch_stats(result.depth[None], 16, ("valid", "max", "mean"))[0]
        )
        np.testing.assert_array_equal(runtime.patch_stats(image), result.stats)
        assert runtime.manifest.stats == ("mean", "var", "grad")


def test_the_reciprocal_is_invalid_where_the_map_is_no_positive_number(manifest: EngineManifest) -> None:
    class Sky(FakeEngine):
        def infer(self, images: np.ndarray) -> np.ndarray:
            depth = super().infer(images)
            depth[0, 0, :6] = (0, -1, np.nan, np.inf, 1e-42, 0.5)
            return depth

    frame = np.zeros((*RESOLUTION, 3), np.uint8)
    result = DepthRuntime(Sky(4.0), of_kind(manifest, DepthKind.INVERSE_RELATIVE)).infer(frame)
    depth = result.as_depth()
    assert depth.dtype == np.float32
    assert np.isnan(depth[0, :5]).all()
    assert depth[0, 5] == 2
    assert (depth[1:] == 0.25).all()
    np.testing.assert_array_equal(result.depth[0, :6], np.array([0, 0, 0, 0, 1e-42, 0.5], np.float32))
    metric = DepthRuntime(Sky(4.0), manifest).infer(frame).as_depth()
    assert np.isnan(metric[0, :4]).all()
    assert metric[0, 5] == 0.5


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("convention", "focal"), CONVENTIONS)
def test_the_result_says_which_camera_its_metres_are_for(
    manifest: EngineManifest, fit: str, convention: FocalConvention, focal: float
) -> None:
    own = of_kind(manifest, DepthKind.METRIC_FOCAL, focal, convention)
    runtime, frames = DepthRuntime(FakeEngine(1.0), own), np.zeros((2, *SIZE, 3), np.uint8)
    assumed = runtime.infer(frames[0], fit)
    assert assumed.camera_assumed
    assert assumed.camera is not None
    assert (assumed.camera.size, assumed.camera.fx) == (SIZE, assumed.camera.fy)
    assert (assumed.camera.cx, assumed.camera.cy) == (99.5, 59.5)
    # Given explicitly, the assumed camera changes nothing.
    given = runtime.infer(frames[0], fit, camera=assumed.camera)
    assert given.camera_factor == pytest.approx(assumed.camera_factor, rel=1e-12)
    np.testing.assert_allclose(given.depth, assumed.depth, rtol=1e-6)
    for result in (runtime.infer(frames[0], fit, camera=CAMERA), runtime.infer(frames, fit, camera=CAMERA)):
        assert (result.camera, result.camera_assumed) == (CAMERA, False)


def test_a_kind_without_a_canonical_camera_has_the_one_that_was_given(manifest: EngineManifest) -> None:
    own, frame = of_kind(manifest, DepthKind.METRIC), np.zeros((*SIZE, 3), np.uint8)
    assert DepthRuntime(FakeEngine(1.0), own).infer(frame).camera is None
    assert DepthRuntime(FakeEngine(1.0), own, CAMERA).infer(frame).camera == CAMERA
    assert next(DepthRuntime(FakeEngine(1.0), own, lambda size: CAMERA).stream([frame])).camera == CAMERA


@pytest.mark.parametrize("fit", FITS)
def test_a_wall_has_its_points_and_its_description_whatever_the_fit(manifest: EngineManifest, fit: str) -> None:
    """A wall across the view, of which every fit sees another part: flat points, and the same way ahead."""
    settings = ScanSettings(height_m=1.0, increment_deg=4.0, support_deg2=20.0)
    runtime = DepthRuntime(FakeEngine(DISTANCE_M), of_kind(manifest, DepthKind.METRIC), CAMERA, scan=settings)
    result = runtime.infer(np.zeros((*SIZE, 3), np.uint8), fit)
    points = result.points()
    rows, columns = np.nonzero(np.isfinite(points[..., 2]))
    assert len(rows) == math.prod(result.placement.source_box.size)
    found = points[rows, columns]
    np.testing.assert_allclose(found[:, 2], DISTANCE_M, rtol=1e-6)
    np.testing.assert_allclose(found[:, 0] * CAMERA.fx / DISTANCE_M + CAMERA.cx, columns, atol=1e-4)
    np.testing.assert_allclose(found[:, 1] * CAMERA.fy / DISTANCE_M + CAMERA.cy, rows, atol=1e-4)
    described = result.describe()
    assert described.nearest is not None
    assert described.nearest.name == "ahead"
    assert described.nearest.nearest_m == pytest.approx(DISTANCE_M, rel=0.016)  # a cell of the histogram
    assert not described.camera_assumed
