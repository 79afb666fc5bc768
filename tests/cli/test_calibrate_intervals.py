"""``mvde calibrate intervals`` on an engine with closed-form depth: what it writes, refuses and says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.calibration.conformal import Scores, bound_factors, interval_factors
from mvde.calibration.record import MeasuredRecord, read_calibration, write_calibration
from mvde.cli import execute
from mvde.runtime.depth import DepthRuntime

pytest.importorskip("openvino")

SIZE = (64, 96)
CAMERA = "90,90,47.5,31.5"


def write_scenes(folder: Path, num_scenes: int, name: str = "scene") -> Path:
    """Write flat grey frames, two of each scene; the truth of scene ``i`` is the engine's depth times exp(i/100-0.2).

    The engine's depth is 0.5 m + 4 m * level / 255.
    """
    rng = np.random.default_rng(0)
    for part in ("rgb", "depth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for scene in range(num_scenes):
        for frame in range(2):
            level = int(rng.integers(20, 200))
            where = f"{name}{scene}-{frame}" if name else f"{2 * scene + frame:04d}"
            Image.new("RGB", SIZE[::-1], (level,) * 3).save(folder / "rgb" / f"{where}.png")
            depth_m = (0.5 + 4 * level / 255) * np.exp(scene / 100 - 0.2)
            np.save(folder / "depth" / f"{where}.npy", np.full(SIZE, depth_m, np.float32))
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 40)


def call(engine: Path, data: Path, out: Path, *options: str) -> list[str]:
    return ["calibrate", "intervals", str(engine), "--data", str(data), "--camera", CAMERA, "-o", str(out), *options]


def test_intervals_hold_a_share_of_the_scenes(
    engine_folder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(call(engine_folder, scenes, tmp_path)) == 0
    found = read_calibration(tmp_path / "tiny-32x48.calibration.json")
    assert found.intervals is not None
    tables = found.intervals
    assert (found.scale, found.measured, found.frame, found.fit) == (None, None, SIZE, "stretch")
    assert (tables.coverage, tables.nearest_coverage, tables.mean.edges_m) == (0.9, 0.95, ())
    in_order = np.array(sorted(range(40), key=str))  # of the files' names
    truth = Scores(np.ones(40), in_order / 100 - 0.2, np.arange(40))  # all patches of a scene are alike
    low, high = interval_factors(truth, (), 0.9)
    assert tables.mean.lo == pytest.approx(low, rel=1e-4)
    assert tables.mean.hi == pytest.approx(high, rel=1e-4)
    assert tables.nearest.factors == pytest.approx(bound_factors(truth, (), 0.95), rel=1e-4)
    # Of scenes left out 0.9 * 41 = 36.9 of 40 have to be inside.
    assert 37 <= ((np.log(low) <= truth.log_ratio) & (truth.log_ratio <= np.log(high))).sum() < 40
    held = tables.held_out
    assert (held.num_scenes, held.num_frames, held.num_patches) == (40, 80, 480)
    assert held.width == pytest.approx(1)
    shown = " ".join(capsys.readouterr().out.split())
    assert "intervals: 90% for a patch's mean; 95% for its nearest" in shown
    assert "warning: 40 scenes are few" in shown
    with DepthRuntime.load(engine_folder, calibration=found, stats=("lo", "mean", "near", "hi")) as runtime:
        result = runtime.infer(np.full((*SIZE, 3), 51, np.uint8))
    assert result.stat_names == ("lo", "mean", "near", "hi")
    assert result.calibrated is None  # metres are the network's own
    lo, hi, near = tables.mean.lo[0], tables.mean.hi[0], tables.nearest.factors[0]
    np.testing.assert_allclose(result.stats, [[1.3 * lo, 1.3, 1.3 * near, 1.3 * hi]] * 6, rtol=1e-4)


@pytest.mark.slow
def test_intervals_are_added_to_a_scale_and_are_of_its_metres(
    engine_folder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny-32x48.calibration.json"
    assert execute(call(engine_folder, scenes, tmp_path)) == 0
    alone = read_calibration(path)
    measured = MeasuredRecord(20, 5, (0.5, 4.0), 0.03, 0.02)
    scaled = dataclasses.replace(alone, scale=2.0, measured=measured, intervals=None)
    write_calibration(dataclasses.replace(scaled, camera=None), path)
    assert execute(call(engine_folder, scenes, tmp_path)) == 1
    assert "the calibration is of no camera, but this frame has a camera" in capsys.readouterr().err
    write_calibration(scaled, path)
    assert execute(call(engine_folder, scenes, tmp_path)) == 0
    both = read_calibration(path)
    assert alone.intervals is not None
    assert both.intervals is not None
    assert dataclasses.replace(both, intervals=None) == scaled
    assert both.intervals.mean.hi[0] * 2 == pytest.approx(alone.intervals.mean.hi[0], rel=1e-5)
    assert execute(["info", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "one scale" in shown
    assert "in scenes left out: " in shown


@pytest.mark.slow
def test_run_writes_intervals(engine_folder: Path, scenes: Path, tmp_path: Path) -> None:
    assert execute(call(engine_folder, scenes, tmp_path)) == 0
    picture = scenes / "rgb/scene0-0.png"
    path = str(tmp_path / "tiny-32x48.calibration.json")
    assert execute(["run", str(picture), "-e", str(engine_folder), "--calibration", path, "-o", str(tmp_path)]) == 0
    with np.load(tmp_path / "scene0-0.stats.npz") as arrays:
        names = arrays["columns"].tolist()
        rows = arrays["stats"]
    assert names[-3:] == ["lo", "hi", "near"]
    assert (rows[..., names.index("lo")] < rows[..., names.index("mean")]).all()
    assert (rows[..., names.index("hi")] > rows[..., names.index("mean")]).all()


@pytest.mark.slow
def test_scenes_count_not_frames(engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = write_scenes(tmp_path / "few", 31)
    assert execute(call(engine_folder, few, tmp_path)) == 1
    assert "intervals need at least 32 scenes, but got 31: half of the error" in capsys.readouterr().err
    flat = write_scenes(tmp_path / "flat", 40, name="")  # without a scene in the names
    assert execute(call(engine_folder, flat, tmp_path)) == 1
    assert "at least 32 scenes, but got 1" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.slow
def test_what_has_no_intervals_is_refused(
    engine_folder: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_camera = ["calibrate", "intervals", str(engine_folder), "--data", str(scenes), "-o", str(tmp_path)]
    assert execute(without_camera) == 1
    assert "the camera of scene0-0.png is not known" in capsys.readouterr().err
    assert execute(call(engine_folder, scenes, tmp_path, "--coverage", "90")) == 2
    assert "coverage is the share of patches inside, 0.5 to below 1, e.g. 0.9, but got 90" in capsys.readouterr().err
    assert execute(call(engine_folder, scenes, tmp_path, "--coverage", "0.99")) == 1
    assert "needs 99 scenes or more, but got 40" in capsys.readouterr().err
    assert execute(["calibrate", "intervals", str(engine_folder)]) == 2
    assert "name the data set: --data FOLDER" in capsys.readouterr().err
