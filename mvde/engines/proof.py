"""Proof: an engine's depth against the fp32 graph's, at the build, or later on the machine that has the device."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvde.artifact import GraphArtifact, load_artifact, write_manifest
from mvde.engines import onnxruntime
from mvde.engines.store import backend_module, check_machine
from mvde.engines.tolerances import TOLERANCES, check_tolerance
from mvde.errors import ArtifactError, UsageError
from mvde.manifest import EngineManifest, GraphManifest
from mvde.parity import compare_depth, merge_reports
from mvde.records import EngineParity, ParityReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.base import Engine
    from mvde.records import EngineRecord, GraphParity

REFERENCE_FILE = "engine.reference.npz"
REFERENCE = "the exported fp32 graph in ONNX Runtime"

Infer = Callable[["NDArray[np.uint8]"], "NDArray[np.float32]"]


@dataclasses.dataclass(frozen=True)
class Reference:
    """What an engine is compared with: images (K, H, W, 3), uint8 RGB, and the fp32 graph's depth (K, H, W) of them."""

    images: NDArray[np.uint8]
    depth: NDArray[np.float32]

    @classmethod
    def of_graph(cls, source: GraphArtifact, images: NDArray[np.uint8]) -> Reference:
        """The fp32 graph's depth of the images, by ONNX Runtime."""
        with contextlib.closing(onnxruntime.open_onnx(source.path)) as graph:
            return cls(images, infer_batches(graph.infer, images, source.manifest.batch))

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Reference that :meth:`write` wrote. Raises :class:`ArtifactError` where it is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["images"], stored["depth"])
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"cannot read the reference {path} that an engine is measured against: {error}"
            ) from error

    def write(self, folder: Path) -> str:
        """Name of the file written to ``folder``: with it an engine is measured without the graph and ONNX Runtime."""
        np.savez_compressed(folder / REFERENCE_FILE, images=self.images, depth=self.depth)
        return REFERENCE_FILE


def measure(engine: Engine, reference: Reference, patch_size: int) -> ParityReport:
    """Differences between an engine and the reference."""
    depth = infer_batches(engine.infer, reference.images, engine.info.batch)
    return compare_each(depth, reference.depth, patch_size)


def compare_each(candidate: NDArray[np.float32], reference: NDArray[np.float32], patch_size: int) -> ParityReport:
    """One report over depth batches (K, H, W), compared image by image, which bounds the memory."""
    pairs = zip(candidate, reference, strict=True)
    return merge_reports([compare_depth(one[None], other[None], patch_size) for one, other in pairs])


def infer_batches(infer: Infer, images: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    """Depth (K, H, W) of K images through a call that takes ``batch`` of them; the last batch is filled up."""
    parts = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)])
        parts.append(np.asarray(infer(padded))[: len(chunk)])
    return np.concatenate(parts)


def check_parity(report: ParityReport, manifest: EngineManifest, what: str = "") -> None:
    """Raise :class:`ParityError` unless the report is inside the tolerance of the engine's precision."""
    record = manifest.engine
    low, high = manifest.depth_range_m
    check_tolerance(report, TOLERANCES[record.precision], high - low, what or f"engine {record.id}")


def parity_record(report: ParityReport | None, record: EngineRecord, export: GraphParity) -> EngineParity:
    """What the manifest says of parity: the measured differences and where, or that nothing was measured."""
    backend = backend_module(record.backend)
    device = backend.device_facts() if report is not None and hasattr(backend, "device_facts") else None
    return EngineParity(REFERENCE, TOLERANCES[record.precision], export, report, device)


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was measured, and the seconds that the engine took to load."""

    folder: Path
    manifest: EngineManifest
    parity: ParityReport
    load_s: float


def prove_engine(path: Path) -> Proof:
    """The engine at ``path`` (its folder or file), measured on this machine and stamped.

    The reference lies beside the engine; neither the graph nor ONNX Runtime is needed. Raises
    :class:`IncompatibleEngineError` where it cannot run here, :class:`ParityError` past the tolerance: the manifest
    stays as it was then, and the engine unusable.
    """
    artifact = load_artifact(path / "engine.json" if path.is_dir() else path)
    manifest, folder = artifact.manifest, artifact.path.parent
    if isinstance(manifest, GraphManifest):
        raise UsageError(f"{artifact.path} is an ONNX graph; `mvde prove` measures an engine that `mvde build` wrote")
    if REFERENCE_FILE not in {record.name for record in manifest.companions}:
        raise UsageError(
            f"{folder} carries no reference: {manifest.engine.backend} engines are measured as they are built"
        )
    check_machine(manifest, str(folder))
    reference = Reference.read(folder / REFERENCE_FILE)
    started = time.perf_counter()
    engine: Engine = backend_module(manifest.engine.backend).load(artifact.path, manifest)
    load_s = time.perf_counter() - started
    with contextlib.closing(engine):
        report = measure(engine, reference, manifest.patch_size)
    check_parity(report, manifest)
    stamped = dataclasses.replace(manifest, parity=parity_record(report, manifest.engine, manifest.parity.export))
    write_manifest(stamped, artifact.path)
    return Proof(folder, stamped, report, load_s)
