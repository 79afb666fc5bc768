"""libmvde_openvino.so is for one release of OpenVINO, which is named wherever another is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mvde import native
from mvde.cli import doctor
from mvde.engines.openvino import native_backend
from mvde.engines.openvino.library import library_version
from mvde.errors import MissingDependencyError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name of a library for OpenVINO 2031.4.2 in the folder that is searched."""
    path = tmp_path / "libmvde_openvino.so"
    path.write_bytes(b"\x7fELF\0\xff\0MVDE_OPENVINO_RELEASE=2031.4.2\0\xfe")
    monkeypatch.setattr(native, "library_folders", lambda: [tmp_path])
    return path


def test_the_release_is_read_from_a_file_that_cannot_be_loaded(library: Path) -> None:
    assert native_backend.release_of(library) == "2031.4.2"
    assert native_backend.mismatch(library, "2031.4.2") == ""


def test_doctor_names_the_release_that_is_needed(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = doctor.examine()
    assert f"compiled for OpenVINO 2031.4.2, but {library_version()} is installed" in facts["native_openvino"]
    assert "pip install openvino==2031.4.2" in facts["native_openvino"]
    doctor._print(facts)
    assert "pip install openvino==2031.4.2" in " ".join(capsys.readouterr().out.split())

    def missing() -> str:
        raise MissingDependencyError("no openvino")

    monkeypatch.setattr(native_backend, "library_version", missing)
    assert "but none is installed: pip install openvino==2031.4.2" in native_backend.description()
    library.unlink()
    assert native_backend.description() == native_backend.MISSING


def test_the_built_library_names_the_release_whose_soname_it_needs() -> None:
    path = native_backend.library_path()
    if path is None or shutil.which("readelf") is None:
        pytest.skip("`make native` builds libmvde_openvino.so where Python's openvino is installed; readelf reads it")
    needed = re.findall(r"libopenvino\.so\.(\d+)", subprocess.check_output(["readelf", "-d", path], text=True))
    year, release, patch = (native_backend.release_of(path) or "0.0.0").split(".")
    assert needed == [f"{int(year) % 100}{release}{patch}"]


def test_one_release_is_compiled_for_pinned_and_tested() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (extra,) = read["project"]["optional-dependencies"]["native"]
    (override,) = read["tool"]["scikit-build"]["overrides"]
    (compiled_for,) = override["build"]["requires"]
    assert extra.split(";")[0] == compiled_for
    assert f"\n{compiled_for} ;" in (ROOT / "constraints.txt").read_text()
