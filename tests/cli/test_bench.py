"""``mvde bench``: table, output files, comparison with an earlier report, and errors."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde import cli
from mvde.artifact import read_manifest, write_manifest
from mvde.bench import peaks
from mvde.camera import Camera
from mvde.manifest import EngineManifest
from mvde.runtime.mounting import Mounting
from tests.runtime.floor_rooms import picture, room_depth

pytest.importorskip("openvino")

OFFSET_M, GAIN_M = 0.5, 4.0  # of the tiny graph in tests/conftest.py


@pytest.fixture(autouse=True)
def short_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_SIZES", (128,))
    monkeypatch.setattr(peaks, "_SECONDS_PER_SIZE", 0.02)
    monkeypatch.setattr(peaks, "_KERNEL_SECONDS", 0.01)
    monkeypatch.setattr(peaks, "_COPY_BYTES", 1 << 20)


def bench(folder: Path, *arguments: object) -> int:
    return cli.execute(["bench", "--engine-dir", str(folder), *map(str, arguments)])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The error line on stderr."""
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: "))
    return line


@pytest.fixture(scope="module")
def engines(engine_folder: Path) -> Path:
    return engine_folder.parent


@pytest.fixture
def old_report(engines: Path, tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    assert bench(engines, "--frames", 30, "--json", path) == 0
    return path


def edited(path: Path, change: Any) -> Path:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    return path


def make_dataset(root: Path, depth_m: float) -> Path:
    """Write three grey images, whose depth the tiny engine computes exactly, with ground truth ``depth_m``."""
    from PIL import Image

    for kind in ("rgb", "depth"):
        (root / kind).mkdir(parents=True)
    for index, level in enumerate((50, 100, 200)):
        Image.fromarray(np.full((32, 48, 3), level, np.uint8)).save(root / "rgb" / f"{index}.png")
        truth = depth_m or OFFSET_M + GAIN_M * level / 255
        np.save(root / "depth" / f"{index}.npy", np.full((32, 48), truth if depth_m >= 0 else 0, np.float32))
    return root


def test_the_table_and_the_files_say_what_ran(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"bench.{suffix}" for suffix in ("json", "md", "html")]
    options = ["--frames", 3, "--json", files[0], "--markdown", files[1], "--html", files[2]]
    assert bench(engines, "--engine", "fp32", *options) == 0
    out = capsys.readouterr().out
    for words in ("computes in", "p99.9", "jitter", "pre (mean)", "first frame", "warm after", "memory"):
        assert words in out
    stored = json.loads(files[0].read_text())
    (engine,) = stored["engines"]
    assert (engine["id"], engine["executed_precision"]) == ("openvino:fp32", "fp32")
    assert len(engine["samples_us"]["infer"]) == 3
    assert stored["machine"]["num_cpus"] >= 1
    assert "| computes in | fp32 |" in files[1].read_text()
    assert files[2].read_text().startswith("<!doctype html>")


def test_pacing_and_concurrency_add_their_rows(engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(engines, "--duration", 0.2, "--paced", 50, "--concurrency", 2) == 0
    out = capsys.readouterr().out
    assert "age of result" in out
    assert "throughput (threads)" in out.replace("\n", " ") or "(threads)" in out


def test_a_mounting_adds_what_the_floor_costs(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    camera, mounting = Camera.from_fov(60.0, None, (32, 48)), Mounting(0.6, 15.0)
    (tmp_path / "images").mkdir()
    seen = picture(room_depth(camera, mounting) * 0.8)
    for name, pixels in (("seen", seen), ("unseen", np.full_like(seen, 40))):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "mount.yaml").write_text("height_m: 0.6\npitch_deg: 15\n")
    report, numbers = tmp_path / "bench.json", (camera.fx, camera.fy, camera.cx, camera.cy)
    of_frames = ["--images", tmp_path / "images", "--duration", 0.1, "--mounting", tmp_path / "mount.yaml"]
    of_data = ["--data", make_dataset(tmp_path / "data", 0), "--camera", ",".join(map(str, numbers))]
    assert bench(engines, *of_frames, *of_data, "--json", report) == 0
    found = json.loads(report.read_text())["engines"][0]["floor"]
    assert found["num_frames"] == 2 * found["num_used"] > 0
    assert 0 < found["added"]["p50_ms"] < 50
    out = " ".join(capsys.readouterr().out.split())
    assert "scale from the floor" in out
    assert f"{found['num_used']} of {found['num_frames']}" in out
    assert bench(engines, *of_frames) == 2
    assert "needs the camera of the frame, and metric assumes none: give --camera or --fov" in error_of(capsys)
    assert bench(engines, "--mounting", tmp_path / "absent.yaml") == 2
    assert "absent.yaml" in error_of(capsys)


def test_accuracy_is_of_the_engine_that_was_timed(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, page = tmp_path / "bench.json", tmp_path / "bench.html"
    data = make_dataset(tmp_path / "data", 0)
    assert bench(engines, "--frames", 3, "--data", data, "--json", report, "--html", page) == 0
    accuracy = json.loads(report.read_text())["engines"][0]["accuracy"]
    assert accuracy["num_images"] == 3
    # Ground truth is the closed form; only float32 rounding differs.
    assert accuracy["abs_rel"] < 1e-5
    assert accuracy["delta1"] == 1
    assert "AbsRel" in capsys.readouterr().out
    assert "true depth" in page.read_text()


def test_accuracy_is_for_the_camera_that_is_given(
    engine_folder: Path, tmp_path: Path, edit_manifest: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder = Path(shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name))
    focal = {"depth_kind": "metric_focal", "canonical_focal": 0.5, "focal_convention": "horizontal"}
    edit_manifest(folder / "engine.json", lambda plain: plain.update(focal))
    data, report = make_dataset(tmp_path / "data", 0), tmp_path / "bench.json"
    found = {}
    for words, options in (("assumed", []), ("given", ["--camera", "48,48,23.5,15.5"])):  # f / W of 1: twice as far
        assert bench(folder.parent, "--frames", 2, "--data", data, "--json", report, *options) == 0
        plain = json.loads(report.read_text())
        assert plain["settings"]["data"].endswith(f"camera {words}")
        found[words] = plain["engines"][0]["accuracy"]["abs_rel"]
    assert found == {"assumed": pytest.approx(0, abs=1e-5), "given": pytest.approx(1, abs=1e-5)}
    capsys.readouterr()
    assert bench(folder.parent, "--fov", "60x60") == 2
    assert "--fov would have no effect without --data" in error_of(capsys)


def test_accuracy_does_not_need_pytorch(engines: Path, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", 3.0)
    script = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = sys.modules["transformers"] = None
from mvde import cli
from mvde.bench import peaks
peaks._SIZES, peaks._SECONDS_PER_SIZE = (64,), 0.01
sys.exit(cli.execute(["bench", "--engine-dir", {str(engines)!r}, "--frames", "2", "--data", {str(data)!r}], debug=True))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "AbsRel" in done.stdout


def test_an_earlier_report_gives_ratios(engines: Path, old_report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The same engine twice on one machine: noise stays far below a factor of 20.
    assert bench(engines, "--frames", 30, "--compare", old_report, "--max-regression", 20) == 0
    assert "new / old" in capsys.readouterr().out


def test_a_regression_is_exit_status_1_after_the_report_was_written(
    engines: Path, old_report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def far_faster(plain: dict) -> None:
        """Set frame times to 3 µs, faster than the tiny engine by more than noise."""
        samples = plain["engines"][0]["samples_us"]
        samples.update({stage: [1] * len(times) for stage, times in samples.items()})

    new = tmp_path / "new.json"
    edited(old_report, far_faster)
    arguments = ["--frames", 30, "--compare", old_report, "--max-regression", 1.05, "--json", new]
    assert bench(engines, *arguments) == 1
    assert "slower than the old report by more than 1.05 in the median: tiny 32x48 openvino:fp32" in error_of(capsys)
    assert json.loads(new.read_text())["comparisons"][0]["p50"]["ratio"] > 1.05
    assert bench(engines, "--frames", 30, "--compare", old_report) == 0, "ratios alone judge nothing"


def test_another_machine_is_a_warning_without_a_limit_and_refused_with_one(
    engines: Path, old_report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(old_report, lambda plain: plain["machine"].update(cpu="another CPU"))
    assert bench(engines, "--frames", 3, "--compare", old_report) == 0
    assert "warning: the old report is from another machine: cpu was another CPU" in capsys.readouterr().err
    assert bench(engines, "--frames", 3, "--compare", old_report, "--max-regression", 1.05) == 1
    assert "another machine (cpu was another CPU" in error_of(capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(schema_version=1), "schema_version 1, but this mvde requires 2"),
        (lambda plain: plain["settings"].update(frames="other"), "different frames"),
        (lambda plain: plain["engines"][0].update(id="openvino:bf16"), "no engine is in both"),
    ],
)
def test_a_report_that_does_not_fit_is_one_line(
    engines: Path, old_report: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    edited(old_report, change)
    assert bench(engines, "--frames", 3, "--compare", old_report) == 1
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--duration", "0"], 2, "positive duration"),
        (["--frames", "0"], 2, "positive duration"),
        (["--paced", "0"], 2, "positive rate"),
        (["--concurrency", "0"], 2, "at least 1"),
        (["--cpus", "9999"], 2, "no CPU 9999; it may use"),
        (["--cpus", "all"], 2, "expected CPU numbers"),
        (["--engine", "fp17"], 2, "[BACKEND:]PRECISION"),
        (["--engine", "onnxruntime:fp16"], 1, "mvde build --engine onnxruntime:fp16"),
        (["--fit", "zoom"], 2, "'zoom' is not one of 'stretch', 'letterbox', 'crop'"),
        (["--max-regression", "1.05"], 2, "--compare old.json"),
        (["--compare", "missing.json"], 1, "there is no report missing.json"),
        (["--compare", "missing.json", "--max-regression", "0"], 2, "a ratio of times, e.g. 1.05"),
        (["--data", "missing"], 1, "missing/rgb is not a folder"),
        (["--data", "missing", "--format", "unknown"], 2, "'unknown' is not one of 'folder', 'synthetic'"),
        (["--format", "nyu"], 2, "would have no effect without --data"),
    ],
)
def test_bad_input_is_one_line(
    engines: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert bench(engines, *arguments) == status
    assert message in error_of(capsys)


def test_a_data_set_without_ground_truth_is_refused_before_anything_is_measured(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset(tmp_path / "data", -1)
    assert bench(engines, "--duration", 1e6, "--data", data) == 1
    assert "has no ground truth: none of the 3 frames checked" in error_of(capsys)
    for path in (data / "depth").iterdir():
        path.unlink()
    assert bench(engines, "--duration", 1e6, "--data", data) == 1
    assert "has no depth" in error_of(capsys)


def test_an_engine_of_another_machine_is_refused(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder = tmp_path / "engines" / "tiny"
    shutil.copytree(next(engines.iterdir()), folder)
    blob = folder / "engine.blob"
    manifest = read_manifest(blob)
    assert isinstance(manifest, EngineManifest)
    record = dataclasses.replace(manifest.engine, cpu_features=("quantum",))
    write_manifest(dataclasses.replace(manifest, engine=record), blob)
    assert bench(folder.parent, "--frames", 3) == 1
    assert "built for a CPU with quantum, which this one lacks; build it again here" in error_of(capsys)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pinning needs Linux")
def test_a_pinned_run_says_where_it_ran(engines: Path, tmp_path: Path) -> None:
    cpu, report = min(os.sched_getaffinity(0)), tmp_path / "bench.json"
    arguments = ["bench", "--engine-dir", str(engines), "--frames", "2", "--cpus", str(cpu), "--json", str(report)]
    # Pinned before NumPy is imported, as on the command line; peaks are skipped, since they take seconds.
    script = f"""
import sys
from mvde import cli
from mvde.bench import host
pin = host.pin
def pin_and_shorten(cpus):
    assert "numpy" not in sys.modules
    pin(cpus)
    from mvde.bench import peaks
    peaks._SIZES, peaks._SECONDS_PER_SIZE, peaks._COPY_BYTES = (64,), 0.01, 1 << 20
host.pin = pin_and_shorten
sys.exit(cli.execute({arguments!r}))
"""
    subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=True)
    stored = json.loads(report.read_text())
    assert (stored["machine"]["cpus"], stored["settings"]["cpus"]) == (str(cpu), [cpu])
