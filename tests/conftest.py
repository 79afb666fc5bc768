"""Shared fixtures: a tiny exported graph with closed-form depth, and engines built from it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.artifact import AnyArtifact, GraphArtifact, artifact_stem, load_artifact, load_graph, write_manifest
from mvde.contract import DepthKind, OutputRole, stretched
from mvde.files import file_record
from mvde.manifest import GraphManifest, InputSpec, OutputSpec, SourceRecord, with_digest
from mvde.publish import publish
from mvde.records import GraphParity, ParityReport

# Tests import OpenVINO before mvde does; disable its telemetry as mvde does: see mvde.engines.openvino.library.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TESTS = Path(__file__).parent
OFFSET_M, GAIN_M = 0.5, 4.0

STANDING_CHECKS = {
    # Kill and terminate before every rename; a reader against a writer.
    "publish": (
        "test_publish.py",
        "cli/test_publish_verbs.py",
        "export/test_triton_publication.py",
        "engines/test_live_file.py::test_an_engine_that_is_being_replaced",
    ),
    # Every byte flipped, and the list of hostile files, by both readers.
    "manifests": ("test_manifest.py", "cpp/test_manifest_readers.py"),
    # Cut off and overwritten while loaded.
    "live_file": ("engines/test_live_file.py", "engines/test_sealed.py", "cpp/test_live_engine.py"),
    # Fork, spawn, signals and event loops after inference.
    "processes": ("engines/test_process.py", "engines/test_asyncio.py"),
    # Pictures, videos, FIFOs, colliding names, losses that are not finite, data without labels.
    "inputs": (
        "test_image_files.py",
        "test_mutated_pictures.py",
        "runtime/test_sources.py",
        "runtime/test_video.py",
        "pipelines/test_watch.py",
    ),
}
"""What `make standing-checks` runs: files below ``tests/``, or tests of them by the beginning of their name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the standing checks."""
    for item in items:
        place = f"{item.path.relative_to(TESTS)}::{item.name}" if item.path.is_relative_to(TESTS) else ""
        for check, prefixes in STANDING_CHECKS.items():
            if place.startswith(prefixes):
                item.add_marker(pytest.mark.standing(check=check))
                break


@pytest.fixture(scope="session")
def standing_checks() -> dict[str, tuple[str, ...]]:
    """Places of the standing checks by their name."""
    return STANDING_CHECKS


@pytest.fixture(scope="session")
def closed_form_depth() -> Callable[[np.ndarray], np.ndarray]:
    """Depth computed by :func:`write_graph`'s graphs, in float64: 0.5 m + 4 m × mean of the colours / 255."""
    return lambda images: OFFSET_M + GAIN_M * images.astype(np.float64).mean(axis=-1) / 255


@pytest.fixture(scope="session")
def write_graph() -> Callable[..., GraphArtifact]:
    """Writer of ``NAME-HxW.onnx`` (a cast, a transpose and a 1×1 convolution) and its manifest.

    Further outputs for ``roles`` are one colour / 255, named ``their_ROLE``: red for sky, green for mask, blue for
    confidence.
    """
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper, save

    def write(
        folder: Path,
        name: str = "tiny",
        resolution: tuple[int, int] = (32, 48),
        batch: int = 1,
        patch_size: int = 16,
        roles: Sequence[OutputRole] = (),
    ) -> GraphArtifact:
        height, width = resolution
        weight = np.full((1, 3, 1, 1), GAIN_M / (3 * 255), np.float32)
        nodes = [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "weight", "bias"], ["raw"]),
            helper.make_node("Reshape", ["raw", "shape"], ["depth"]),
        ]
        initializers = [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([OFFSET_M], np.float32), "bias"),
            numpy_helper.from_array(np.array([batch, height, width], np.int64), "shape"),
        ]
        outputs = [OutputSpec("depth", (batch, height, width), "float32", OutputRole.DEPTH)]
        for role in roles:
            channel = (OutputRole.SKY, OutputRole.MASK, OutputRole.CONFIDENCE).index(role)
            nodes.append(helper.make_node("Gather", ["planes", f"{role}.channel"], [f"{role}.plane"], axis=1))
            nodes.append(helper.make_node("Div", [f"{role}.plane", "largest"], [f"their_{role}"]))
            initializers.append(numpy_helper.from_array(np.array(channel, np.int64), f"{role}.channel"))
            threshold = 0.5 if role.has_threshold else None
            outputs.append(OutputSpec(f"their_{role}", (batch, height, width), "float32", role, threshold))
        if roles:
            initializers.append(numpy_helper.from_array(np.float32(255), "largest"))
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3])
        maps = [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, list(one.shape)) for one in outputs]
        graph = helper.make_graph(nodes, name, [image], maps, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path = folder / f"{artifact_stem(name, resolution, batch)}.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        save(model, str(path))
        manifest = GraphManifest(
            name=name,
            created="2026-01-01T00:00:00+00:00",
            inputs=(InputSpec("image", (batch, height, width, 3), "uint8", "BHWC", "RGB"),),
            outputs=tuple(outputs),
            preprocess=stretched((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            stats_patch=patch_size,
            grid=(height // patch_size, width // patch_size),
            valid_range=(OFFSET_M, OFFSET_M + GAIN_M),
            depth_kind=DepthKind.METRIC,
            unit="m",
            stats=("mean", "var", "grad"),
            opset=20,
            source=SourceRecord("mvde", "tiny", "0" * 64, {}),
            file=file_record(path),
            tools={},
            parity=GraphParity("pytorch:fp32", "onnxruntime:fp32", 1e-4, (), ParityReport(0.0, 0.0, 0.0, 0.0, 1)),
        )
        write_manifest(manifest, path)
        return load_graph(path)

    return write


@pytest.fixture(scope="session")
def write_plain() -> Callable[[Path, Any], None]:
    """Writer of a manifest from plain JSON, valid or not, with a matching digest."""
    return lambda path, plain: _write_plain(path, plain)


@pytest.fixture(scope="session")
def edit_manifest() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Editor of a manifest's plain JSON, which renews the digest."""

    def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
        plain = json.loads(path.read_text(encoding="utf-8"))
        change(plain)
        _write_plain(path, plain)

    return edit


def _write_plain(path: Path, plain: Any) -> None:
    text = json.dumps(plain)
    path.write_text(with_digest(text) if isinstance(plain, dict) else text, encoding="utf-8")


@pytest.fixture
def kill_when_publishing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], object]], list[int]]:
    """Kill the next publication in a child process before each of its steps in turn, then let it finish.

    After each kill the check is called with the folder, which is restored afterwards. The returned list collects the
    numbers of the steps killed.
    """

    def arm(check: Callable[[Path], object]) -> list[int]:
        import mvde.engines.build  # noqa: F401  (binds the name before it is patched)

        killed: list[int] = []

        def publish_and_die(staging: Path, folder: Path) -> None:
            kept = staging.with_name(f"{staging.name}.kept")
            for source, name in ((staging, "staging"), (folder, "folder")):
                shutil.copytree(source, kept / name, ignore=shutil.ignore_patterns("*.tmp", "*.tmp.*"))
            while not _publish_killed_before(len(killed) + 1, staging, folder):
                killed.append(len(killed) + 1)
                check(folder)
                for target, name in ((staging, "staging"), (folder, "folder")):
                    for path in target.iterdir():
                        if path.is_file():
                            path.unlink()
                    shutil.copytree(kept / name, target, dirs_exist_ok=True)
            shutil.rmtree(kept)

        for module in ("mvde.publish", "mvde.engines.build"):
            monkeypatch.setattr(f"{module}.publish", publish_and_die)
        return killed

    return arm


def _publish_killed_before(step: int, staging: Path, folder: Path) -> bool:
    """Whether the publication finished in a child process that is killed before step number ``step``."""
    child = os.fork()
    if child == 0:
        steps = itertools.count(1)

        def counted(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        for name in ("replace", "rename", "link", "unlink"):
            setattr(os, name, partial(counted, getattr(os, name)))
        try:
            publish(staging, folder)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status == 0


@pytest.fixture(scope="session")
def make_old() -> Callable[[Path], AnyArtifact]:
    """Rewriter of an artefact as a complete older version with different content."""

    def make(path: Path) -> AnyArtifact:
        manifest = load_artifact(path).manifest
        path.write_bytes(b"an older version")
        write_manifest(dataclasses.replace(manifest, file=file_record(path), created="long ago"), path)
        return load_artifact(path)

    return make


@pytest.fixture(scope="session")
def random_images() -> Callable[..., np.ndarray]:
    """Factory of random uint8 RGB images of a shape."""
    return lambda *shape, seed=0: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def build_tiny(
    write_graph: Callable[..., GraphArtifact], random_images: Callable[..., np.ndarray]
) -> Callable[..., Path]:
    """Builder of an engine under ``root/engines`` from a graph under ``root/export``; returns the engine's folder."""
    from mvde.engines.base import EngineId
    from mvde.engines.build import build_engine, graph_weight_bits
    from mvde.export.precision import LowerOptions, lower_graph

    def build(root: Path, engine_id: str = "openvino:fp32", **graph: object) -> Path:
        source = write_graph(root / "export", **graph)
        height, width = source.manifest.resolution
        images = random_images(3, height, width, 3)
        parsed = EngineId.parse(engine_id)
        bits = graph_weight_bits(parsed) if parsed.precision.is_quantized and parsed.backend else 8
        lowered = partial(lower_graph, options=LowerOptions(weight_bits=bits))
        report = build_engine(source, parsed, images, root=root / "engines", lower_graph=lowered)
        return report.folder

    return build


@pytest.fixture(scope="session")
def engine_folder(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an openvino:fp32 engine at 32×48 with 16-pixel patches; read-only by convention."""
    pytest.importorskip("openvino")
    return build_tiny(tmp_path_factory.mktemp("robot"))


@pytest.fixture(scope="session")
def engines_of_two_sizes(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of one model's engines at 32×48 and 64×96; read-only by convention."""
    pytest.importorskip("openvino")
    root = tmp_path_factory.mktemp("two_sizes")
    return [build_tiny(root, resolution=size) for size in ((32, 48), (64, 96))]


@pytest.fixture(scope="session")
def build_offset(write_graph: Callable[..., GraphArtifact], random_images: Callable[..., np.ndarray]) -> Callable:
    """Builder of an engine whose depth is the tiny graph's plus ``metres``, from a constant as large as the image.

    OpenVINO uses such a constant in place in the blob, like a network's weights.
    """
    pytest.importorskip("onnx")
    from onnx import helper, load, numpy_helper, save

    from mvde.engines.base import EngineId
    from mvde.engines.build import build_engine
    from mvde.export.precision import lower_graph

    def build(root: Path, metres: float, engine_id: str = "openvino:fp32", *, is_external: bool = False) -> Path:
        graph = write_graph(root / "export", resolution=(256, 384))
        model = load(str(graph.path))
        model.graph.node[1].input[0] = "brighter"
        model.graph.node.insert(1, helper.make_node("Add", ["pixels", "levels"], ["brighter"]))
        levels = (metres + np.linspace(0, 0.5, 3 * 256 * 384).reshape(1, 256, 384, 3)) * 255 / 4
        model.graph.initializer.append(numpy_helper.from_array(levels.astype(np.float32), "levels"))
        external = "weights.data" if is_external else None
        save(model, str(graph.path), save_as_external_data=is_external, location=external, size_threshold=1024)
        companions = (file_record(graph.path.with_name("weights.data")),) if is_external else ()
        manifest = dataclasses.replace(graph.manifest, file=file_record(graph.path), companions=companions)
        write_manifest(manifest, graph.path)
        source, images = load_graph(graph.path), random_images(1, 256, 384, 3)
        parsed = EngineId.parse(engine_id)
        return build_engine(source, parsed, images, root=root / "engines", lower_graph=lower_graph).folder

    return build
