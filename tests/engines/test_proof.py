"""Parity proof after the build, reproducible rebuilds, and engines proved later on their device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.artifact import GraphArtifact, load_engine_artifact, load_graph, write_manifest
from mvde.contract import DepthKind, OutputRole
from mvde.engines import build, proof
from mvde.engines.base import BuildOptions, EngineId, Graph
from mvde.engines.opened import OpenedEngine
from mvde.engines.openvino.backend import OpenVinoBackend
from mvde.engines.openvino.engine import OpenVinoEngine
from mvde.engines.store import load_engine
from mvde.errors import HashMismatchError, IncompatibleEngineError, ParityError, UsageError
from mvde.export.precision import lower_graph
from mvde.files import file_record
from mvde.precision import Precision

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

FP32 = EngineId.parse("openvino:fp32")


@pytest.fixture
def images(random_images: Callable[..., np.ndarray]) -> np.ndarray:
    return random_images(3, 32, 48, 3)


@pytest.fixture
def unproved(tmp_path: Path, write_graph: Callable[..., GraphArtifact], images: np.ndarray) -> Path:
    """Engine marked as unmeasured, with its reference outputs beside it."""
    source = write_graph(tmp_path / "export")
    folder = build.build_engine(source, FP32, images, root=tmp_path / "engines").folder
    reference = proof.Reference.of_graph(source, images)
    stored = file_record(folder / reference.write(folder))
    manifest = load_engine_artifact(folder / "engine.blob").manifest
    parity = proof.measured_parity(manifest, None)
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
    infer = OpenVinoEngine.infer
    monkeypatch.setattr(
        OpenVinoEngine, "infer_maps", lambda self, images: {OutputRole.DEPTH: infer(self, images) * 1.01}
    )
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
    with pytest.raises(UsageError, match="has no reference"):
        proof.prove_engine(engine_folder)


def test_a_graph_cannot_be_proved(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> None:
    with pytest.raises(UsageError, match="is an ONNX graph"):
        proof.prove_engine(write_graph(tmp_path).path)


def _gains(*gains: float) -> Iterator[float]:
    yield from gains


def test_rebuilds_that_agree_are_kept(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], images: np.ndarray
) -> None:
    source = write_graph(tmp_path / "export")
    report = build.build_engine(source, FP32, images, root=tmp_path / "engines", options=BuildOptions(num_builds=3))
    assert sorted(path.name for path in report.folder.iterdir()) == ["engine.blob", "engine.json"]


def test_a_graph_is_lowered_once_for_all_rebuilds(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], images: np.ndarray
) -> None:
    calls = []

    def lower(graph: Graph, precision: Precision, folder: Path) -> Graph:
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
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, gains = OpenVinoBackend.load, _gains(1.0, 1.0, 1.01)

    def drifting(backend: OpenVinoBackend, opened: OpenedEngine) -> object:
        engine, gain = load(backend, opened), next(gains)
        infer = engine.infer
        engine.infer_maps = lambda images: {OutputRole.DEPTH: infer(images) * np.float32(gain)}
        return engine

    monkeypatch.setattr(OpenVinoBackend, "load", drifting)
    source = write_graph(tmp_path / "export")
    with pytest.raises(ParityError, match=r"build 3 of 3 of openvino:fp32 \(against build 1\) differs"):
        build.build_engine(source, FP32, images, root=tmp_path / "engines", options=BuildOptions(num_builds=3))
    assert list((tmp_path / "engines").iterdir()) == []


def test_known_errors_that_a_build_was_made_in_spite_of_are_in_the_manifest(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVinoBackend, "check_source", lambda *arguments: ["an-id: what goes wrong"])
    report = build.build_engine(write_graph(tmp_path / "export"), FP32, images, root=tmp_path / "engines")
    assert report.warnings == ("an-id: what goes wrong",)
    engine = load_engine_artifact(report.folder / "engine.blob").manifest.engine
    assert engine.known_errors == ("an-id: what goes wrong",)


@pytest.mark.parametrize(
    ("engine_id", "options", "message"),
    [
        ("openvino:fp32", {"without_device": True}, "does not go with openvino:fp32"),
        ("openvino:fp32", {"settings": {"optimization_level": "1"}}, "is not for openvino, which takes no settings"),
        (
            "onnxruntime:fp32",
            {"settings": {"threads": "1"}},
            r"is not for onnxruntime, which takes provider \(cpu, cuda",
        ),
        ("fp32", {"without_device": True}, "needs an engine id with its backend, such as tensorrt-rtx:fp32"),
        ("tensorrt-rtx:fp32", {"without_device": True, "num_builds": 2}, "needs the device"),
        ("openvino:fp32", {"rest": Precision.FP32}, "--rest is for engines in int8 and fp8, but this is openvino:fp32"),
        ("openvino:int8", {"rest": Precision.INT8}, "openvino:int8 does not quantise cannot compute in int8; use "),
        ("onnxruntime:int8", {"rest": Precision.BF16}, "does not quantise cannot compute in bf16; use fp32"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    tmp_path: Path,
    write_graph: Callable[..., GraphArtifact],
    images: np.ndarray,
    engine_id: str,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        build.build_engine(
            write_graph(tmp_path / "export"),
            EngineId.parse(engine_id),
            images,
            root=tmp_path,
            options=BuildOptions(**options),
        )


@pytest.mark.parametrize(
    ("engine_id", "rest", "in_graph"),
    [
        ("openvino:int8", None, Precision.FP32),
        ("openvino:int8", Precision.BF16, Precision.FP32),
        ("onnxruntime:int8", None, Precision.FP32),
        ("tensorrt:int8", None, Precision.FP16),
        ("tensorrt-rtx:fp8", Precision.FP32, Precision.FP32),
        ("tensorrt:fp16", None, Precision.FP32),
    ],
)
def test_what_is_not_quantised_is_in_the_graph_as_the_backend_wants_it(
    engine_id: str, rest: Precision | None, in_graph: Precision
) -> None:
    assert build.graph_rest(EngineId.parse(engine_id), rest) is in_graph


def test_an_inverse_engine_is_held_against_the_range_of_its_maps(
    tmp_path: Path,
    write_graph: Callable[..., GraphArtifact],
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_graph(tmp_path / "export")
    kind = DepthKind.INVERSE_RELATIVE
    write_manifest(dataclasses.replace(source.manifest, depth_kind=kind, unit=kind.unit), source.path)
    source = load_graph(source.path)
    built = build.build_engine(source, FP32, images, root=tmp_path / "engines")
    assert built.parity is not None
    depth = proof.Reference.of_graph(source, images).maps[OutputRole.DEPTH]
    spans = [np.subtract(*np.percentile(one, (99, 1))) for one in depth]
    assert built.parity.reference_range == pytest.approx(min(spans), rel=1e-5)
    stored = load_engine_artifact(built.folder / "engine.blob").manifest
    assert stored.parity.measured == built.parity
    # 1 % of the level, 3 % of the range: fp32 allows 0.01 % of the range.
    infer = OpenVinoEngine.infer
    monkeypatch.setattr(
        OpenVinoEngine, "infer_maps", lambda self, given: {OutputRole.DEPTH: infer(self, given) * np.float32(1.01)}
    )
    with pytest.raises(ParityError, match=r"mean \|Δ\|/range is"):
        build.build_engine(source, FP32, images, root=tmp_path / "other")
