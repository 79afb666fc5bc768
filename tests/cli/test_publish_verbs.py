"""Every verb that writes artefacts, killed and terminated before each of its renames: what is there is whole."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde import cli
from mvde.artifact import AnyArtifact, GraphArtifact, load_artifact, write_manifest
from mvde.files import file_record
from tests.killed import ended_before_each_rename

pytest.importorskip("openvino")

VERBS = {
    "lower": ["lower", "export/tiny-32x48.onnx", "--to", "fp16"],
    "build": ["build", "export/tiny-32x48.onnx", "--engine", "openvino:fp32", "--out", "engines"],
    "triton": ["triton", "export/tiny-32x48.onnx", "--out", "models"],
    "digest": ["info", "--rewrite-digest", "export/tiny-32x48.json"],
    "run": ["run", "photo.png", "--engine-dir", "engines", "--out", "depth"],
}
"""Those that write artefacts or results without PyTorch."""


def make_old(path: Path) -> None:
    """Turn an artefact into a whole one of another content."""
    manifest = load_artifact(path).manifest
    path.write_bytes(b"an older version")
    write_manifest(dataclasses.replace(manifest, file=file_record(path), created="long ago"), path)


@pytest.fixture(scope="module")
def kept(write_graph: Callable[..., GraphArtifact], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every verb has run; the lowered graph is an old one."""
    folder = tmp_path_factory.mktemp("kept")
    write_graph(folder / "export")
    shutil.copy(Path(__file__).parents[1] / "data" / "upright.png", folder / "photo.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert [cli.execute(verb) for verb in VERBS.values()] == [0] * len(VERBS)
    make_old(next((folder / "export").glob("*.fp16.onnx")))
    return folder


def artefacts(folder: Path) -> list[AnyArtifact]:
    """Every artefact of the folder, each compared with its hashes."""
    return [
        load_artifact(path)
        for place in ("export", "engines")
        for path in (folder / place).rglob("*.json")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def results(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for place in ("depth", "models")
        for path in (folder / place).rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def temporaries(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(".*") if ".tmp" in path.name]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.extended)])
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_before_any_rename_leaves_whole_artefacts(
    verb: str, number: signal.Signals, kept: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    expected, num_artefacts = results(kept), len(artefacts(kept))
    ended = {signal.SIGKILL: -int(number), signal.SIGTERM: 128 + int(number)}[number]
    for step, status in ended_before_each_rename(VERBS[verb], number, kept, folder):
        assert len(artefacts(folder)) == num_artefacts, step
        assert results(folder) == expected, step
        if number == signal.SIGTERM or status == 0:
            assert temporaries(folder) == [], step
        assert status in (0, ended), step
    assert step > 1
