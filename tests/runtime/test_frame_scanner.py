"""Distances by bearing of a runtime's frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.distortion import Distortion, DistortionModel
from mvde.engines.store import find, load_engine
from mvde.errors import UsageError
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.frame_scanner import FrameScanner
from mvde.runtime.placement import Fit, place
from mvde.runtime.scan import numpy_scan
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import scan_table
from mvde.runtime.view import View

SETTINGS = ScanSettings(0.6, increment_deg=5, support_deg2=5)
CAMERA = Camera.from_fov(60.0, None, (480, 640))


def view_of(camera: Camera | None, kind: DepthKind = DepthKind.METRIC) -> View:
    return View(kind, 1.0, 1.0, False, camera=camera)


@pytest.mark.parametrize("fit", list(Fit))
def test_a_wall_is_told_alike_however_the_frame_is_fitted(fit: Fit) -> None:
    scanner, expected = FrameScanner(SETTINGS), 2.0
    for camera in (CAMERA, Camera.from_fov(60.0, None, (360, 640)), Camera.from_fov(60.0, None, (640, 480))):
        placement = place(camera.size, (96, 96), fit)
        depth = np.full((96, 96), np.nan, np.float32)
        depth[placement.target_box.slices] = expected  # bars hold nothing
        scan = scanner.scan(depth, view_of(camera), placement)
        assert scan.ranges * np.cos(scan.bearings) == pytest.approx(expected, rel=0.02)


def test_bars_do_not_count() -> None:
    placement = place((240, 640), (96, 96), "letterbox")
    depth = np.full((96, 96), 0.3, np.float32)  # what a network may say of the bars
    depth[placement.target_box.slices] = np.inf
    scan = FrameScanner(SETTINGS).scan(depth, view_of(Camera.from_fov(60.0, None, (240, 640))), placement)
    assert np.isposinf(scan.ranges).all()


def test_a_distorted_lens_bends_the_bearings_of_its_pixels() -> None:
    lens = Distortion(DistortionModel.PLUMB_BOB, (-0.3, 0.1, 0.0, 0.0, 0.0))
    bent = dataclasses.replace(CAMERA, distortion=lens)
    placement = place(CAMERA.size, (96, 96), "stretch")
    depth = np.full((96, 96), 2.0, np.float32)
    straight, wide = (FrameScanner(SETTINGS).scan(depth, view_of(one), placement) for one in (CAMERA, bent))
    assert wide.angle_max > straight.angle_max + 0.05  # barrel distortion: the frame's edges look further out
    assert wide.ranges * np.cos(wide.bearings) == pytest.approx(2.0, rel=0.05)  # a sector is 5 degrees wide
    at_input = bent.scaled((96, 96))
    assert wide.ranges.tobytes() == numpy_scan(depth, scan_table(at_input, SETTINGS)).tobytes()


def test_the_camera_is_needed_and_metres_too() -> None:
    placement, depth = place((96, 96), (96, 96), "stretch"), np.ones((96, 96), np.float32)
    with pytest.raises(UsageError, match="a scan needs the camera of the frame, and metric assumes none: give camera="):
        FrameScanner(SETTINGS).scan(depth, view_of(None), placement)
    relative = view_of(Camera.from_fov(60.0, None, (96, 96)), DepthKind.INVERSE_RELATIVE)
    with pytest.raises(
        UsageError, match=r"a scan needs a map in metres, but this one is inverse_relative, .* calibration"
    ):
        FrameScanner(SETTINGS).scan(depth, relative, placement)


def test_many_threads_and_cameras_give_the_same_bits() -> None:
    scanner, rng = FrameScanner(SETTINGS), np.random.default_rng(0)
    cameras = [Camera.from_fov(50.0 + index, None, (480, 640)) for index in range(12)]  # more than are kept
    placement = place((480, 640), (96, 96), "stretch")
    frames = [(rng.uniform(0.3, 6, (96, 96)).astype(np.float32), cameras[index % 12]) for index in range(96)]
    expected = [FrameScanner(SETTINGS).scan(depth, view_of(one), placement).ranges for depth, one in frames]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda frame: scanner.scan(frame[0], view_of(frame[1]), placement).ranges, frames))
    assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]


@pytest.mark.parametrize("settings", [0.6, {"height_m": 0.6}])
def test_what_is_no_settings_is_refused(settings: object) -> None:
    with pytest.raises(UsageError, match="expected a ScanSettings, or the file of one"):
        FrameScanner.of(settings)  # type: ignore[arg-type]


class TestRuntime:
    """The runtime hands the network's depth to the scanner."""

    SCAN = ScanSettings(0.6, increment_deg=8, support_deg2=8)

    def test_results_have_the_scan_of_the_networks_depth(
        self, engine_folder: Path, random_images: Callable, closed_form_depth: Callable, tmp_path: Path
    ) -> None:
        pytest.importorskip("openvino")
        (tmp_path / "scan.yaml").write_text("height_m: 0.6\nincrement_deg: 8\nsupport_deg2: 8\n")
        camera = Camera.from_fov(60.0, None, (32, 48))
        images = random_images(3, 32, 48, 3)
        with DepthRuntime.load(engine_folder, camera=camera, scan=tmp_path / "scan.yaml") as runtime:
            single, batch = runtime.infer(images[0]), runtime.infer(images)
            streamed = [result.scan for result in runtime.stream(list(images))]
        assert single.scan is not None
        assert batch.scan is not None
        table = scan_table(camera, self.SCAN)
        factor = single.camera_factor
        expected = np.stack(
            [numpy_scan(closed_form_depth(one).astype(np.float32) * np.float32(factor), table) for one in images]
        )
        assert single.scan.settings == self.SCAN
        assert batch.scan.ranges == pytest.approx(expected, rel=0.04, nan_ok=True)  # one cell: the closed form rounds
        assert single.scan.ranges.tobytes() == batch.scan.ranges[0].tobytes() == streamed[0].ranges.tobytes()  # type: ignore[union-attr]

    def test_without_settings_there_is_no_scan(self, engine_folder: Path, random_images: Callable) -> None:
        pytest.importorskip("openvino")
        with DepthRuntime.load(engine_folder) as runtime:
            assert runtime.infer(random_images(32, 48, 3)).scan is None

    def test_a_kind_without_metres_is_refused(self, engine_folder: Path, random_images: Callable) -> None:
        pytest.importorskip("openvino")
        engine, manifest = load_engine(find(engine_folder))
        relative = dataclasses.replace(
            manifest, depth_kind=DepthKind.SCALE_INVARIANT, unit="1", canonical_focal=None, focal_convention=None
        )
        with (
            DepthRuntime(engine, relative, Camera.from_fov(60, None, (32, 48)), scan=self.SCAN) as runtime,
            pytest.raises(UsageError, match="a scan needs a map in metres, but this one is scale_invariant"),
        ):
            runtime.infer(random_images(32, 48, 3))
