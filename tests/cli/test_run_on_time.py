"""``mvde run --deadline``: several engines of one model, what is said and written, and bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.calibration.record import write_calibration
from mvde.engines.store import find
from tests.runtime.test_calibrated import calibration_of
from tests.runtime.test_interval_columns import INTERVALS, RECORD

pytest.importorskip("openvino")

TWO_SIZES = ["--res", "32x48", "--res", "64x96"]


@pytest.fixture
def robot(engines_of_two_sizes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with engines of two resolutions and a photograph."""
    for folder in engines_of_two_sizes:
        shutil.copytree(folder, tmp_path / "engines" / folder.name)
    Image.fromarray(np.full((60, 90, 3), 51, np.uint8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_engines_their_memory_and_late_frames_are_said(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["run", "a.png", *TWO_SIZES, "--deadline", "5000"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("tiny 32x48, openvino:fp32: computes in fp32 on ")
    assert printed[1].startswith("tiny 64x96, openvino:fp32: computes in fp32 on ")
    assert all(line.endswith(" MiB of memory") and " ms alone, " in line for line in printed[:2])
    assert printed[2].startswith("deadline 5000 ms, 2 engines with ")
    assert printed[2].endswith(" MiB of memory in all, statistics of 2x3 patches")
    assert printed[-1] == "0 later than 5000 ms, 0 at 32x48, 1 at 64x96, 0 switches"
    with np.load(robot / "depth" / "a.stats.npz") as stored:
        assert stored["resolution"].tolist() == [64, 96]
        assert int(stored["patch_size"]) == 32
        np.testing.assert_allclose(stored["stats"][:, 0], 0.5 + 4 * 51 / 255, rtol=1e-5)


def test_late_frames_of_the_smallest_are_counted_and_do_not_fail(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute(["run", "a.png", *TWO_SIZES, "--deadline", "0.001"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    expected = "1 later than 0.001 ms (of these, 1 that no engine would have held), 1 at 32x48, 0 at 64x96, 0 switches"
    assert last == expected


def test_a_live_source_is_late_by_the_deadline(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    from tests.robot import live_servers as servers

    with servers.mjpeg_server(num_frames=100, interval_s=0.05) as url:
        assert cli.execute(["run", f"{url}/live", "--stop-after", "2", *TWO_SIZES, "--deadline", "0.001"]) == 0
    (path,) = (robot / "depth").glob("*.frames.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["is_late"] for row in rows] == [True, True]
    assert [row["resolution"] for row in rows] == [[32, 48]] * 2
    assert ", 2 late" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TWO_SIZES, "mvde run takes one resolution without --deadline, but --res was given 2 times; give it once"),
        (["--deadline", "0"], "--deadline is a number of milliseconds above 0, but got 0"),
        (["--deadline", "nan"], "--deadline is a number of milliseconds above 0, but got nan"),
        (
            ["-e", "fp32", "-e", "fp32", "--res", "64x96", "--res", "32x48"],
            "mvde run takes one engine without --deadline",
        ),
    ],
)
def test_wrong_usage(robot: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert cli.execute(["run", "a.png", *options]) == 2
    assert message in capsys.readouterr().err


def test_engines_of_different_models_are_refused(
    robot: Path, capsys: pytest.CaptureFixture[str], edit_manifest: object
) -> None:
    manifest = next((robot / "engines").glob("*64x96*")) / "engine.json"
    edit_manifest(manifest, lambda plain: plain.update(name="other"))  # type: ignore[operator]
    assert cli.execute(["run", "a.png", *TWO_SIZES, "--deadline", "33"]) == 2
    assert "differ in model: tiny and other; engines with a deadline are of one model" in capsys.readouterr().err


def test_a_folder_has_the_calibration_of_each_engine(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["run", "a.png", *TWO_SIZES, "--deadline", "5000", "--calibration", "calibration"]
    (robot / "calibration").mkdir()
    assert cli.execute(options) == 1
    assert "tiny 32x48 openvino:fp32 has no calibration: there is no calibration/tiny-32x48" in capsys.readouterr().err
    for number, folder in enumerate(sorted((robot / "engines").iterdir())):
        one = calibration_of(find(folder).manifest, scale=2.0 + number, frame=(60, 90))
        one = dataclasses.replace(one, camera=RECORD, intervals=INTERVALS)
        size = "x".join(map(str, one.resolution))
        write_calibration(one, robot / "calibration" / f"tiny-{size}.calibration.json")
    assert cli.execute(options) == 0
    assert "calibrated: one scale, measured on openvino:fp32" in capsys.readouterr().out
    with np.load(robot / "depth" / "a.stats.npz") as stored:
        assert stored["resolution"].tolist() == [64, 96]
        assert stored["columns"].tolist()[-3:] == ["lo", "hi", "near"]
        np.testing.assert_allclose(stored["stats"][:, 0], 3 * (0.5 + 4 * 51 / 255), rtol=1e-5)
