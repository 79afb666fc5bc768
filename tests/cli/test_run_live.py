"""``mvde run`` on live sources: files and times of the frames, budgets, and sources that stop."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from tests.robot import live_servers as servers

pytest.importorskip("openvino")
pytest.importorskip("av")


@pytest.fixture
def robot(engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with an engine."""
    shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: "))
    return line


def test_frames_of_a_stream_are_written_with_their_times(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.time()
    with servers.mjpeg_server(num_frames=100, interval_s=0.05) as url:
        assert cli.execute(["run", f"{url}/live", "--stop-after", "4", "--out", "results"]) == 0
    printed = capsys.readouterr().out
    (path,) = (robot / "results").glob("127.0.0.1-*.frames.jsonl")
    assert f"4 frames in results/, times in {path.name}; " in printed
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    indices = [int(row["name"].rpartition("-")[2]) for row in rows]
    assert len(rows) == 4
    assert indices == sorted(set(indices))
    assert all(begun < row["received"] < time.time() and row["age_ms"] > 0 and not row["is_late"] for row in rows)
    for row, index in zip(rows, indices, strict=True):  # the tiny engine's depth is 0.5 m + 4 m * grey / 255
        depth_m = np.asarray(Image.open(robot / "results" / f"{row['name']}.depth.png")) / 1000
        np.testing.assert_allclose(depth_m, 0.5 + 4 * servers.level(index) / 255, atol=0.03)
        assert depth_m.shape == servers.SIZE
    assert len(list((robot / "results").iterdir())) == 3 * 4 + 1


def test_frames_of_a_stream_are_steady_over_those_that_were_inferred(robot: Path) -> None:
    with servers.mjpeg_server(num_frames=100, interval_s=0.05) as url:
        assert cli.execute(["run", f"{url}/live", "--stop-after", "4", "--stabilize"]) == 0
    (path,) = (robot / "depth").glob("*.frames.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    expected, last = 0, 0.0
    for row in rows:
        gap, last = row["received"] - last, row["received"]
        expected = expected + 1 if gap < 1 else 1  # a machine under load begins anew after a second
        assert int(np.load(robot / "depth" / f"{row['name']}.stats.npz")["num_steady"]) == expected


def test_results_that_come_late_are_marked_and_counted(
    robot: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvde.runtime.depth import DepthRuntime

    infer, slow = DepthRuntime.infer, iter((0.0, 0.6, 0.0))

    def sometimes_slow(*arguments: object, **options: object) -> object:
        time.sleep(next(slow))
        return infer(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DepthRuntime, "infer", sometimes_slow)
    with servers.mjpeg_server(num_frames=200, interval_s=0.02) as url:
        assert cli.execute(["run", f"{url}/live", "--stop-after", "3", "--budget", "500"]) == 0
    (path,) = (robot / "depth").glob("*.frames.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["is_late"] for row in rows] == [False, True, False]
    assert [row["age_ms"] > 500 for row in rows] == [False, True, False]
    assert ", 1 late" in capsys.readouterr().out
    _first, second, third = (int(row["name"].rpartition("-")[2]) for row in rows)
    assert third - second > 10  # 0.6 s of frames were passed over


def test_a_frame_older_than_the_budget_is_not_inferred(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with servers.file_server(servers.mpeg(12)) as url:
        assert cli.execute(["run", f"{url}/clip.ts", "--budget", "0.0001"]) == 1
    assert "older than --budget 0.0001 before its turn; give a larger one" in error_line(capsys)
    assert not list((robot / "depth").iterdir())


def test_a_budget_that_no_frame_meets_ends_an_endless_stream(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with servers.mjpeg_server(num_frames=10_000, interval_s=0.002) as url:
        assert cli.execute(["run", f"{url}/live", "--budget", "0.0001"]) == 2
    assert "each of 100 frames in a row was older than the budget of 0.0001 ms before its turn" in error_line(capsys)


def test_a_stream_that_stops_keeps_what_was_written(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with servers.mjpeg_server(num_frames=5, interval_s=0.1) as url:
        assert cli.execute(["run", f"{url}/stalls", "--timeout", "1"]) == 1
    printed = capsys.readouterr()
    assert "stopped after 5 frames: no frame for 1 s" in printed.err
    (path,) = (robot / "depth").glob("*.frames.jsonl")
    names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
    assert names
    assert f"{len(names)} frame" in printed.out
    assert all((robot / "depth" / f"{name}.stats.npz").is_file() for name in names)


def test_a_source_that_is_not_there_writes_nothing(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["run", "/dev/video4711"]) == 1
    assert "there is no such device" in error_line(capsys)
    assert not (robot / "depth").exists()


def test_wrong_usage_of_live_sources(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["/dev/video0", "photo.jpg"], "a live source never ends, so it is the only input, but 2 were given"),
        (["udp://camera"], "cannot read udp:// addresses"),
        (["/dev/video0", "--budget", "0"], "--budget is a number above 0, but got 0"),
        (["/dev/video0", "--timeout", "nan"], "--timeout is a number above 0, but got nan"),
        (["/dev/video0", "--capture-option", "size=9"], "this source (device) takes video_size=…"),
        (
            ["photo.jpg", "--budget", "30", "--stop-after", "3"],
            "--stop-after and --budget would have no effect: none of the",
        ),
    ):
        assert cli.execute(["run", *arguments]) == 2
        assert message in error_line(capsys)
    assert not (robot / "depth").exists()
