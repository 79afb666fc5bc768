"""Proof after the build, rebuilds that must agree, and engines that are measured where their device is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import Artifact, read_manifest, write_manifest
from mvde.engines import build, openvino, proof
from mvde.engines.base import BuildOptions, EngineId, Graph
from mvde.engines.store import load_engine
from mvde.engines.tensorrt.options import TensorRtOptions
from mvde.errors import HashMismatchError, IncompatibleEngineError, ParityError, UsageError
from mvde.export.precision import lower_graph
from mvde.files import file_record

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

FP32 = EngineId.parse("openvino:fp32")


@pytest.fixture
def images(random_images: Callable[..., np.ndarray]) -> np.ndarray:
    return random_images(3, 32, 48, 3)


@pytest.fixture
def unproved(tmp_path: Path, write_graph: Callable[..., Artifact], images: np.ndarray) -> Path:
    """An engine that says of itself that it was never measured, with its reference beside it."""
    source = write_graph(tmp_path / "export")
    folder = build.build_engine(source, FP32, images, root=tmp_path / "engines").folder
    reference = proof.Reference.of_graph(source, images)
    stored = file_record(folder / reference.write(folder))
    manifest = read_manifest(folder / "engine.blob")
    parity = proof.parity_record(None, manifest.engine, manifest.parity.export)
    write_manifest(dataclasses.replace(manifest, parity=parity, companions=(stored,)), folder / "engine.blob")
    return folder


def test_an_unproved_engine_loads_once_it_was_measured_here(unproved: Path, images: np.ndarray) -> None:
    with pytest.raises(IncompatibleEngineError, match="mvde prove"):
        load_engine(unproved / "engine.blob")
    done = proof.prove_engine(unproved)
    assert done.parity.num_images == 3
    assert done.parity.max_rel < 1e-5
    engine, manifest = load_engine(unproved / "engine.blob")
    assert manifest.parity.measured == done.parity
    engine.close()


def test_an_engine_that_fails_its_proof_stays_refused(unproved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = openvino.OpenVinoEngine.infer
    monkeypatch.setattr(openvino.OpenVinoEngine, "infer", lambda self, images: infer(self, images) * 1.01)
    before = (unproved / "engine.json").read_bytes()
    with pytest.raises(ParityError):
        proof.prove_engine(unproved)
    assert (unproved / "engine.json").read_bytes() == before


def test_a_reference_that_was_tampered_with_proves_nothing(unproved: Path) -> None:
    path = unproved / proof.REFERENCE_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(HashMismatchError):
        proof.prove_engine(unproved)


def test_an_engine_without_a_reference_cannot_be_proved_later(engine_folder: Path) -> None:
    with pytest.raises(UsageError, match="carries no reference"):
        proof.prove_engine(engine_folder)


def test_a_graph_cannot_be_proved(tmp_path: Path, write_graph: Callable[..., Artifact]) -> None:
    with pytest.raises(UsageError, match="is an ONNX graph"):
        proof.prove_engine(write_graph(tmp_path).path)


def _gains(*gains: float) -> Iterator[float]:
    yield from gains


def test_rebuilds_that_agree_are_kept(tmp_path: Path, write_graph: Callable[..., Artifact], images: np.ndarray) -> None:
    source = write_graph(tmp_path / "export")
    report = build.build_engine(source, FP32, images, root=tmp_path / "engines", options=BuildOptions(num_builds=3))
    assert sorted(path.name for path in report.folder.iterdir()) == ["engine.blob", "engine.json"]


def test_a_graph_is_lowered_once_for_all_rebuilds(
    tmp_path: Path, write_graph: Callable[..., Artifact], images: np.ndarray
) -> None:
    calls = []

    def lower(graph: Graph, precision: str, folder: Path) -> Graph:
        calls.append(folder)
        return lower_graph(graph, precision, folder)

    report = build.build_engine(
        write_graph(tmp_path / "export"),
        EngineId.parse("onnxruntime:fp16"),
        images,
        root=tmp_path / "engines",
        options=BuildOptions(num_builds=3),
        lower_graph=lower,
    )
    assert len(calls) == 1
    assert not calls[0].exists()
    assert sorted(path.name for path in report.folder.iterdir()) == ["engine.json", "engine.onnx"]


def test_a_rebuild_that_drifts_keeps_none(
    tmp_path: Path, write_graph: Callable[..., Artifact], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, gains = openvino.load, _gains(1.0, 1.0, 1.01)

    def drifting(path: Path, manifest: object) -> object:
        engine, gain = load(path, manifest), next(gains)
        infer = engine.infer
        engine.infer = lambda images: infer(images) * np.float32(gain)
        return engine

    monkeypatch.setattr(openvino, "load", drifting)
    source = write_graph(tmp_path / "export")
    with pytest.raises(ParityError, match=r"build 3 of 3 of openvino:fp32 \(against build 1\) differs"):
        build.build_engine(source, FP32, images, root=tmp_path / "engines", options=BuildOptions(num_builds=3))
    assert list((tmp_path / "engines").iterdir()) == []


def test_known_errors_that_a_build_was_made_in_spite_of_are_in_the_manifest(
    tmp_path: Path, write_graph: Callable[..., Artifact], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "check_source", lambda *arguments: ["an-id: what goes wrong"], raising=False)
    report = build.build_engine(write_graph(tmp_path / "export"), FP32, images, root=tmp_path / "engines")
    assert report.warnings == ("an-id: what goes wrong",)
    engine = read_manifest(report.folder / "engine.blob").engine
    assert engine.known_errors == ("an-id: what goes wrong",)


@pytest.mark.parametrize(
    ("engine_id", "options", "message"),
    [
        ("openvino:fp32", BuildOptions(without_device=True), "do not go with openvino:fp32"),
        ("openvino:fp32", BuildOptions(tensorrt=TensorRtOptions(optimization_level=1)), "do not go with openvino"),
        ("fp32", BuildOptions(without_device=True), "needs an engine id with its backend, such as tensorrt-rtx:fp32"),
        ("tensorrt-rtx:fp32", BuildOptions(without_device=True, num_builds=2), "needs the device"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    tmp_path: Path,
    write_graph: Callable[..., Artifact],
    images: np.ndarray,
    engine_id: str,
    options: BuildOptions,
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        build.build_engine(
            write_graph(tmp_path / "export"), EngineId.parse(engine_id), images, root=tmp_path, options=options
        )
