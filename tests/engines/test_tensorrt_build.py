"""TensorRT-RTX without a GPU: parse, inspect, build, store, and every refusal on the way.

The library is loaded in child processes only: next to other inference libraries it once crashed an unrelated test.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import GraphArtifact, load_engine_artifact, read_manifest, write_manifest
from mvde.cuda.gpu import find_gpu

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed"
)
without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="for machines without a GPU")

FOR_ADA = ("--without-device", "--set", "compute_capability=8.9")


def mvde(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a child process, in ``folder``."""
    command = [sys.executable, "-m", "mvde", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one error line of a failed command."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("mvde: error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mvde(folder, "build", "--engine", "tensorrt-rtx:fp16", *arguments)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, write_graph: Callable[..., GraphArtifact]) -> Path:
    """Folder with the graph tiny-32x48 and its fp16 engine for Ada, built without a GPU."""
    folder = tmp_path_factory.mktemp("tensorrt")
    write_graph(folder / "export")
    done = build(folder, *FOR_ADA)
    assert done.returncode == 0, done.stderr
    assert "parity not measured: no device" in done.stdout
    assert "mvde prove engines/tiny-32x48-tensorrt-rtx-fp16-" in done.stdout
    return folder


def engine_of(workspace: Path) -> Path:
    (folder,) = (workspace / "engines").iterdir()
    return folder


def test_the_folder_holds_the_plan_its_manifest_and_what_to_measure_it_against(workspace: Path) -> None:
    folder = engine_of(workspace)
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "engine.plan", "engine.reference.npz"]
    with np.load(folder / "engine.reference.npz") as reference:
        assert reference["images"].shape[1:] == (32, 48, 3)
        assert reference["depth"].shape == reference["images"].shape[:3]
    manifest = load_engine_artifact(folder / "engine.plan").manifest
    record = manifest.engine
    assert (record.id, record.executed_precision, record.cpu_features) == ("tensorrt-rtx:fp16", "fp16", ())
    assert record.onnx_sha256 == read_manifest(workspace / "export" / "tiny-32x48.onnx").file.sha256
    assert record.cuda is not None
    assert record.cuda.compute_capabilities == ("8.9",)
    assert record.cuda.network.products_by_dtype == {"fp16": 1}
    assert record.options["tf32"] is False
    assert manifest.parity.measured is None


def test_the_same_build_goes_to_the_same_folder_and_another_to_another(workspace: Path) -> None:
    script = """
first, again = build(), build()
assert first.folder == again.folder
assert first.folder != build(Precision.FP16).folder
print(first.folder)
print(len(list(Path("built").iterdir())))
shutil.rmtree("built")
"""
    done = python(workspace, "import shutil\n" + script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "2"
    assert done.stdout.startswith("built/tiny-32x48-tensorrt-rtx-fp32-")


def test_info_shows_what_was_parsed_and_that_nothing_was_measured(workspace: Path) -> None:
    done = mvde(workspace, "info", str(engine_of(workspace).relative_to(workspace) / "engine.plan"))
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "100 % of the nodes compute in fp16" in shown
    assert "0 attentions" in shown
    assert "not measured: no device" in shown


@without_gpu
def test_an_unproved_engine_is_refused_without_a_gpu_for_that_reason(workspace: Path) -> None:
    done = mvde(workspace, "run", "nothing.png", "--engine", str(engine_of(workspace)))
    assert done.returncode == 1
    assert "cannot run here: it needs an NVIDIA GPU, but no NVIDIA driver is installed" in error_of(done)
    done = mvde(workspace, "prove", str(engine_of(workspace)))
    assert done.returncode == 1
    assert "it needs an NVIDIA GPU" in error_of(done)


def test_a_flipped_byte_is_refused(workspace: Path, tmp_path: Path) -> None:
    copied = _copy(engine_of(workspace), tmp_path)
    plan = bytearray((copied / "engine.plan").read_bytes())
    plan[len(plan) // 2] ^= 1
    (copied / "engine.plan").write_bytes(bytes(plan))
    done = mvde(tmp_path, "run", "nothing.png", "--engine", str(copied))
    assert done.returncode == 1
    assert "SHA-256" in error_of(done)


def test_an_engine_of_another_version_is_refused_with_the_command_that_rebuilds(
    workspace: Path, tmp_path: Path
) -> None:
    copied = _copy(engine_of(workspace), tmp_path)
    manifest = load_engine_artifact(copied / "engine.plan").manifest
    record = dataclasses.replace(manifest.engine, library_version="1.2.0")
    write_manifest(dataclasses.replace(manifest, engine=record), copied / "engine.plan")
    done = mvde(tmp_path, "run", "nothing.png", "--engine", str(copied))
    assert done.returncode == 1
    assert "built with TensorRT-RTX 1.2.0" in error_of(done)
    assert "mvde build --engine tensorrt-rtx:fp16 --name tiny --res 32x48" in error_of(done)


RTX_FP16 = ("build", "-e", "tensorrt-rtx:fp16", "--out", "nothing")
REFUSED = {
    "no capability": (
        [*RTX_FP16, "--without-device"],
        2,
        "needs --set compute_capability=CC of the GPU it is for, one of 7.5",
    ),
    "unknown capability": (
        [*RTX_FP16, "--without-device", "--set", "compute_capability=9.9"],
        1,
        "does not build for compute capability 9.9; it builds for 7.5",
    ),
    "a name": ([*RTX_FP16, "--without-device", "--set", "compute_capability=ada"], 2, "give a number such as 8.9"),
    "level": ([*RTX_FP16, *FOR_ADA, "--set", "optimization_level=9"], 2, "expected 0 to 5"),
    "hardware": (
        [*RTX_FP16, *FOR_ADA, "--set", "hardware=ampere-plus"],
        1,
        "name --set compute_capability=CC[,CC] for each GPU instead",
    ),
    "threads": ([*RTX_FP16, *FOR_ADA, "--threads", "2"], 2, "--threads is for engines on a CPU"),
    "provider": (
        [*RTX_FP16, *FOR_ADA, "--set", "provider=cuda"],
        2,
        "--set provider=cuda is not for tensorrt-rtx, which",
    ),
    "rebuilds": ([*RTX_FP16, *FOR_ADA, "--verify-builds", "3"], 2, "needs the device"),
    "fp8": (
        ["build", "-e", "tensorrt-rtx:fp8", "--out", "nothing", "--without-device", "--set", "compute_capability=7.5"],
        1,
        "fp8 needs a GPU of compute capability 8.9 or later, but this engine is for 7.5",
    ),
}


@pytest.fixture(scope="module")
def refusals(workspace: Path) -> dict[str, tuple[int, str]]:
    """Exit status and standard error of each command line in :data:`REFUSED`, all run in one process."""
    script = """
import contextlib, io, json
from mvde import cli
for key, arguments in json.loads(sys.stdin.read()).items():
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = cli.execute(arguments)
    print(json.dumps([key, status, errors.getvalue()]))
"""
    given = json.dumps({key: arguments for key, (arguments, _, _) in REFUSED.items()})
    done = python(workspace, script, given)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {key: (status, errors) for key, status, errors in told}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_built_says_why_and_writes_nothing(
    workspace: Path, refusals: dict[str, tuple[int, str]], key: str
) -> None:
    status, errors = refusals[key]
    _, expected_status, message = REFUSED[key]
    assert message in errors
    assert status == expected_status
    assert len([line for line in errors.splitlines() if line.startswith("mvde: error: ")]) == 1
    assert list((workspace / "nothing").glob("*")) == []


@without_gpu
def test_a_normal_build_without_a_gpu_names_the_way_out(workspace: Path) -> None:
    done = build(workspace)
    assert done.returncode == 1
    message = error_of(done)
    assert "no NVIDIA driver is installed" in message
    assert "--without-device --set compute_capability=CC" in message
    assert "mvde prove" in message


def test_a_list_names_what_one_command_builds(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> None:
    write_graph(tmp_path / "export")
    write_graph(tmp_path / "export", resolution=(64, 64))
    listed = [{"engine": ["tensorrt-rtx:fp16", "tensorrt-rtx:fp32"], "res": "32x48"}, {"engine": "tensorrt-rtx:fp32"}]
    (tmp_path / "engines.json").write_text(json.dumps(listed))
    done = mvde(tmp_path, "build", "--list", "engines.json", *FOR_ADA)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "engines").iterdir())
    assert names == [
        "tiny-32x48-tensorrt-rtx-fp16",
        "tiny-32x48-tensorrt-rtx-fp32",
        "tiny-64x64-tensorrt-rtx-fp32",
    ]


IN_PROCESS = """
import os, signal, sys
from pathlib import Path
import numpy as np
from mvde.artifact import load_graph
from mvde.engines.base import BuildOptions, EngineId, Graph
from mvde.engines.build import build_engine
from mvde.export.precision import lower_graph
from mvde.precision import Precision

source = load_graph(Path("export/tiny-32x48.onnx"))
images = np.zeros((1, 32, 48, 3), np.uint8)


def build(precision=Precision.FP32, lower=lower_graph, **options):
    chosen = BuildOptions(without_device=True, settings={"compute_capability": "8.9"}, **options)
    engine_id = EngineId("tensorrt-rtx", precision)
    return build_engine(source, engine_id, images, root=Path("built"), options=chosen, lower_graph=lower)
"""


def python(folder: Path, script: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script after :data:`IN_PROCESS` in a child process."""
    command = [sys.executable, "-c", IN_PROCESS + script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, input=given)


def test_ctrl_c_stops_a_build_and_leaves_nothing(workspace: Path) -> None:
    script = """
steps = []

def interrupt(phase, done, total):
    steps.append(phase)
    if len(steps) == 3:
        os.kill(os.getpid(), signal.SIGINT)

before = signal.getsignal(signal.SIGINT)
try:
    build(on_progress=interrupt)
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGINT) is before
    print("interrupted after", len(steps), [str(path) for path in Path("built").rglob("*")])
"""
    done = python(workspace, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("interrupted after ")
    assert done.stdout.rstrip().endswith("[]")


def test_an_error_of_whoever_shows_the_progress_comes_out_as_itself(workspace: Path) -> None:
    script = """
def fail(phase, done, total):
    raise ZeroDivisionError("the terminal went away")

try:
    build(on_progress=fail)
except ZeroDivisionError as error:
    print(error, [str(path) for path in Path("built").rglob("*")])
"""
    done = python(workspace, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the terminal went away []\n"


@pytest.mark.parametrize(
    ("lower", "message"),
    [
        ("lambda graph, precision, folder: graph", "would compute most products in fp32, not fp16"),
        ("promising(num_attention=12)", "0 attentions are recognised, promised 12"),
        ("promising(num_layer_norm=3)", "0 layer normalisations are recognised, promised 3"),
        ("promising(num_by_dtype={'fp16': 1, 'fp32': 1})", "100% of its nodes compute in fp16, promised 50%"),
    ],
)
def test_a_network_that_is_not_what_the_graph_promised_is_not_built(workspace: Path, lower: str, message: str) -> None:
    script = f"""
import dataclasses

def promising(**changes):
    def lower(graph, precision, folder):
        lowered = lower_graph(graph, precision, folder)
        return dataclasses.replace(lowered, lowering=dataclasses.replace(lowered.lowering, **changes))
    return lower

from mvde.errors import BackendError
try:
    build(Precision.FP16, {lower})
except BackendError as error:
    print(error)
print([str(path) for path in Path("built").rglob("*")])
"""
    done = python(workspace, script)
    assert done.returncode == 0, done.stderr
    assert message in done.stdout
    assert done.stdout.endswith("[]\n")


def test_a_full_disk_is_noticed_before_the_build(workspace: Path) -> None:
    script = """
import shutil
from collections import namedtuple
from mvde.errors import OutputError
shutil.disk_usage = lambda path: namedtuple("Usage", "total used free")(10, 10, 100)
try:
    build(on_progress=print)
except OutputError as error:
    print(error)
"""
    done = python(workspace, script)
    assert done.returncode == 0, done.stderr
    assert "needs about 0 MB on disk, but 0 MB are free; make room" in done.stdout
    assert done.stdout.count("\n") == 1


def _copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target / folder.name)
    return target / folder.name
