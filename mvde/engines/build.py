"""Building: an exported graph → an engine for this machine, measured against the graph before it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.artifact import ENGINE_DIR, Artifact, file_record, staged_write, write_manifest
from mvde.engines import onnxruntime
from mvde.engines.base import BuildOptions, Compiled, Engine, EngineId, Graph
from mvde.engines.machine import cpu_features
from mvde.engines.store import backend_module, engine_folder, resolve
from mvde.engines.tolerances import TOLERANCES, check_tolerance
from mvde.errors import MissingDependencyError, UsageError
from mvde.manifest import EngineRecord, Manifest
from mvde.parity import ParityReport, compare_depth, merge_reports

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LowerGraph = Callable[[Graph, str, Path], Graph]
"""(graph, precision, folder) → the same graph in that precision, written to the folder."""


@dataclass(frozen=True)
class BuildReport:
    """What a build made, and what it measured: seconds to compile and to load, parity with the fp32 graph."""

    folder: Path
    manifest: Manifest
    compile_s: float
    load_s: float
    parity: ParityReport


def build_engine(
    source: Artifact,
    engine_id: EngineId,
    images: NDArray[np.uint8],
    *,
    root: Path = ENGINE_DIR,
    options: BuildOptions | None = None,
    lower_graph: LowerGraph | None = None,
) -> BuildReport:
    """The engine built from ``source`` into ``root/NAME-HxW-backend-precision``, after it passed parity.

    ``images`` (K, H, W, 3), uint8 RGB at the graph's resolution, are what the engine and the fp32 graph (run by ONNX
    Runtime) are compared on; ``lower_graph`` writes the graph in a lower precision, for backends that want it so.

    Raises :class:`BackendError` where this machine cannot execute the id, :class:`ParityError` past the tolerance,
    :class:`MissingDependencyError` without ONNX Runtime; then nothing is written and an older engine stays.
    """
    engine_id = resolve(engine_id)
    _check_reference_runs()
    folder = engine_folder(source.manifest, engine_id, root)
    existed = folder.is_dir()
    try:
        with staged_write(folder, "engine") as staging:
            manifest, compile_s = _compile(source, engine_id, staging, options or BuildOptions(), lower_graph)
            parity, load_s = _prove(staging, manifest, source, images)
            manifest = dataclasses.replace(manifest, parity=_parity_record(parity, engine_id, source.manifest))
            write_manifest(manifest, staging / manifest.file.name)
    except BaseException:
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return BuildReport(folder, manifest, compile_s, load_s, parity)


def _compile(
    source: Artifact, engine_id: EngineId, staging: Path, options: BuildOptions, lower_graph: LowerGraph | None
) -> tuple[Manifest, float]:
    """Manifest (parity still the export's) of the engine written to ``staging``, and the seconds it took."""
    backend = backend_module(str(engine_id.backend))
    graph = Graph(source.path, tuple(source.path.with_name(record.name) for record in source.manifest.companions))
    started = time.perf_counter()
    if engine_id.precision in backend.LOWERED_PRECISIONS:
        graph = _lowered(graph, engine_id, staging, lower_graph)
    compiled = backend.compile_graph(graph, staging, engine_id.precision, options)
    compile_s = time.perf_counter() - started
    _remove_others(staging, compiled.file_names)
    return _manifest(source, engine_id, staging, compiled, backend.library_version(), graph), compile_s


def _prove(
    staging: Path, manifest: Manifest, source: Artifact, images: NDArray[np.uint8]
) -> tuple[ParityReport, float]:
    """Parity of the staged engine with its fp32 graph, and the seconds it took to load.

    Raises :class:`ParityError` past the tolerance of the engine's precision.
    """
    assert manifest.engine is not None
    started = time.perf_counter()
    engine: Engine = backend_module(manifest.engine.backend).load(staging / manifest.file.name, manifest)
    load_s = time.perf_counter() - started
    with contextlib.closing(engine):
        report = _measure(engine, source, images)
    low, high = manifest.depth_range_m
    check_tolerance(report, TOLERANCES[manifest.engine.precision], high - low, f"engine {manifest.engine.id}")
    return report, load_s


def _check_reference_runs() -> None:
    """Nothing, if the fp32 graph can be run to compare with; found out before minutes of compiling."""
    try:
        onnxruntime.library_version()
    except MissingDependencyError as error:
        purpose = "comparing an engine with its fp32 graph"
        raise MissingDependencyError.for_extra("onnxruntime", "onnxruntime", purpose) from error


def _lowered(graph: Graph, engine_id: EngineId, staging: Path, lower_graph: LowerGraph | None) -> Graph:
    if lower_graph is None:
        raise UsageError(f"engine {engine_id} needs the graph in {engine_id.precision}; pass lower_graph")
    return lower_graph(graph, engine_id.precision, staging)


def _remove_others(staging: Path, keep: tuple[str, ...]) -> None:
    """Intermediate graphs were staged beside the engine; only the engine's own files are published."""
    for path in staging.iterdir():
        if path.name not in keep:
            path.unlink()


def _manifest(
    source: Artifact, engine_id: EngineId, staging: Path, compiled: Compiled, version: str, graph: Graph
) -> Manifest:
    main, *others = (file_record(staging / name) for name in compiled.file_names)
    record = EngineRecord(
        id=str(engine_id),
        backend=str(engine_id.backend),
        precision=engine_id.precision,
        executed_precision=compiled.executed_precision,
        device=compiled.device,
        library_version=version,
        cpu_features=cpu_features(),
        options=compiled.options,
        onnx_sha256=source.manifest.file.sha256,
    )
    return dataclasses.replace(
        source.manifest,
        kind="engine",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        file=main,
        companions=tuple(others),
        tools={**source.manifest.tools, str(engine_id.backend): version},
        engine=record,
        precision=graph.precision,
    )


def _measure(engine: Engine, source: Artifact, images: NDArray[np.uint8]) -> ParityReport:
    """Differences between the engine and the fp32 graph, a batch of the engine's size at a time."""
    import numpy as np

    reference = onnxruntime.open_onnx(source.path)
    batch, patch_size = source.manifest.batch, source.manifest.patch_size
    reports = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)])
        candidate, expected = engine.infer(padded), reference.infer(padded)
        reports.append(compare_depth(candidate[: len(chunk)], expected[: len(chunk)], patch_size))
    reference.close()
    return merge_reports(reports)


def _parity_record(report: ParityReport, engine_id: EngineId, source: Manifest) -> dict[str, Any]:
    return {
        "reference": "the exported fp32 graph in ONNX Runtime",
        **report.to_dict(),
        "tolerance": dataclasses.asdict(TOLERANCES[engine_id.precision]),
        "export": source.parity,
    }
