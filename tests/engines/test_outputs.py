"""Engines of graphs with sky, mask and confidence outputs against the closed form of each, and their parity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import GraphArtifact, load_graph, write_manifest
from mvde.contract import OutputRole
from mvde.engines import proof
from mvde.engines.base import EngineId
from mvde.engines.build import build_engine
from mvde.engines.onnxruntime.engine import OnnxRuntimeEngine, open_onnx
from mvde.engines.store import load_engine
from mvde.engines.tolerances import check_output, tolerance_of
from mvde.errors import ArtifactError, IncompatibleEngineError, ParityError
from mvde.files import file_record
from mvde.manifest import OutputSpec
from mvde.precision import Precision

pytest.importorskip("onnxruntime")

OTHERS = (OutputRole.CONFIDENCE, OutputRole.SKY, OutputRole.MASK)
CHANNELS = {OutputRole.SKY: 0, OutputRole.MASK: 1, OutputRole.CONFIDENCE: 2}


@pytest.fixture
def source(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> GraphArtifact:
    return write_graph(tmp_path / "export", batch=2, roles=OTHERS)


@pytest.mark.parametrize("name", ["onnxruntime:fp32", "openvino:fp32"])
def test_an_engine_returns_every_output_by_its_role(
    name: str,
    source: GraphArtifact,
    tmp_path: Path,
    random_images: Callable[..., np.ndarray],
    closed_form_depth: Callable[[np.ndarray], np.ndarray],
) -> None:
    engine_id = EngineId.parse(name)
    pytest.importorskip(str(engine_id.backend))
    images = random_images(3, 32, 48, 3)
    folder = build_engine(source, engine_id, images, root=tmp_path / "engines").folder
    engine, manifest = load_engine(next(folder.glob("engine.json")))
    assert list(manifest.output_names) == [OutputRole.DEPTH, *OTHERS]
    maps = engine.infer_maps(images[:2])
    assert list(maps) == [OutputRole.DEPTH, *OTHERS]
    np.testing.assert_allclose(maps[OutputRole.DEPTH], closed_form_depth(images[:2]), rtol=1e-6)
    for role in OTHERS:
        np.testing.assert_allclose(maps[role], images[:2, ..., CHANNELS[role]] / 255, rtol=1e-6)
    kept = {role: one.copy() for role, one in maps.items()}
    np.testing.assert_array_equal(engine.infer(images[:2]), maps[OutputRole.DEPTH])
    engine.infer_maps(images[1:])
    for role, one in maps.items():
        np.testing.assert_array_equal(one, kept[role])
    engine.close()


def test_a_graph_without_a_manifest_has_depth_only(
    source: GraphArtifact, random_images: Callable[..., np.ndarray]
) -> None:
    assert list(open_onnx(source.path).infer_maps(random_images(2, 32, 48, 3))) == [OutputRole.DEPTH]


def test_an_engine_with_other_outputs_than_its_manifest_is_refused(
    source: GraphArtifact, tmp_path: Path, random_images: Callable[..., np.ndarray]
) -> None:
    images = random_images(2, 32, 48, 3)
    folder = build_engine(source, EngineId.parse("onnxruntime:fp32"), images, root=tmp_path / "engines").folder
    _, manifest = load_engine(folder / "engine.json")
    write_manifest(dataclasses.replace(manifest, outputs=manifest.outputs[:2]), folder / manifest.file.name)
    with pytest.raises(IncompatibleEngineError, match=r"'their_mask'\], but its manifest states \['depth', "):
        load_engine(folder / "engine.json")


@pytest.mark.parametrize("role", OTHERS)
def test_an_engine_that_computes_another_sky_mask_or_confidence_is_not_written(
    role: OutputRole,
    source: GraphArtifact,
    tmp_path: Path,
    random_images: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    infer_maps, images = OnnxRuntimeEngine.infer_maps, random_images(2, 32, 48, 3)

    def changed(self: OnnxRuntimeEngine, given: np.ndarray) -> dict[OutputRole, np.ndarray]:
        maps = infer_maps(self, given)
        return maps if self.info.id == "onnxruntime:fp32" else {**maps, role: maps[role] + np.float32(0.02)}

    monkeypatch.setattr(OnnxRuntimeEngine, "infer_maps", changed)
    named = dataclasses.replace(EngineId.parse("onnxruntime:fp32"), precision=Precision.FP16)
    with pytest.raises(ParityError, match=f"'their_{role}'.*nothing was written"):
        build_engine(source, named, images, root=tmp_path / "engines", lower_graph=lambda graph, *_: graph)
    assert not list((tmp_path / "engines").rglob("engine.json"))


def test_an_unproved_engine_is_proved_by_all_its_outputs(
    source: GraphArtifact, tmp_path: Path, random_images: Callable[..., np.ndarray]
) -> None:
    """The stored reference holds every output, so that neither the graph nor ONNX Runtime is needed."""
    pytest.importorskip("openvino")
    images = random_images(3, 32, 48, 3)
    folder = build_engine(source, EngineId.parse("openvino:fp32"), images, root=tmp_path / "engines").folder
    reference = proof.Reference.of_graph(source, images)
    _, manifest = load_engine(folder / "engine.json")
    reference.write(folder)
    assert proof.Reference.read(folder / proof.REFERENCE_FILE).maps.keys() == reference.maps.keys()

    def write(one: proof.Reference) -> None:
        stored = file_record(folder / one.write(folder))
        parity = proof.measured_parity(manifest, None)
        changed = dataclasses.replace(manifest, parity=parity, companions=(stored,))
        write_manifest(changed, folder / manifest.file.name)

    write(reference)
    assert proof.prove_engine(folder).parity.num_images == 3
    write(proof.Reference(images, {**reference.maps, OutputRole.SKY: 1 - reference.maps[OutputRole.SKY]}))
    with pytest.raises(ParityError, match=r"pixels of 'their_sky' on the other side of 0\.5"):
        proof.prove_engine(folder)
    write(proof.Reference(images, {OutputRole.DEPTH: reference.maps[OutputRole.DEPTH]}))
    with pytest.raises(ArtifactError, match="has no confidence; build it again"):
        proof.prove_engine(folder)


def test_a_mask_is_compared_by_its_decisions_and_nan_is_none() -> None:
    tolerance = tolerance_of(Precision.FP16)  # 0.3 % of the pixels
    sky = OutputSpec("sky", (1, 40, 50), "float32", OutputRole.SKY, 0.3)
    reference = np.linspace(0, 1, 2000, dtype=np.float32).reshape(1, 40, 50)
    check_output(sky, np.where(reference >= 0.3, 5, -5).astype(np.float32), reference, tolerance, "it")
    moved = reference.copy()
    moved.flat[:6] = 1  # exactly 0.3 %
    check_output(sky, moved, reference, tolerance, "it")
    for value in (1, np.nan):
        moved.flat[:7] = value
        with pytest.raises(ParityError, match=r"it differs .*of 'sky' on the other side of 0\.3: 3\.50e-03, allowed"):
            check_output(sky, moved, reference, tolerance, "it")
    confidence = dataclasses.replace(sky, name="sure", role=OutputRole.CONFIDENCE, threshold=None)
    check_output(confidence, reference + np.float32(2.9e-3), reference, tolerance, "it")
    for other in (reference + np.float32(3.1e-3), reference * np.float32(np.nan)):
        with pytest.raises(ParityError, match=r"mean difference of 'sure' relative to its range: (3\.10e-03|nan), "):
            check_output(confidence, other, reference, tolerance, "it")


def test_a_lowered_graph_keeps_its_further_outputs(
    source: GraphArtifact, tmp_path: Path, random_images: Callable[..., np.ndarray]
) -> None:
    from mvde.engines.base import Graph
    from mvde.export.precision import lower_graph

    lowered = lower_graph(Graph(source.path), Precision.FP16, tmp_path)
    images = random_images(2, 32, 48, 3)
    assert load_graph(source.path).manifest.output_names == source.manifest.output_names
    maps = open_onnx(lowered.path, outputs=source.manifest.output_names).infer_maps(images)
    for role in OTHERS:
        assert maps[role].dtype == np.float32
        np.testing.assert_allclose(maps[role], images[..., CHANNELS[role]] / 255, atol=1e-3)
