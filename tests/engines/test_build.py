"""Building engines: manifest contents, and no invalid or partial output after a failure."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.artifact import GraphArtifact, load_engine_artifact
from mvde.contract import OutputRole
from mvde.engines import build
from mvde.engines.base import EngineId
from mvde.engines.machine import cpu_features
from mvde.engines.openvino.backend import OpenVinoBackend
from mvde.engines.openvino.engine import OpenVinoEngine
from mvde.engines.tolerances import tolerance_of
from mvde.errors import BackendError, MissingDependencyError, OutputError, ParityError
from mvde.precision import Precision

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

FP32 = EngineId.parse("openvino:fp32")


@pytest.fixture
def source(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> GraphArtifact:
    return write_graph(tmp_path / "export")


@pytest.fixture
def images(random_images: Callable[..., np.ndarray]) -> np.ndarray:
    return random_images(2, 32, 48, 3)


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_states_what_runs_and_what_was_measured(
    source: GraphArtifact, images: np.ndarray, tmp_path: Path
) -> None:
    report = build.build_engine(source, FP32, images, root=tmp_path / "engines")
    assert report.folder == tmp_path / "engines" / "tiny-32x48-openvino-fp32"
    assert sorted(path.name for path in report.folder.iterdir()) == ["engine.blob", "engine.json"]
    manifest = load_engine_artifact(report.folder / "engine.blob").manifest
    record = manifest.engine
    assert (record.id, record.executed_precision) == ("openvino:fp32", "fp32")
    assert record.onnx_sha256 == source.manifest.file.sha256
    assert record.cpu_features == cpu_features()
    assert manifest.parity.measured is not None
    assert manifest.parity.measured.max_rel < 1e-5
    assert set(manifest.parity.measured.stats) == {"mean", "var", "grad"}
    assert manifest.parity.tolerance == tolerance_of(Precision.FP32)
    assert manifest.parity.export == source.manifest.parity


def test_an_engine_with_wrong_depth_is_not_written(
    source: GraphArtifact, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = OpenVinoEngine.infer
    monkeypatch.setattr(
        OpenVinoEngine, "infer_maps", lambda self, images: {OutputRole.DEPTH: infer(self, images) * 1.01}
    )
    with pytest.raises(ParityError, match=r"mean \|Δdepth\|/depth is 1\.00e-02, allowed 1\.0e-04"):
        build.build_engine(source, FP32, images, root=tmp_path / "engines")
    assert _snapshot(tmp_path / "engines") == {}
    assert list((tmp_path / "engines").iterdir()) == []


def test_nan_never_passes(
    source: GraphArtifact, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = {OutputRole.DEPTH: np.full((1, 32, 48), np.nan, np.float32)}
    monkeypatch.setattr(OpenVinoEngine, "infer_maps", lambda self, images: nan)
    with pytest.raises(ParityError):
        build.build_engine(source, FP32, images, root=tmp_path / "engines")


@pytest.mark.parametrize(
    ("failure", "seen_as"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
        (BackendError("broken"), BackendError),
    ],
)
def test_a_failed_build_leaves_the_older_engine(
    source: GraphArtifact,
    images: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    seen_as: type[BaseException],
) -> None:
    build.build_engine(source, FP32, images, root=tmp_path / "engines")
    before = _snapshot(tmp_path / "engines")

    def fail(backend: OpenVinoBackend, opened: Any) -> Any:
        raise failure

    monkeypatch.setattr(OpenVinoBackend, "load", fail)
    with pytest.raises(seen_as):
        build.build_engine(source, FP32, images, root=tmp_path / "engines")
    assert _snapshot(tmp_path / "engines") == before


def test_an_id_that_the_machine_cannot_execute_leaves_nothing(
    source: GraphArtifact, images: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match="fp8"):
        build.build_engine(source, EngineId.parse("openvino:fp8"), images, root=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_without_the_reference_nothing_is_compiled(
    source: GraphArtifact, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(OpenVinoBackend, "compile", lambda *arguments: pytest.fail("compiled"))
    with pytest.raises(MissingDependencyError, match=r"comparing an engine .* pip install 'mvde\[onnxruntime\]'"):
        build.build_engine(source, FP32, images, root=tmp_path / "engines")


def test_images_are_compared_in_batches_of_the_engine(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], random_images: Callable
) -> None:
    source = write_graph(tmp_path / "export", batch=2)
    report = build.build_engine(source, FP32, random_images(3, 32, 48, 3), root=tmp_path / "engines")
    assert report.folder.name == "tiny-32x48-b2-openvino-fp32"
    assert report.parity.num_images == 3
