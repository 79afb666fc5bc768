"""Automatic builds in `mvde run` and `mvde bench`: conditions, source graph, locking, and refusals."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.artifact import GraphArtifact, list_engines, read_manifest, write_manifest
from mvde.cli import autobuild
from mvde.cli.shared_options import EngineSelection
from mvde.errors import ArtifactError, MissingDependencyError
from mvde.manifest import EngineManifest
from mvde.runtime.depth import DepthRuntime
from tests.signals import accept_sigint

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

FP32 = ("--engine", "openvino:fp32")
BENCH = ("bench", "--frames", "1", *FP32)
RUN = ("run", "photo.png")
BUILDING = "mvde: building openvino:fp32 from export/tiny-32x48.onnx (not built yet)\n"


@pytest.fixture
def workspace(tmp_path: Path, write_graph: Callable[..., GraphArtifact], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with a freshly exported graph and a photograph."""
    write_graph(tmp_path / "export")
    Image.fromarray(np.full((60, 80, 3), 100, np.uint8)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mvde(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the command line in its own process group, as a shell does."""
    command = [sys.executable, "-m", "mvde", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command,
        start_new_session=True,
        env={**os.environ, **environment},
        preexec_fn=accept_sigint,
        **streams,
    )


def error_of(capfd: pytest.CaptureFixture[str]) -> str:
    """The error line on stderr."""
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("mvde: error: "))
    return line


def built(folder: Path = Path("engines")) -> list[str]:
    return [engine.path.parent.name for engine in list_engines(folder)]


@contextlib.contextmanager
def held_lock(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with (folder / autobuild.LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("arguments", [(*RUN, *FP32), BENCH])
def test_what_is_missing_is_built_once_and_said_in_one_line(
    workspace: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert cli.execute(arguments) == 0
    captured = capfd.readouterr()
    lines = captured.err.splitlines(keepends=True)
    assert [line for line in lines if not line.startswith("warning: ")] == [BUILDING]
    assert "openvino:fp32" in captured.out
    assert built() == ["tiny-32x48-openvino-fp32"]
    made = (workspace / "engines" / built()[0] / "engine.json").stat().st_mtime_ns
    assert cli.execute(arguments) == 0
    assert "building" not in capfd.readouterr().err
    assert (workspace / "engines" / built()[0] / "engine.json").stat().st_mtime_ns == made


def test_without_an_id_the_best_one_here_is_built(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(RUN) == 0
    assert capfd.readouterr().err.count("mvde: building openvino:") == 1
    assert built()[0] in {"tiny-32x48-openvino-fp32", "tiny-32x48-openvino-bf16"}
    assert (workspace / "depth" / "photo.depth.png").is_file()


def test_other_folders_than_the_usual_ones(workspace: Path) -> None:
    (workspace / "export").rename(workspace / "graphs")
    folders = ("--export-dir", "graphs", "--engine-dir", "there")
    assert cli.execute([*BENCH, *folders]) == 0
    assert built(Path("there")) == ["tiny-32x48-openvino-fp32"]
    assert not (workspace / "engines").exists()


def test_typed_graphs_are_not_another_choice(workspace: Path) -> None:
    assert cli.execute(["lower", "export/tiny-32x48.onnx", "--to", "fp16"]) == 0
    assert cli.execute([*RUN, *FP32]) == 0
    assert built() == ["tiny-32x48-openvino-fp32"]


def test_several_graphs_are_listed_and_one_can_be_chosen(
    workspace: Path, write_graph: Callable[..., GraphArtifact], capfd: pytest.CaptureFixture[str]
) -> None:
    write_graph(workspace / "export", resolution=(64, 64))
    write_graph(workspace / "export", resolution=(64, 64), batch=2)
    for arguments in ((*RUN, *FP32), BENCH):
        assert cli.execute(arguments) == 1
        error = error_of(capfd)
        assert "no engine openvino:fp32 is built, and export/ holds several graphs to build it from: " in error
        for graph in ("tiny-32x48.onnx", "tiny-64x64.onnx", "tiny-64x64-b2.onnx"):
            assert f"(export/{graph})" in error
        assert "say which with --res, --batch or --name" in error
    assert cli.execute([*BENCH, "--res", "64"]) == 1
    assert "tiny-32x48" not in error_of(capfd)
    assert built() == []
    assert cli.execute([*BENCH, "--res", "32x48", "--res", "64", "--batch", "1"]) == 0
    assert built() == ["tiny-32x48-openvino-fp32", "tiny-64x64-openvino-fp32"]


@pytest.mark.parametrize("arguments", [(*RUN, *FP32), BENCH])
def test_no_build_names_the_command(
    workspace: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert cli.execute([*arguments, "--no-build", "--engine-dir", "there"]) == 1
    command = "mvde build export/tiny-32x48.onnx --engine openvino:fp32 --out there"
    assert f"no engine openvino:fp32 is built, and --no-build was given; build it: {command}" in error_of(capfd)
    assert not (workspace / "there").exists()
    assert cli.execute(command.split()[1:]) == 0
    assert cli.execute([*arguments, "--no-build", "--engine-dir", "there"]) == 0


def test_without_a_graph_the_engine_is_missing_as_ever(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(workspace / "export")
    assert cli.execute([*RUN, *FP32]) == 1
    assert "make it with `mvde build --engine openvino:fp32`" in error_of(capfd)
    assert cli.execute([*RUN, "--engine", "engines/other"]) == 1
    assert "there is no engine at engines/other" in error_of(capfd)
    assert not (workspace / "engines").exists()


@pytest.mark.parametrize("engine_id", ["openvino:fp8", "onnxruntime:bf16"])
def test_an_id_that_does_not_work_here_is_refused(
    workspace: Path, capfd: pytest.CaptureFixture[str], engine_id: str
) -> None:
    assert cli.execute([*RUN, "--engine", engine_id]) == 1
    assert f"engine {engine_id} does not work on this machine" in error_of(capfd)
    assert built() == []


def test_known_errors_are_not_accepted_in_silence(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mvde.cli import building
    from mvde.engines.base import BuildOptions

    requests: list[building.BuildRequest] = []
    monkeypatch.setattr(building, "build_one", lambda request: requests.append(request))
    monkeypatch.setattr(building, "warn", lambda report: None)
    (missing,) = autobuild._missing(EngineSelection(engine=("openvino:fp32",)))
    autobuild._build_once(missing)
    assert [request.options for request in requests] == [BuildOptions()]
    assert not requests[0].options.accept_known_bad


def test_a_stale_engine_is_refused_and_not_built_again(
    workspace: Path, write_graph: Callable[..., GraphArtifact], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute([*RUN, *FP32]) == 0
    blob = workspace / "engines" / built()[0] / "engine.blob"
    manifest = read_manifest(blob)
    assert isinstance(manifest, EngineManifest)
    stale = dataclasses.replace(manifest.engine, library_version="1.0")
    write_manifest(dataclasses.replace(manifest, engine=stale), blob)
    before = blob.with_suffix(".json").read_bytes()
    capfd.readouterr()
    for arguments in ((*RUN, *FP32), RUN, BENCH):
        assert cli.execute(arguments) == 1
        assert "build it again here: mvde build --engine openvino:fp32 --name tiny --res 32x48" in error_of(capfd)
    stale = dataclasses.replace(manifest.engine, onnx_sha256="0" * 64)
    write_manifest(dataclasses.replace(manifest, engine=stale), blob)
    assert cli.execute(RUN) == 1
    assert "was built from another graph than" in error_of(capfd)
    write_manifest(
        dataclasses.replace(manifest, engine=dataclasses.replace(manifest.engine, library_version="1.0")), blob
    )
    assert blob.with_suffix(".json").read_bytes() == before


def test_loading_never_builds(workspace: Path) -> None:
    for source in (None, "fp32", "openvino:fp32"):
        with pytest.raises(ArtifactError, match="mvde build"):
            DepthRuntime.load(source)
    assert not (workspace / "engines").exists()


@pytest.mark.parametrize(
    ("package", "engine_id", "extra"),
    [("onnxruntime", "openvino:fp32", "mvde[onnxruntime]"), ("onnx", "openvino:int8", "mvde[export]")],
)
def test_a_missing_package_is_one_line_that_names_its_extra(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, package: str, engine_id: str, extra: str
) -> None:
    absent = workspace / "absent"
    absent.mkdir()
    (absent / f"{package}.py").write_text(f"raise ModuleNotFoundError('absent', name={package!r})")
    monkeypatch.syspath_prepend(str(absent))
    with pytest.raises(MissingDependencyError) as refused:
        autobuild.build_missing(EngineSelection(engine=(engine_id,)))
    assert f"pip install '{extra}'" in str(refused.value)
    assert "in the process that builds the engine" in str(refused.value.__cause__)
    assert built() == []


def test_a_benchmark_is_of_a_process_that_built_nothing(workspace: Path) -> None:
    script = f"""
import sys
from mvde.cli import execute

if __name__ == "__main__":
    status = execute({["bench", "--frames", "1", *FP32]!r})
    print(status, "onnxruntime" in sys.modules, "mvde.engines.build" in sys.modules)
"""
    (workspace / "bench.py").write_text(script)
    done = subprocess.run([sys.executable, "bench.py"], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-1] == "0 False False", done.stderr
    assert BUILDING in done.stderr


def test_two_processes_at_once_build_once(workspace: Path) -> None:
    processes = [mvde(*RUN, *FP32, "--out", f"depth{number}") for number in range(2)]
    errors = "".join(process.communicate(timeout=300)[1] for process in processes)
    assert [process.returncode for process in processes] == [0, 0], errors
    assert errors.count("mvde: building") == 1
    assert built() == ["tiny-32x48-openvino-fp32"]


def test_whoever_waits_for_the_lock_says_so_and_takes_what_was_built(workspace: Path, engine_folder: Path) -> None:
    with held_lock(workspace / "engines"):
        process = mvde(*RUN, *FP32)
        assert line_of(process) == "mvde: waiting for another process that is building in engines/\n"
        shutil.copytree(engine_folder, workspace / "engines" / engine_folder.name)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "building" not in error


def test_ctrl_c_while_waiting_ends_everything(workspace: Path) -> None:
    with held_lock(workspace / "engines"):
        process = mvde(*RUN, *FP32)
        assert "waiting" in line_of(process)
        os.killpg(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert error == "mvde: interrupted; no partial file was left\n"
    assert cli.execute([*RUN, *FP32]) == 0


def test_a_holder_that_was_killed_leaves_no_lock(workspace: Path) -> None:
    script = "import sys, time; from mvde.cli.autobuild import _locked; from pathlib import Path\n"
    script += "with _locked(Path('engines')): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait(timeout=60)
    started = time.monotonic()
    with autobuild._locked(workspace / "engines"):
        assert time.monotonic() - started < 5
    assert (workspace / "engines" / autobuild.LOCK_FILE).is_file()
