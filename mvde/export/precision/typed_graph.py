"""Typed graphs as artefacts, written beside the fp32 graph with their own manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from mvde.artifact import GraphArtifact, load_graph, manifest_path, write_manifest
from mvde.engines.base import Graph
from mvde.errors import ManifestError, UsageError
from mvde.export.precision.lower import lower_graph, typed_path
from mvde.export.precision.lowering_options import LowerOptions
from mvde.files import file_record
from mvde.manifest import installed_versions
from mvde.precision import Precision
from mvde.publish import staged_write

_TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy")


def write_typed(source: GraphArtifact, precision: Precision, options: LowerOptions) -> GraphArtifact:
    """Write the typed graph of an exported one beside it once it passes the gate, replacing an older one.

    Raises what :func:`~mvde.export.precision.lower.lower_graph` raises; then nothing is written.
    """
    if source.manifest.lowering is not None:
        raise UsageError(
            f"{source.path} is typed already ({source.manifest.lowering.precision}); give the fp32 graph it was made "
            "from"
        )
    folder = source.path.parent
    with staged_write(folder, source.path.stem) as staging:
        typed = lower_graph(_graph(source), precision, staging, options)
        manifest = replace(
            source.manifest,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            file=file_record(typed.path),
            companions=tuple(file_record(path) for path in typed.companions),
            tools={**source.manifest.tools, **installed_versions(_TOOLS)},
            lowering=typed.lowering,
        )
        write_manifest(manifest, typed.path)
    return load_graph(folder / typed.path.name)


def find_typed(
    source: GraphArtifact, precision: Precision, rest: Precision = Precision.FP32, weight_bits: int = 8
) -> GraphArtifact | None:
    """Find the typed graph beside an exported one, if it was made from its current version; verify its checksum."""
    path = typed_path(source.path, precision, rest, weight_bits)
    if not manifest_path(path).is_file():
        return None
    found = load_graph(path)
    record = found.manifest.lowering
    if record is None:
        raise ManifestError(f"{manifest_path(path)} has no lowering record, so {path} is not a typed graph; delete it")
    return found if record.onnx_sha256 == source.manifest.file.sha256 else None


def lowerer(source: GraphArtifact, options: LowerOptions) -> Callable[[Graph, Precision, Path], Graph]:
    """Return ``mvde build``'s lowering function for ``source``: reuses the typed graph beside it, or makes one."""

    def lower(graph: Graph, precision: Precision, folder: Path) -> Graph:
        found = None
        if options.calibration is None:
            found = find_typed(source, precision, options.rest, options.weight_bits)
        return lower_graph(graph, precision, folder, options) if found is None else _graph(found)

    return lower


def _graph(artifact: GraphArtifact) -> Graph:
    """The files of an exported or typed graph."""
    companions = tuple(artifact.path.with_name(record.name) for record in artifact.manifest.companions)
    return Graph(artifact.path, companions, artifact.manifest.lowering)
