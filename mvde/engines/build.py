"""Building: an exported graph → an engine for this machine, measured against the graph before it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.artifact import ENGINE_DIR, GraphArtifact, write_manifest
from mvde.engines import onnxruntime
from mvde.engines.base import BuildOptions, Compiled, Engine, EngineId, Graph
from mvde.engines.machine import cpu_features
from mvde.engines.proof import Reference, check_parity, compare_each, infer_batches, parity_record
from mvde.engines.store import backend_module, engine_folder, resolve, support
from mvde.engines.tensorrt.options import TensorRtOptions
from mvde.engines.tune import tuned_options
from mvde.errors import BackendError, MissingDependencyError, UsageError
from mvde.files import file_record, staged_write
from mvde.manifest import EngineManifest, Manifest
from mvde.precision import Precision
from mvde.records import EngineRecord, ParityReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LowerGraph = Callable[[Graph, str, Path], Graph]
"""(graph, precision, folder) → the same graph in that precision, written to the folder."""


REST_PRECISIONS = ("fp32", "bf16", "fp16")
"""What the nodes of an int8 graph that are not quantised may compute in."""

LAYERS_FILE = "engine.layers.json"
"""What the library says of the engine's layers, where it says anything and a device could load the engine."""


@dataclass(frozen=True)
class BuildReport:
    """What a build made and measured: seconds to compile and load, parity with the fp32 graph (None: no device).

    ``warnings`` are known errors of the combination that the parity check has to find.
    """

    folder: Path
    manifest: EngineManifest
    compile_s: float
    load_s: float | None
    parity: ParityReport | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Job:
    """What a build is asked for."""

    source: GraphArtifact
    engine_id: EngineId
    options: BuildOptions
    lower_graph: LowerGraph | None

    @property
    def backend(self) -> Any:
        return backend_module(str(self.engine_id.backend))


def build_engine(
    source: GraphArtifact,
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
    Without a device nothing is compared: the reference is stored beside the engine, which says that it is unproved.

    Raises :class:`BackendError` where this machine cannot execute the id, :class:`ParityError` past the tolerance,
    :class:`MissingDependencyError` without ONNX Runtime; then nothing is written and an older engine stays.
    """
    options = options or BuildOptions()
    job = _Job(source, _resolved(engine_id, options), options, lower_graph)
    _check_reference_runs()
    warnings = _check_source(job, root)
    folder = engine_folder(source.manifest, job.engine_id, root, _content_key(job))
    existed = folder.is_dir()
    try:
        with staged_write(folder, "engine") as staging, tempfile.TemporaryDirectory(dir=staging) as scratch:
            graph = _graph(job, Path(scratch))  # lowered once, however often it is compiled: that may take minutes
            manifest, compile_s = _compile(job, graph, staging, images)
            manifest = _with_known_errors(manifest, warnings)
            reference = Reference.of_graph(source, images)
            proved = None if options.without_device else _prove(job, graph, staging, manifest, reference)
            parity, load_s = proved or (None, None)
            if hasattr(job.backend, "device_facts"):  # so that another machine's GPU can be measured, too
                manifest = _with_companions(manifest, staging, reference.write(staging), LAYERS_FILE)
            stated = parity_record(parity, manifest.engine, source.manifest.parity)
            manifest = dataclasses.replace(manifest, parity=stated)
            write_manifest(manifest, staging / manifest.file.name)
    except BaseException:
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return BuildReport(folder, manifest, compile_s, load_s, parity, tuple(warnings))


def _with_known_errors(manifest: EngineManifest, warnings: list[str]) -> EngineManifest:
    """The manifest with what was known to go wrong when the engine was built all the same."""
    engine = dataclasses.replace(manifest.engine, known_errors=tuple(warnings))
    return dataclasses.replace(manifest, engine=engine)


def _with_companions(manifest: EngineManifest, staging: Path, *names: str) -> EngineManifest:
    """The manifest with those of the files that were written."""
    records = [file_record(staging / name) for name in names if (staging / name).is_file()]
    return dataclasses.replace(manifest, companions=(*manifest.companions, *records))


def _resolved(engine_id: EngineId, options: BuildOptions) -> EngineId:
    """The id with its backend. Raises :class:`UsageError` for options that do not go with it."""
    if options.without_device and engine_id.backend is None:
        raise UsageError(f"--without-device needs an engine id with its backend, such as tensorrt-rtx:{engine_id}")
    if options.without_device and options.num_builds > 1:
        raise UsageError("--verify-builds compares what engines compute, which needs the device; leave it out")
    if not options.without_device:
        engine_id = resolve(engine_id)
    on_gpu = hasattr(backend_module(str(engine_id.backend)), "device_facts")
    if on_gpu and options.tune_s is not None:
        raise UsageError(f"--tune is for engines on the CPU; {engine_id} is timed by its library while it is built")
    if not on_gpu and (options.without_device or options.tensorrt != TensorRtOptions()):
        raise UsageError(f"--without-device and TensorRT's options do not go with {engine_id}; leave them out")
    if options.rest is not None:
        _check_rest(engine_id, options.rest)
    return engine_id


def _check_rest(engine_id: EngineId, rest: str) -> None:
    """Nothing, if what an int8 engine does not quantise can compute in ``rest`` here."""
    if str(engine_id) != "openvino:int8":
        raise UsageError(f"--rest goes with openvino:int8 alone, but this is {engine_id}; leave it out")
    if rest not in REST_PRECISIONS:
        raise UsageError(f"the rest of an int8 engine cannot be {rest!r}; use {' or '.join(REST_PRECISIONS)}")
    found = support(EngineId("openvino", Precision(rest)))
    if not found.works:
        raise BackendError(f"--rest {rest}: {found.note}")


def _check_source(job: _Job, root: Path) -> list[str]:
    """Warnings of the backend; it raises for what is known to fail before minutes are spent."""
    check = getattr(job.backend, "check_source", None)
    warnings: list[str] = check(job.source.manifest, job.engine_id.precision, job.options, root) if check else []
    return warnings


def _content_key(job: _Job) -> str:
    key = getattr(job.backend, "content_key", None)
    return str(key(job.source.manifest, job.engine_id.precision, job.options)) if key else ""


def _graph(job: _Job, folder: Path) -> Graph:
    """The graph to compile: the exported one, or the one in the engine's precision, written to ``folder``."""
    source, precision = job.source, job.engine_id.precision
    graph = Graph(source.path, source.companions)
    if precision not in job.backend.LOWERED_PRECISIONS:
        return graph
    if job.lower_graph is None:
        raise UsageError(f"engine {job.engine_id} needs the graph in {precision}; pass lower_graph")
    return job.lower_graph(graph, precision, folder)


def _compile(
    job: _Job, graph: Graph, staging: Path, images: NDArray[np.uint8] | None = None
) -> tuple[EngineManifest, float]:
    """Manifest (parity still the export's) of the engine written to ``staging``, and the seconds it took.

    With ``images`` the backend's settings are tuned on them before, if that was asked for.
    """
    source, engine_id = job.source, job.engine_id
    started = time.perf_counter()
    options, tuning = job.options, None
    if options.tune_s is not None and images is not None:
        options, tuning = tuned_options(job.backend, engine_id.precision, options, partial(_opened, job, graph), images)
    compiled = job.backend.compile_graph(graph, staging, engine_id.precision, options)
    compile_s = time.perf_counter() - started
    manifest = _manifest(source, engine_id, staging, compiled, job.backend.library_version(), graph)
    engine = dataclasses.replace(manifest.engine, tuning=tuning)
    return dataclasses.replace(manifest, engine=engine), compile_s


def _opened(job: _Job, graph: Graph, folder: Path, options: BuildOptions) -> Engine:
    """The engine that these options make of a graph, compiled into ``folder`` and loaded, as it would be in the end."""
    compiled = job.backend.compile_graph(graph, folder, job.engine_id.precision, options)
    manifest = _manifest(job.source, job.engine_id, folder, compiled, job.backend.library_version(), graph)
    engine: Engine = job.backend.load(folder / manifest.file.name, manifest)
    return engine


def _prove(
    job: _Job, graph: Graph, staging: Path, manifest: EngineManifest, reference: Reference
) -> tuple[ParityReport, float]:
    """Parity of the staged engine with its fp32 graph, and the seconds it took to load.

    Raises :class:`ParityError` past the tolerance of the engine's precision, for the engine or for a rebuild of it.
    """
    depth, load_s = _depth(job, staging, manifest, reference)
    report = compare_each(depth, reference.depth, manifest.patch_size)
    check_parity(report, manifest)
    for number in range(2, job.options.num_builds + 1):
        with tempfile.TemporaryDirectory(dir=staging) as scratch:
            # Without the timing cache: with it a rebuild takes the same kernels and shows nothing.
            tensorrt = dataclasses.replace(job.options.tensorrt, timing_cache=False)
            again = dataclasses.replace(job, options=dataclasses.replace(job.options, tensorrt=tensorrt))
            other, _ = _compile(again, graph, Path(scratch))
            rebuilt, _ = _depth(again, Path(scratch), other, reference)
        drift = compare_each(rebuilt, depth, manifest.patch_size)
        check_parity(
            drift, manifest, f"build {number} of {job.options.num_builds} of {job.engine_id} (against build 1)"
        )
    return report, load_s


def _depth(
    job: _Job, folder: Path, manifest: EngineManifest, reference: Reference
) -> tuple[NDArray[np.float32], float]:
    """Depth (K, H, W) of the reference's images by the engine in ``folder``, and the seconds it took to load."""
    started = time.perf_counter()
    engine: Engine = job.backend.load(folder / manifest.file.name, manifest)
    load_s = time.perf_counter() - started
    with contextlib.closing(engine):
        if hasattr(engine, "layers"):
            (folder / LAYERS_FILE).write_text(engine.layers(), encoding="utf-8")
        return infer_batches(engine.infer, reference.images, manifest.batch), load_s


def _check_reference_runs() -> None:
    """Nothing, if the fp32 graph can be run to compare with; found out before minutes of compiling."""
    try:
        onnxruntime.library_version()
    except MissingDependencyError as error:
        purpose = "comparing an engine with its fp32 graph"
        raise MissingDependencyError.for_extra("onnxruntime", "onnxruntime", purpose) from error


def _manifest(
    source: GraphArtifact, engine_id: EngineId, staging: Path, compiled: Compiled, version: str, graph: Graph
) -> EngineManifest:
    main, *others = (file_record(staging / name) for name in compiled.file_names)
    record = EngineRecord(
        id=str(engine_id),
        backend=str(engine_id.backend),
        precision=engine_id.precision,
        executed_precision=compiled.executed_precision,
        device=compiled.device,
        library_version=version,
        cpu_features=cpu_features() if compiled.uses_cpu else (),
        options=compiled.options,
        onnx_sha256=source.manifest.file.sha256,
        rewrites=compiled.rewrites,
        cuda=compiled.cuda,
    )
    shared = {spec.name: getattr(source.manifest, spec.name) for spec in dataclasses.fields(Manifest)}
    changed = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "file": main,
        "companions": tuple(others),
        "tools": {**source.manifest.tools, str(engine_id.backend): version},
        "lowering": graph.precision,
    }
    unmeasured = parity_record(None, record, source.manifest.parity)
    return EngineManifest(**{**shared, **changed}, engine=record, parity=unmeasured)
