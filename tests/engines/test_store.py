"""Finding engines, and refusing those of another machine, library version or checksum."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvde.artifact import load_engine_artifact, read_manifest, write_manifest
from mvde.engines import store
from mvde.engines.base import EngineId
from mvde.engines.openvino.backend import OpenVinoBackend
from mvde.errors import (
    ArtifactError,
    BackendError,
    EngineIdError,
    HashMismatchError,
    IncompatibleEngineError,
)
from mvde.precision import Precision
from mvde.records import DeviceRecord

pytest.importorskip("openvino")


@pytest.fixture
def engine_copy(engine_folder: Path, tmp_path: Path) -> Path:
    """Path of the blob in a copy of the engine that a test may damage."""
    shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name)
    return tmp_path / "engines" / engine_folder.name / "engine.blob"


def _rewrite(blob: Path, **changes: object) -> None:
    manifest = load_engine_artifact(blob).manifest
    record = dataclasses.replace(manifest.engine, **changes)  # type: ignore[arg-type]
    write_manifest(dataclasses.replace(manifest, engine=record), blob)


def test_a_truncated_engine_is_refused(engine_copy: Path) -> None:
    engine_copy.write_bytes(engine_copy.read_bytes()[:-100])
    with pytest.raises(HashMismatchError, match="mvde build"):
        store.load_engine(engine_copy)


def test_a_flipped_bit_is_refused(engine_copy: Path) -> None:
    content = bytearray(engine_copy.read_bytes())
    content[len(content) // 2] ^= 1
    engine_copy.write_bytes(bytes(content))
    with pytest.raises(HashMismatchError, match="SHA-256"):
        store.load_engine(engine_copy)


def test_an_engine_of_a_cpu_with_more_features_is_refused(engine_copy: Path) -> None:
    _rewrite(engine_copy, cpu_features=("avx2", "amx_unheard_of"))
    with pytest.raises(IncompatibleEngineError, match=r"amx_unheard_of.*mvde build --engine openvino:fp32 --name tiny"):
        store.load_engine(engine_copy)


def test_an_engine_of_another_library_version_is_refused(engine_copy: Path) -> None:
    _rewrite(engine_copy, library_version="2019.1.0")
    with pytest.raises(IncompatibleEngineError, match=r"2019\.1\.0.*is installed; build it again here: mvde build"):
        store.load_engine(engine_copy)


def test_an_engine_that_would_compute_in_another_precision_is_refused(engine_copy: Path) -> None:
    _rewrite(engine_copy, executed_precision="bf16")
    with pytest.raises(IncompatibleEngineError, match="was built to compute in bf16, but computes in fp32 here"):
        store.load_engine(engine_copy)


def test_an_engine_of_an_older_export_is_refused(
    tmp_path: Path, build_tiny: Callable[..., Path], edit_manifest: Callable[..., None]
) -> None:
    blob = build_tiny(tmp_path) / "engine.blob"
    store.load_engine(blob)
    graph = tmp_path / "export" / "tiny-32x48.json"
    edit_manifest(graph, lambda plain: plain["file"].update(sha256="1" * 64))
    with pytest.raises(IncompatibleEngineError, match="was built from another graph"):
        store.load_engine(blob)
    graph.write_text('{"a": 1}')
    store.load_engine(blob)  # an invalid manifest identifies no graph
    graph.unlink()
    store.load_engine(blob)  # deployed without the graph


def test_a_graph_is_not_an_engine(tmp_path: Path, write_graph: Callable) -> None:
    graph = write_graph(tmp_path)
    with pytest.raises(ArtifactError, match="is an ONNX graph, not an engine"):
        store.load_engine(graph.path)


@pytest.mark.parametrize("wanted", ["fp32", "openvino:fp32", None])
def test_an_engine_is_found_by_id_or_as_the_only_one(engine_copy: Path, wanted: str | None) -> None:
    assert store.find(wanted, root=engine_copy.parents[1]).path == engine_copy


def test_an_engine_is_found_by_its_folder_or_file(engine_copy: Path) -> None:
    for source in (engine_copy, engine_copy.parent, str(engine_copy.parent)):
        assert store.find(source).path == engine_copy


def test_an_engine_that_is_not_built_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="mvde build --engine fp16"):
        store.find("fp16", root=tmp_path)


def test_a_name_that_is_neither_id_nor_path_states_the_grammar(tmp_path: Path) -> None:
    with pytest.raises(EngineIdError, match=r"\[BACKEND:\]PRECISION"):
        store.find("fp17", root=tmp_path)


def test_several_engines_ask_for_a_choice(tmp_path: Path, build_tiny: Callable[..., Path]) -> None:
    build_tiny(tmp_path)
    other = build_tiny(tmp_path, resolution=(64, 64))
    with pytest.raises(ArtifactError, match=r"several engines match.*--res"):
        store.find("fp32", root=tmp_path / "engines")
    assert store.find("fp32", resolution=(64, 64), root=tmp_path / "engines").path.parent == other


def test_a_bare_precision_prefers_the_best_backend(tmp_path: Path, build_tiny: Callable[..., Path]) -> None:
    pytest.importorskip("onnxruntime")
    build_tiny(tmp_path, "onnxruntime:fp32")
    best = build_tiny(tmp_path, "openvino:fp32")
    assert store.find("fp32", root=tmp_path / "engines").path.parent == best
    assert store.resolve(EngineId.parse("fp32")) == EngineId("openvino", Precision.FP32)


def test_fp16_on_this_machine_resolves_to_a_backend_that_executes_the_graph() -> None:
    pytest.importorskip("onnxruntime")
    resolved = store.resolve(EngineId.parse("fp16"))
    assert resolved.backend is not None
    assert store.support(resolved).works


def test_an_id_that_nothing_here_executes_gives_every_reason() -> None:
    with pytest.raises(BackendError, match=r"fp8 does not work on this machine \(.*openvino:fp8: .*onnxruntime:fp8: "):
        store.resolve(EngineId.parse("fp8"))


def _engine_of(folder: Path, blob: Path, created: str, **changes: object) -> Path:
    """Copy an engine with changes to its record; returns the new folder."""
    shutil.copytree(blob.parent, folder)
    _rewrite(folder / blob.name, **changes)
    manifest = read_manifest(folder / blob.name)
    write_manifest(dataclasses.replace(manifest, created=created), folder / blob.name)
    return folder


def test_of_engines_that_differ_in_content_alone_the_latest_that_runs_here_is_taken(
    engine_copy: Path, tmp_path: Path
) -> None:
    root = engine_copy.parents[1]
    newest = _engine_of(root / "newest-of-another-version", engine_copy, "2030-02-01", library_version="2030.1.0")
    assert store.find("openvino:fp32", root=root).path == engine_copy
    newer = _engine_of(root / "newer", engine_copy, "2030-01-01")
    assert store.find("openvino:fp32", root=root).path.parent == newer
    for folder in (engine_copy.parent, newer):
        shutil.rmtree(folder)
    other = _engine_of(root / "older-of-another-version", newest / engine_copy.name, "2029-01-01")
    assert other.is_dir()
    assert store.find("fp32", root=root).path.parent == newest  # loading it reports why none runs


def test_an_engine_that_was_never_measured_is_refused_with_the_command_that_measures_it(engine_copy: Path) -> None:
    manifest = load_engine_artifact(engine_copy).manifest
    parity = dataclasses.replace(manifest.parity, measured=None)
    write_manifest(dataclasses.replace(manifest, parity=parity), engine_copy)
    with pytest.raises(IncompatibleEngineError, match=r"not measured: no device.*mvde prove .*openvino-fp32"):
        store.load_engine(engine_copy)


def test_an_engine_that_was_measured_on_another_gpu_is_refused(
    engine_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_engine_artifact(engine_copy).manifest
    here = DeviceRecord("NVIDIA L4", "8.9", "13.0")
    monkeypatch.setattr(OpenVinoBackend, "device_facts", lambda self: here)

    def measured_on(**changes: str) -> None:
        parity = dataclasses.replace(manifest.parity, measured_on=dataclasses.replace(here, **changes))
        write_manifest(dataclasses.replace(manifest, parity=parity), engine_copy)

    measured_on(driver_cuda="12.8")
    store.load_engine(engine_copy)  # a newer driver is still the same GPU
    measured_on(gpu="NVIDIA RTX 4090")
    with pytest.raises(IncompatibleEngineError, match=r"on NVIDIA RTX 4090, 8\.9, but this machine has NVIDIA L4"):
        store.load_engine(engine_copy)
    measured_on(gpu="Orin", compute_capability="8.7")
    with pytest.raises(IncompatibleEngineError, match=r"measured on Orin, 8\.7, .* NVIDIA L4, 8\.9; .*mvde prove"):
        store.load_engine(engine_copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CACHE_DIR", "{folder}/cache"),
        ("NUM_STREAMS", "{folder}"),
        ("NUM_STREAMS", True),
        ("NUM_STREAMS", ["1"]),
        ("PERFORMANCE_HINT", "LATENCY\n"),
        ("linear_layers", "products"),
    ],
)
def test_options_that_mvde_does_not_set_never_reach_the_library(
    engine_copy: Path, tmp_path: Path, name: str, value: Any
) -> None:
    given = value.format(folder=tmp_path) if isinstance(value, str) else value
    _rewrite(engine_copy, options={**load_engine_artifact(engine_copy).manifest.engine.options, name: given})
    with pytest.raises(IncompatibleEngineError, match=f"its manifest states the option '?{name}"):
        store.load_engine(engine_copy)
    assert not (tmp_path / "cache").exists()
