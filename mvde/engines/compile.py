"""Compile a recipe into a folder, for builds, tuning and verification rebuilds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mvde.artifact import GraphArtifact
from mvde.engines.base import Backend, BuildOptions, Compiled, Engine, EngineId, Graph
from mvde.engines.opened import opened
from mvde.engines.tolerances import tolerance_of
from mvde.files import file_record
from mvde.manifest import EngineManifest, Manifest
from mvde.records import EngineParity, EngineRecord

REFERENCE = "the exported fp32 graph in ONNX Runtime"


@dataclass(frozen=True)
class Recipe:
    """Inputs of a compilation: the exported fp32 graph, and the graph to compile, which may be lowered."""

    source: GraphArtifact
    graph: Graph
    engine_id: EngineId
    backend: Backend


def compile_engine(recipe: Recipe, folder: Path, options: BuildOptions) -> EngineManifest:
    """Compile into ``folder``; return the manifest, unproved and not yet written."""
    compiled = recipe.backend.compile(recipe.graph, folder, recipe.engine_id.precision, options)
    main, *others = (file_record(folder / name) for name in compiled.file_names)
    source, record = recipe.source.manifest, _record(recipe, compiled)
    shared = {spec.name: getattr(source, spec.name) for spec in dataclasses.fields(Manifest)}
    changed = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "file": main,
        "companions": tuple(others),
        "tools": {**source.tools, record.backend: record.library_version},
        "lowering": recipe.graph.lowering,
    }
    unproved = EngineParity(REFERENCE, tolerance_of(record.precision), export=source.parity)
    return EngineManifest(**{**shared, **changed}, engine=record, parity=unproved)


def open_compiled(recipe: Recipe, folder: Path, options: BuildOptions) -> Engine:
    """Compile into ``folder`` and load the engine as the store would."""
    manifest = compile_engine(recipe, folder, options)
    return recipe.backend.load(opened(folder / manifest.file.name, manifest))


def _record(recipe: Recipe, compiled: Compiled) -> EngineRecord:
    return EngineRecord(
        id=str(recipe.engine_id),
        backend=recipe.backend.name,
        precision=recipe.engine_id.precision,
        executed_precision=compiled.executed_precision,
        device=compiled.device,
        library_version=recipe.backend.library_version(),
        cpu_features=recipe.backend.cpu_features() if compiled.uses_cpu else (),
        options=compiled.options,
        onnx_sha256=recipe.source.manifest.file.sha256,
        rewrites=compiled.rewrites,
        cuda=compiled.cuda,
    )
