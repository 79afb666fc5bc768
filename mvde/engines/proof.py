"""Parity of an engine's outputs with the fp32 graph's, at build time or later on the machine with the device."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.artifact import EngineArtifact, GraphArtifact, load_artifact, write_manifest
from mvde.contract import OutputRole
from mvde.engines.backends import backend
from mvde.engines.base import Backend, BuildOptions, Engine
from mvde.engines.compile import Recipe, open_compiled
from mvde.engines.onnxruntime.engine import open_onnx
from mvde.engines.opened import opened
from mvde.engines.store import check_machine
from mvde.engines.tolerances import check_output, check_tolerance
from mvde.errors import ArtifactError, UsageError
from mvde.manifest import EngineManifest, Manifest
from mvde.parity import compare_depth, merge_reports
from mvde.records import EngineParity, ParityReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.base import Maps

REFERENCE_FILE = "engine.reference.npz"

LAYERS_FILE = "engine.layers.json"
"""The library's layer report; written only if there is one and a device was available to load the engine."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """Reference for parity: images (K, H, W, 3), uint8 RGB, and the fp32 graph's outputs, each (K, H, W), float32."""

    images: NDArray[np.uint8]
    maps: Maps

    @classmethod
    def of_graph(cls, source: GraphArtifact, images: NDArray[np.uint8]) -> Reference:
        """Run the fp32 graph on the images with ONNX Runtime."""
        with contextlib.closing(open_onnx(source.path, outputs=source.manifest.output_names)) as graph:
            return cls(images, infer_batches(graph, images, source.manifest.batch))

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read a reference written by :meth:`write`. Raises :class:`ArtifactError` if missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["images"], {role: stored[role.value] for role in OutputRole if role.value in stored})
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"cannot read the reference {path} that the engine is measured against: {error}"
            ) from error

    def write(self, folder: Path) -> str:
        """Write to ``folder``, so that proving needs neither the graph nor ONNX Runtime; return the file name."""
        arrays: dict[str, Any] = {role.value: one for role, one in self.maps.items()}
        np.savez_compressed(folder / REFERENCE_FILE, images=self.images, **arrays)
        return REFERENCE_FILE


def compare_each(candidate: NDArray[np.float32], reference: NDArray[np.float32], manifest: Manifest) -> ParityReport:
    """Compare batches of the manifest's maps (K, H, W) image by image, to bound memory, and merge the reports."""
    patch, kind = manifest.stats_patch, manifest.depth_kind
    pairs = zip(candidate, reference, strict=True)
    return merge_reports([compare_depth(one[None], other[None], patch, kind=kind) for one, other in pairs])


def infer_batches(engine: Engine, images: NDArray[np.uint8], batch: int) -> Maps:
    """Infer the outputs, each (K, H, W), of K images in batches of ``batch``; the last batch is padded."""
    parts = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)])
        parts.append({role: one[: len(chunk)] for role, one in engine.infer_maps(padded).items()})
    return {role: np.concatenate([part[role] for part in parts]) for role in parts[0]}


def prove_build(
    recipe: Recipe, staging: Path, manifest: EngineManifest, options: BuildOptions, reference: Reference
) -> tuple[ParityReport, float]:
    """Measure parity of the engine in ``staging`` with its fp32 graph, and the load time in seconds.

    Raises :class:`ParityError` beyond the tolerance of the engine's precision, for the engine or a rebuild of it.
    """
    engine, load_s = _loaded(recipe.backend, staging, manifest)
    with contextlib.closing(engine):
        if layers := engine.layers():
            (staging / LAYERS_FILE).write_text(layers, encoding="utf-8")
        maps = infer_batches(engine, reference.images, manifest.batch)
    report = checked_parity(maps, reference.maps, manifest)
    for number in range(2, options.num_builds + 1):
        rebuilt = _rebuilt_maps(recipe, staging, options, reference)
        what = f"build {number} of {options.num_builds} of {recipe.engine_id} (against build 1)"
        checked_parity(rebuilt, maps, manifest, what)
    return report, load_s


def checked_parity(candidate: Maps, reference: Maps, manifest: EngineManifest, what: str = "") -> ParityReport:
    """Report of the depth, after a check of every output, each (K, H, W).

    Raises :class:`ParityError` unless all are inside the tolerance of the engine's precision.
    """
    report = compare_each(candidate[OutputRole.DEPTH], reference[OutputRole.DEPTH], manifest)
    low, high = manifest.valid_range
    tolerance, what = manifest.parity.tolerance, what or f"engine {manifest.engine.id}"
    check_tolerance(report, tolerance, high - low, what)
    for output in manifest.outputs[1:]:
        if output.role not in reference:
            raise ArtifactError(f"the reference of {what} has no {output.role}; build it again")
        check_output(output, candidate[output.role], reference[output.role], tolerance, what)
    return report


def measured_parity(manifest: EngineManifest, report: ParityReport | None) -> EngineParity:
    """The manifest's parity with the report and the device it was measured on; ``None`` leaves it unproved."""
    device = backend(manifest.engine.backend).device_facts() if report is not None else None
    return dataclasses.replace(manifest.parity, measured=report, measured_on=device)


@dataclasses.dataclass(frozen=True)
class Proof:
    """Result of proving an engine: parity, and load time in seconds."""

    folder: Path
    manifest: EngineManifest
    parity: ParityReport
    load_s: float


def prove_engine(path: Path) -> Proof:
    """Measure parity of the engine at ``path`` (folder or file) on this machine and record it in the manifest.

    Uses the reference stored beside the engine; neither the graph nor ONNX Runtime is needed. Raises
    :class:`IncompatibleEngineError` if it cannot run here, :class:`ParityError` beyond the tolerance: the manifest is
    then unchanged, and the engine stays unusable.
    """
    artifact = _engine_at(path)
    manifest, folder = artifact.manifest, artifact.path.parent
    check_machine(manifest, str(folder))
    reference = Reference.read(folder / REFERENCE_FILE)
    engine, load_s = _loaded(backend(manifest.engine.backend), folder, manifest)
    with contextlib.closing(engine):
        maps = infer_batches(engine, reference.images, manifest.batch)
    report = checked_parity(maps, reference.maps, manifest)
    proved = dataclasses.replace(manifest, parity=measured_parity(manifest, report))
    write_manifest(proved, artifact.path)
    return Proof(folder, proved, report, load_s)


def _engine_at(path: Path) -> EngineArtifact:
    """Load and verify the engine at a path. Raises :class:`UsageError` if it has no stored reference."""
    artifact = load_artifact(path / "engine.json" if path.is_dir() else path)
    if not isinstance(artifact.manifest, EngineManifest):
        raise UsageError(f"{artifact.path} is an ONNX graph; `mvde prove` measures an engine that `mvde build` wrote")
    manifest = artifact.manifest
    if REFERENCE_FILE not in {record.name for record in manifest.companions}:
        raise UsageError(
            f"{artifact.path.parent} has no reference: {manifest.engine.backend} engines are measured when they are "
            "built"
        )
    return EngineArtifact(artifact.path, manifest)


def _rebuilt_maps(recipe: Recipe, folder: Path, options: BuildOptions, reference: Reference) -> Maps:
    """Outputs, each (K, H, W), of the reference's images from a temporary rebuild of the recipe."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        engine = open_compiled(recipe, Path(scratch), recipe.backend.rebuild_options(options))
        with contextlib.closing(engine):
            return infer_batches(engine, reference.images, engine.info.batch)


def _loaded(served_by: Backend, folder: Path, manifest: EngineManifest) -> tuple[Engine, float]:
    """Load the engine in ``folder``; return it and the load time in seconds."""
    started = time.perf_counter()
    engine = served_by.load(opened(folder / manifest.file.name, manifest))
    return engine, time.perf_counter() - started
