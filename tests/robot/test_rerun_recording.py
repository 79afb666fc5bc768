"""Recordings for Rerun: verified by Rerun's own check, complete or not there, with the frames' numbers in them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.errors import OutputError, UsageError
from mvde.robot.rerun_recording import RerunRecording
from mvde.robot.viewed import Viewed
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.scan_settings import ScanSettings

pytest.importorskip("openvino")
pytest.importorskip("rerun")

STAMP_NS = 1_700_000_000_000_000_000
CAMERA = Camera(70.0, 71.0, 39.5, 29.5, (60, 80))


@pytest.fixture(scope="module")
def frames(engine_folder: Path) -> list[Viewed]:
    """Three frames of random pixels, a tenth of a second apart."""
    images = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)
    with DepthRuntime.load(engine_folder, camera=CAMERA) as runtime:
        results = [runtime.infer(image) for image in images]
    results[0].depth[:5] = np.nan
    return [
        Viewed(index, image, result, STAMP_NS + index * 10**8)
        for index, (image, result) in enumerate(zip(images, results, strict=True))
    ]


def record(path: Path, frames: list[Viewed]) -> None:
    recording = RerunRecording(path)
    for viewed in frames:
        recording.show(viewed)
    recording.close()


def rerun(*arguments: object, home: Path) -> str:
    """Output of Rerun's own command, which reports its use unless it runs in CI."""
    script = "import sys; from rerun_cli.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"CI": "1", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_recording_passes_the_check_of_rerun_and_holds_every_frame(tmp_path: Path, frames: list[Viewed]) -> None:
    path = tmp_path / "run.rrd"
    record(path, frames)
    assert "1 file verified without error" in rerun("rrd", "verify", path, home=tmp_path)
    printed = rerun("rrd", "print", path, home=tmp_path)
    for entity in (
        "/world/optical/points",
        "/world/optical/camera/image",
        "/world/optical/camera/depth",
        "/patch/mean",
        "/patch/grad",
        "/latency/infer_ms",
    ):
        lines = [line for line in printed.splitlines() if f" {entity} " in line]
        assert sum(int(line.split(" with ")[1].split()[0]) for line in lines) == 3, entity


@pytest.mark.filterwarnings("ignore::Warning")
def test_points_are_those_of_the_frame_with_its_colours(tmp_path: Path, frames: list[Viewed]) -> None:
    path = tmp_path / "run.rrd"
    record(path, frames[1:2])
    (row,) = (row for row in rows_of(path, "/world/optical/points") if row.get("Points3D:positions"))
    v, u = (axis.reshape(-1) for axis in np.mgrid[0:60:4, 0:80:4])
    z = frames[1].result.depth[v, u]
    expected = np.stack([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z], axis=1)
    np.testing.assert_allclose(row["Points3D:positions"], expected, rtol=1e-5, atol=1e-6)
    red, green, blue = frames[1].image[v, u].astype(np.uint32).T  # Rerun packs 0xRRGGBBAA
    np.testing.assert_array_equal(row["Points3D:colors"], red << 24 | green << 16 | blue << 8 | 255)


def rows_of(path: Path, entity: str) -> Iterator[dict[str, Any]]:
    """Rows of an entity, by Rerun's reader."""
    reader = pytest.importorskip("rerun.chunk").RrdReader(path)
    for chunk in reader.stream().to_chunks():
        if str(chunk.entity_path) == entity:
            columns = chunk.to_record_batch().to_pydict()
            yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


@pytest.mark.filterwarnings("ignore::Warning")
def test_depth_is_read_back_in_millimetres_with_the_camera_and_the_times(tmp_path: Path, frames: list[Viewed]) -> None:
    path = tmp_path / "run.rrd"
    record(path, frames)
    rows = sorted(rows_of(path, "/world/optical/camera/depth"), key=lambda row: row["frame"])
    assert [row["frame"] for row in rows] == [0, 1, 2]
    assert [np.datetime64(row["time"], "ns").astype(int) for row in rows] == [STAMP_NS + k * 10**8 for k in range(3)]
    for row, viewed in zip(rows, frames, strict=True):
        depth_mm = np.array(row["DepthImage:buffer"][0], np.uint8).view(np.uint16).reshape(60, 80)
        expected_m = np.nan_to_num(viewed.result.depth)
        np.testing.assert_allclose(depth_mm / row["DepthImage:meter"][0], expected_m, atol=5.1e-4)
    assert not np.array(rows[0]["DepthImage:buffer"][0], np.uint8).view(np.uint16).reshape(60, 80)[:5].any()
    pinholes = [row for row in rows_of(path, "/world/optical/camera") if "Pinhole:image_from_camera" in row]
    # Columns first; a pixel's centre is at a half in Rerun.
    np.testing.assert_allclose(np.ravel(pinholes[0]["Pinhole:image_from_camera"]), [70, 0, 0, 0, 71, 0, 40, 30, 1])


@pytest.mark.filterwarnings("ignore::Warning")
def test_obstacles_of_a_scan_are_points_on_its_level_plane(tmp_path: Path, engine_folder: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    settings = ScanSettings(height_m=0.6, support_deg2=1, increment_deg=6, max_height_m=5)
    with DepthRuntime.load(engine_folder, camera=CAMERA, scan=settings) as runtime:
        result = runtime.infer(image)
    scan = result.scan
    assert scan is not None
    record(tmp_path / "run.rrd", [Viewed(0, image, result, STAMP_NS)])
    (row,) = (row for row in rows_of(tmp_path / "run.rrd", "/world/optical/scan") if row.get("Points3D:positions"))
    (text,) = rows_of(tmp_path / "run.rrd", "/description")
    assert text["TextDocument:text"] == [str(result.describe())]
    near = np.isfinite(scan.ranges)
    assert near.any()
    ranges, bearings = scan.ranges[near], scan.angle_min + np.flatnonzero(near) * scan.angle_increment
    expected = np.stack([ranges * np.cos(bearings), ranges * np.sin(bearings), 0 * ranges], axis=1)
    np.testing.assert_allclose(row["Points3D:positions"], expected, rtol=1e-5, atol=1e-6)


def test_depth_without_a_unit_is_no_depth_image(tmp_path: Path, frames: list[Viewed]) -> None:
    result = dataclasses.replace(frames[0].result, depth_kind=DepthKind.INVERSE_RELATIVE, camera=None)
    path = tmp_path / "run.rrd"
    record(path, [dataclasses.replace(frames[0], result=result)])
    printed = rerun("rrd", "print", path, home=tmp_path)
    assert " /world/optical/camera/relative " in printed
    assert "DepthImage" not in printed
    assert "Pinhole" not in printed


def test_the_file_appears_when_it_is_complete(tmp_path: Path, frames: list[Viewed]) -> None:
    path = tmp_path / "new" / "run.rrd"
    recording = RerunRecording(path)
    recording.show(frames[0])
    assert not path.exists()
    recording.close()
    assert [one.name for one in path.parent.iterdir()] == ["run.rrd"]


def test_a_recording_is_not_overwritten_and_has_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "run.rrd"
    path.write_bytes(b"older")
    with pytest.raises(OutputError, match=r"run\.rrd exists, and a recording is not overwritten; give another name"):
        RerunRecording(path)
    assert path.read_bytes() == b"older"
    with pytest.raises(UsageError, match=r"a recording for Rerun is a \.rrd file, but got .*run\.mcap"):
        RerunRecording(tmp_path / "run.mcap")


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    record(tmp_path / "run.rrd", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_rerun_that_is_switched_off_is_an_error_and_no_empty_file(tmp_path: Path) -> None:
    script = "import pathlib, mvde.robot.rerun_recording as r; r.RerunRecording(pathlib.Path('a.rrd'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"RERUN": "off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Rerun is switched off by the variable RERUN; unset it" in done.stderr
    assert list(tmp_path.iterdir()) == []
