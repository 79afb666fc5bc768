"""The C++ example opens an engine that ``mvde build`` wrote and gives Python's bits, and Python's refusals."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mvde
from mvde import cli

ROOT = Path(__file__).parents[2]
INFER = ROOT / "build/native/cpp/examples/infer"
PHOTO = ROOT / "mvde/assets/photos/coffee.jpg"

pytestmark = pytest.mark.skipif(
    not (INFER.is_file() and (INFER.parents[1] / "libmvde_openvino.so").is_file()),
    reason="`make native` builds the example where Python's openvino is installed",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("session")
    exports, engines = str(folder / "export"), str(folder / "engines")
    assert cli.execute(["export", "--res", "96x128", "--out", exports]) == 0
    assert cli.execute(["build", "--engine", "openvino:fp32", "--export-dir", exports, "--out", engines]) == 0
    (engine,) = Path(engines).iterdir()
    return engine


def infer(engine: Path, out: Path, fit: str = "stretch") -> subprocess.CompletedProcess[str]:
    Image.open(PHOTO).convert("RGB").save(out / "photo.ppm")
    arguments = [INFER, engine, out / "photo.ppm", out / "depth.f32", out / "stats.f32", fit]
    return subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_gives_pythons_bits(engine: Path, tmp_path: Path, fit: str) -> None:
    done = infer(engine, tmp_path, fit)
    assert done.returncode == 0, done.stderr
    assert "computes in fp32" in done.stdout
    with mvde.DepthRuntime.load(engine) as runtime:
        result = runtime.infer(np.asarray(Image.open(PHOTO).convert("RGB")), fit=fit)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "depth.f32", np.float32), result.depth.ravel())
    np.testing.assert_array_equal(np.fromfile(tmp_path / "stats.f32", np.float32), result.stats.ravel())


@pytest.mark.parametrize("damage", ["truncated", "one bit", "foreign manifest", "no manifest"])
def test_a_damaged_engine_is_refused_in_one_line(engine: Path, tmp_path: Path, damage: str) -> None:
    copy = Path(shutil.copytree(engine, tmp_path / engine.name))
    blob, manifest = copy / "engine.blob", copy / "engine.json"
    content = bytearray(blob.read_bytes())
    if damage == "truncated":
        blob.write_bytes(content[:-1])
    elif damage == "one bit":
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
    elif damage == "foreign manifest":
        manifest.write_text('{"kind": "something else"}')
    else:
        manifest.unlink()
    done = infer(copy, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("infer: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "depth.f32").exists()
