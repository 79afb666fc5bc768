"""``mvde calibrate scale``: from pictures and known depths to a calibration file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde.calibration.record import CameraRecord, read_calibration
from mvde.cli import execute

pytest.importorskip("openvino")

LEVELS = (20, 60, 120, 200)
"""Grey levels of the four columns of a frame; the engine's depth is 0.5 m + 4 m * level / 255."""


def depth_of(level: Any) -> Any:
    return 0.5 + 4 * level / 255


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    columns = np.repeat(np.array(LEVELS, np.uint8), 24)
    for number in range(2):
        image = np.repeat(np.tile(columns, (64, 1))[..., None], 3, axis=-1)
        Image.fromarray(image).save(folder / "rgb" / f"{number}.png")
        depth_mm = np.round(1250 * depth_of(columns.astype(np.float64)))
        Image.fromarray(np.tile(depth_mm, (64, 1)).astype(np.uint16)).save(folder / "depth" / f"{number}.png")
    return folder


def table(folder: Path, points: list[str]) -> Path:
    path = folder / "points.csv"
    path.write_text("\n".join(["frame,x,y,metres", *points, ""]))
    return path


def all_points(scale: float, shift: float = 0.0) -> list[str]:
    return [
        f"rgb/{number}.png,{24 * index + 12},32,{scale * depth_of(level) + shift}"
        for number in range(2)
        for index, level in enumerate(LEVELS)
    ]


def test_points_make_a_calibration(
    frames: Path, engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = table(frames, all_points(1.25))
    out = ["--out", str(tmp_path / "made"), "--camera", "90,91,47.5,31.5"]
    assert execute(["calibrate", "scale", str(engine_folder), "--reference-points", str(points), *out]) == 0
    found = read_calibration(tmp_path / "made/tiny-32x48.calibration.json")
    assert found.scale == pytest.approx(1.25, rel=1e-3)
    assert (found.shift, found.fit, found.frame, found.resolution) == (0, "stretch", (64, 96), (32, 48))
    assert found.camera == CameraRecord(90, 91, 47.5, 31.5)
    manifest = json.loads(next(engine_folder.glob("*.json")).read_text())
    assert (found.graph_sha256, found.engine) == (manifest["engine"]["onnx_sha256"], "openvino:fp32")
    assert (found.measured.num_points, found.measured.num_frames) == (8, 2)
    assert found.measured.distance_m == pytest.approx((1.25 * depth_of(20), 1.25 * depth_of(200)))
    shown = capsys.readouterr().out
    assert "calibrated: one scale" in shown
    assert "8 points in 2 frames, 1.02 to 4.55 m; held-out median AbsRel 0." in " ".join(shown.split())


def test_frames_of_a_depth_camera_make_a_calibration(frames: Path, engine_folder: Path, tmp_path: Path) -> None:
    call = ["calibrate", "scale", str(engine_folder), "--depth", str(frames), "--out", str(tmp_path)]
    assert execute(call) == 0
    found = read_calibration(tmp_path / "tiny-32x48.calibration.json")
    assert found.scale == pytest.approx(1.25, rel=1e-3)
    assert (found.measured.num_points, found.measured.num_frames, found.camera) == (4000, 2, None)
    assert execute([*call, "--depth-scale", "500", "--fit", "letterbox"]) == 0
    found = read_calibration(tmp_path / "tiny-32x48.calibration.json")
    assert found.scale == pytest.approx(2.5, rel=1e-3)
    assert found.fit == "letterbox"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: [*p, "rgb/0.png,96,0,1"], "line 10: pixel x 96, y 0 is outside 0.png, which has 96 columns and 64"),
        (lambda p: p[:4], "a calibration needs at least 5 points where the network has a value, but got 4"),
        (lambda p: [f"rgb/0.png,12,{y},1" for y in range(9)], "all points are between 1 and 1 m"),
        (lambda p: all_points(1.0, 1.0), "the relative error changes by"),
        (lambda p: [*p, "rgb/none.png,1,1,1"], "none.png"),
        (lambda p: [*p, "other.png,1,1,1"], "other.png is 50x60, but the first is 64x96"),
    ],
)
def test_unusable_points_are_refused_and_nothing_is_written(
    frames: Path,
    engine_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[str]], list[str]],
    message: str,
) -> None:
    Image.new("RGB", (60, 50)).save(frames / "other.png")
    points = table(frames, change(all_points(1.25)))
    out = ["--out", str(tmp_path / "made")]
    assert execute(["calibrate", "scale", str(engine_folder), "--reference-points", str(points), *out]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "made").exists()


def test_a_distorting_lens_is_refused_for_a_calibration_holds_none(
    frames: Path, engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = tmp_path / "camera.json"
    lens = {"distortion_model": "plumb_bob", "distortion_coefficients": [-0.3, 0.1, 0, 0]}
    camera.write_text(json.dumps({"fx": 90, "fy": 91, "cx": 47.5, "cy": 31.5, "width": 96, "height": 64, **lens}))
    call = ["calibrate", "scale", str(engine_folder), "--depth", str(frames), "--camera", str(camera)]
    assert execute([*call, "--out", str(tmp_path / "made")]) == 2
    assert "plumb_bob distortion, which a calibration cannot hold; rectify the frames" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_known_depths_are_one_of_two(engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--reference-points", "a.csv", "--depth", str(tmp_path)]):
        assert execute(["calibrate", "scale", str(engine_folder), *options]) == 2
        assert "give --reference-points or --depth, one of them" in capsys.readouterr().err
    assert execute(["calibrate", "scale", "x", "--reference-points", "a.csv", "--depth-scale", "2"]) == 2
    assert "--depth-scale would have no effect without --depth" in capsys.readouterr().err


@pytest.fixture
def calibration(frames: Path, engine_folder: Path, tmp_path: Path) -> Path:
    call = ["calibrate", "scale", str(engine_folder), "--reference-points", str(table(frames, all_points(1.25)))]
    assert execute([*call, "--out", str(tmp_path)]) == 0
    return tmp_path / "tiny-32x48.calibration.json"


def test_run_writes_calibrated_millimetres(
    frames: Path, engine_folder: Path, tmp_path: Path, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["run", str(frames / "rgb/0.png"), "-e", str(engine_folder), "--calibration", str(calibration)]
    assert execute([*call, "--out", str(tmp_path / "depth")]) == 0
    assert "calibrated: one scale, measured on openvino:fp32" in capsys.readouterr().out
    with Image.open(tmp_path / "depth/0.depth.png") as picture:
        np.testing.assert_allclose(np.asarray(picture)[32, 12::24], 1250 * depth_of(np.array(LEVELS)), rtol=1e-3)
    with np.load(tmp_path / "depth/0.stats.npz") as arrays:
        assert str(arrays["calibrated"]) == "one scale"
        assert str(arrays["depth_kind"]) == "metric"


def test_eval_holds_calibrated_depth_against_metres(
    frames: Path, engine_folder: Path, tmp_path: Path, calibration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["eval", str(engine_folder), "--data", str(frames), "--json", str(tmp_path / "eval.json")]
    assert execute(call) == 0
    before = json.loads((tmp_path / "eval.json").read_text())
    assert execute([*call, "--calibration", str(calibration)]) == 0
    after = json.loads((tmp_path / "eval.json").read_text())
    assert (before["calibrated"], after["calibrated"]) == (None, "one scale")
    assert after["valid_range"] == pytest.approx([0.625, 5.625], rel=1e-3)
    errors = [one["alignments"]["none"]["overall"]["abs_rel"] for one in (before, after)]
    assert errors[0] == pytest.approx(0.2, abs=0.02)
    assert errors[1] < 0.02
    assert "calibrated: one scale" in " ".join(capsys.readouterr().out.split())
    assert execute(["eval", "nano.safetensors", "--data", str(frames), "--calibration", str(calibration)]) == 2
    assert "a calibration is of an engine, but nano.safetensors is a checkpoint" in capsys.readouterr().err


def test_info_shows_a_calibration(
    calibration: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    assert execute(["info", str(calibration)]) == 0
    shown = capsys.readouterr().out
    for expected in ("one scale", "metric to metres: scale 1.25", "64x96, stretch, no camera", "8 points in 2 frames"):
        assert expected in shown
    assert execute(["info", str(calibration), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(calibration.read_text())
    calibration.write_text("{}")
    assert execute(["info", str(calibration)]) == 1
    assert "is not a calibration of mvde" in capsys.readouterr().err
