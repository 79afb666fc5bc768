"""``mvde export``: from a checkpoint to a graph in one command, with one-line errors."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

import numpy as np
import onnxruntime
import torch
import yaml
from PIL import Image

from mvde.artifact import load_artifact
from mvde.cli import execute
from mvde.files import scratch_folder, sha256_file
from mvde.model import DepthModel
from tests.signals import accept_sigint

Config = dict[str, object]

WIDE_CAMERA = ("--camera", "256,192,320,240", "--frame", "480x640")
"""Relative focal length sqrt(256 / 640 * 192 / 480) = 0.4."""


@pytest.fixture(scope="module")
def make_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """Factory of configurations with a tiny tower from a local directory."""

    def make(hidden_size: int = 32) -> Config:
        tower = tmp_path_factory.mktemp("tower")
        sizes = {"hidden_size": hidden_size, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
        about = {"model_type": "siglip_vision_model", "patch_size": 16, "image_size": 32, **sizes}
        (tower / "config.json").write_text(json.dumps(about))
        vit = {"name": str(tower), "tap_layers": [1, 2, 3, 4], "image_size": 32, "pretrained": False}
        return {"name": "tiny", "vit": vit, "decoder": {"c_dec": 16}}

    return make


@pytest.fixture(scope="module")
def config_file(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(yaml.safe_dump(make_config()))
    return path


@pytest.fixture(scope="module")
def checkpoint(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("runs") / "best.safetensors"
    DepthModel(config_file).save(path)
    return path


def test_checkpoint_alone_is_enough(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--checkpoint", str(checkpoint), "--res", "32", "--res", "32x64", "--out", str(tmp_path)]
    assert execute(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [
        str(tmp_path / "tiny-32x32.onnx"),
        str(tmp_path / "tiny-32x64.onnx"),
    ]
    assert "|Δdepth|/depth max" in printed[0]
    manifest = load_artifact(tmp_path / "tiny-32x64.onnx").manifest
    assert manifest.source.sha256 == sha256_file(checkpoint)
    assert manifest.resolution == (32, 64)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_graph_for_a_camera_gives_its_metres_and_says_so(
    make_config: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # table rows do not wrap
    config = make_config()
    config["decoder"] = {"c_dec": 16, "canonical_focal": 0.5}
    torch.manual_seed(1)
    DepthModel(config).save(tmp_path / "canonical.safetensors")
    arguments = ["export", "--checkpoint", str(tmp_path / "canonical.safetensors"), "--res", "32"]
    assert execute([*arguments, "--out", str(tmp_path / "canonical")]) == 0
    fov = 2 * math.degrees(math.atan(0.5 / 1.5))  # square image, three times the canonical focal length
    assert execute([*arguments, "--out", str(tmp_path / "long"), "--fov", f"{fov}x{fov}"]) == 0
    assert execute([*arguments, "--out", str(tmp_path / "wide"), *WIDE_CAMERA]) == 0
    graphs = [tmp_path / folder / "tiny-32x32.onnx" for folder in ("canonical", "long", "wide")]
    image = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    canonical, long, wide = (onnxruntime.InferenceSession(graph).run(None, {"image": image})[0] for graph in graphs)
    assert long == pytest.approx(3 * canonical, rel=1e-4)
    assert wide == pytest.approx(0.8 * canonical, rel=1e-4)
    manifest = load_artifact(graphs[1]).manifest
    assert manifest.canonical_focal == pytest.approx(1.5)
    assert manifest.valid_range == pytest.approx((0.3, 30.0))
    capsys.readouterr()
    assert execute(["info", str(graphs[1])]) == 0
    assert "field of view of a square image 36.9°" in capsys.readouterr().out


def test_configuration_with_random_weights_takes_the_native_resolution(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--config", str(config_file), "--random-weights", "--name", "timing", "--opset", "20"]
    assert execute([*arguments, "--out", str(tmp_path)]) == 0
    manifest = load_artifact(tmp_path / "timing-32x32.onnx").manifest
    assert (manifest.name, manifest.opset) == ("timing", 20)
    assert capsys.readouterr().err == ""


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The error line of a command that fails with ``status`` and writes nothing."""

    def fails(status: int, *arguments: object) -> str:
        out = tmp_path / "export"
        assert execute(["export", *map(str, arguments), "--out", str(out)]) == status
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("mvde: error: ")
        assert output.err.count("\n") == 1
        assert not out.exists() or list(out.iterdir()) == []
        return output.err

    return fails


def test_a_camera_that_is_none_or_that_the_model_does_not_know_is_one_clear_line(
    checkpoint: Path, fails: Callable[..., str]
) -> None:
    assert "'wide' is not understood" in fails(2, "--checkpoint", checkpoint, "--fov", "wide")
    assert "without a canonical camera" in fails(2, "--checkpoint", checkpoint, "--fov", "69x42")
    assert "without a canonical camera" in fails(2, "--checkpoint", checkpoint, *WIDE_CAMERA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "500,500,320,240"], "of unknown size; give --frame HxW"),
        (["--camera", "500,500"], "has 2 numbers; give four"),
        (["--camera", "500,500,320,middle", "--frame", "480x640"], "is not understood; give four numbers"),
        (["--camera", "nowhere.json"], "cannot read the camera nowhere.json: No such file"),
        (["--camera", "0,500,320,240", "--frame", "480x640"], "fx of a camera lies between 0 and"),
        (["--camera", "500,500,320,240", "--frame", "tall"], "'tall' is not understood"),
        (["--frame", "480x640"], "give --camera fx,fy,cx,cy too"),
        (["--fov", "69x42", "--camera", "500,500,320,240"], "--camera and --fov both describe"),
    ],
)
def test_a_camera_that_is_half_given_or_given_twice_is_one_clear_line(
    fails: Callable[..., str], options: list[str], message: str
) -> None:
    assert message in fails(2, *options)


def test_resolution_off_the_grid_names_the_nearest(checkpoint: Path, fails: Callable[..., str]) -> None:
    error = fails(2, "--checkpoint", checkpoint, "--res", "40x70")
    assert "40x70 is not a multiple of the patch size 16; use 32x64 or 48x80" in error


def test_resolution_that_is_no_size(checkpoint: Path, fails: Callable[..., str]) -> None:
    assert "'large' is not understood" in fails(2, "--checkpoint", checkpoint, "--res", "large")


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "partly transparent"), ("I;16", "a 16-bit grey image")])
def test_photographs_that_cannot_be_taken_for_rgb(
    mode: str, kind: str, checkpoint: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    photo = tmp_path / "photos" / "photo.png"
    photo.parent.mkdir()
    Image.new(mode, (40, 40)).save(photo)
    arguments = ["--checkpoint", checkpoint, "--res", "32", "--images", photo.parent]
    assert f"photo.png is {kind}" in fails(1, *arguments)


def test_a_folder_without_photographs(checkpoint: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ["--checkpoint", checkpoint, "--res", "32", "--images"]
    assert "holds no image" in fails(1, *arguments, tmp_path / "empty")
    assert "nowhere" in fails(1, *arguments, tmp_path / "nowhere")


def test_missing_checkpoint(tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "there is no checkpoint" in fails(1, "--checkpoint", tmp_path / "lost.safetensors", "--res", "32")


@pytest.mark.parametrize("num_bytes", [0, 7, 100, -1])
def test_truncated_checkpoint(checkpoint: Path, tmp_path: Path, fails: Callable[..., str], num_bytes: int) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(checkpoint.read_bytes()[:num_bytes])
    assert "cut.safetensors" in fails(1, "--checkpoint", cut, "--res", "32")


def test_checkpoint_of_another_architecture(
    make_config: Callable[..., Config], checkpoint: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(make_config(hidden_size=48)))
    error = fails(1, "--checkpoint", checkpoint, "--config", other, "--res", "32")
    assert "another architecture" in error


def test_configuration_without_weights_is_refused(config_file: Path, fails: Callable[..., str]) -> None:
    assert "without weights; give --checkpoint" in fails(2, "--config", config_file)


def test_random_weights_and_a_checkpoint_contradict(
    checkpoint: Path, config_file: Path, fails: Callable[..., str]
) -> None:
    assert "--random-weights requires --config" in fails(2, "--random-weights")
    arguments = ["--random-weights", "--config", config_file, "--checkpoint", checkpoint]
    assert "excludes --checkpoint" in fails(2, *arguments)


def test_configuration_with_a_typo_names_the_key(tmp_path: Path, fails: Callable[..., str]) -> None:
    typo = tmp_path / "typo.yaml"
    typo.write_text("decoder: {c_dek: 16}")
    assert "c_dek" in fails(2, "--config", typo, "--random-weights")


def test_missing_package_names_the_extra(
    checkpoint: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    assert "pip install 'mvde[export]'" in fails(1, "--checkpoint", checkpoint)


def test_interruption_leaves_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvde.export import exporter

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "traced", interrupt)
    assert execute(["export", "--checkpoint", str(checkpoint), "--res", "32", "--out", str(tmp_path / "export")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list((tmp_path / "export").iterdir()) == []


@pytest.fixture
def start(checkpoint: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starter of an export to ``tmp_path / "export"`` in its own process group."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mvde", "export", "--checkpoint", str(checkpoint), "--res", "32", *arguments]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / "export")],
            start_new_session=True,
            preexec_fn=accept_sigint,
            **streams,
        )

    return start


def _group(leader: int) -> list[str]:
    """Command lines of the running processes in a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # exited meanwhile
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == leader and state != "Z":
                found.append(stat.with_name("cmdline").read_text())
    return found


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
def test_a_real_ctrl_c_while_tracing_leaves_nothing(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, whole_group: bool
) -> None:
    """A terminal signals the whole process group, ``kill -INT`` a single process."""
    process = start()
    while not (tmp_path / "export").exists():  # created when tracing starts in the child
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "mvde: interrupted; no partial file was left\n"
    assert list((tmp_path / "export").iterdir()) == []
    deadline = time.monotonic() + 10
    while left := _group(process.pid):  # multiprocessing's resource tracker exits a moment later
        assert time.monotonic() < deadline, left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_is_terminated_or_killed_while_tracing_leaves_no_process(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, number: int
) -> None:
    process = start()
    while not (tmp_path / "export").exists():  # created when tracing starts in the child
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert err == "mvde: terminated; no partial file was left\n"
        assert list((tmp_path / "export").iterdir()) == []
    deadline = time.monotonic() + 2
    while left := [command for command in _group(process.pid) if "resource_tracker" not in command]:
        assert time.monotonic() < deadline, left
    with scratch_folder(tmp_path / "export", "next"):  # as in the next export
        pass
    assert list((tmp_path / "export").iterdir()) == []


def test_a_fresh_process_exports_without_loading_pytorch_itself(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--checkpoint", str(checkpoint), "--res", "32", "--out", str(tmp_path)]
    script = f"""
import sys
from mvde.cli import execute

if __name__ == "__main__":
    status = execute({arguments!r})
    print(status, "torch" in sys.modules, "onnxruntime" in sys.modules)
"""
    (tmp_path / "export.py").write_text(script)
    done = subprocess.run([sys.executable, str(tmp_path / "export.py")], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0 False True", done.stderr
    assert done.stderr == ""
    load_artifact(tmp_path / "tiny-32x32.onnx")
