"""Build an engine for this machine from an exported graph; keep it only if it passes parity."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.artifact import ENGINE_DIR, GraphArtifact, write_manifest
from mvde.engines.backends import backend
from mvde.engines.base import BuildOptions, EngineId, Graph
from mvde.engines.compile import Recipe, compile_engine
from mvde.engines.float_environment import in_default_float_environment
from mvde.engines.onnxruntime.session import onnxruntime_library
from mvde.engines.proof import LAYERS_FILE, Reference, measured_parity, prove_build
from mvde.engines.store import engine_folder, resolve
from mvde.engines.tune import tuned_options
from mvde.errors import UsageError
from mvde.files import file_record, scratch_folder
from mvde.manifest import EngineManifest
from mvde.precision import Precision
from mvde.publish import publish
from mvde.records import ParityReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.engines.base import Backend

LowerGraph = Callable[[Graph, Precision, Path], Graph]
"""(graph, precision, folder) → the graph lowered to that precision, written to the folder."""


@dataclass(frozen=True)
class BuildReport:
    """Result of a build: compile and load times in seconds, parity with the fp32 graph (None: no device).

    ``warnings`` are known errors of this combination, which only the parity check guards against.
    """

    folder: Path
    manifest: EngineManifest
    compile_s: float
    load_s: float | None
    parity: ParityReport | None
    warnings: tuple[str, ...] = ()


@in_default_float_environment
def build_engine(
    source: GraphArtifact,
    engine_id: EngineId,
    images: NDArray[np.uint8],
    *,
    root: Path = ENGINE_DIR,
    options: BuildOptions | None = None,
    lower_graph: LowerGraph | None = None,
) -> BuildReport:
    """Build an engine from ``source`` into ``root/NAME-HxW-backend-precision`` if it passes parity.

    The engine is compared with the fp32 graph (run by ONNX Runtime) on ``images`` (K, H, W, 3), uint8 RGB at the
    graph's resolution. ``lower_graph`` writes the graph in a lower precision for backends that need it. Without a
    device the engine is left unproved and the reference is stored beside it.

    Raises :class:`BackendError` if this machine cannot execute the id, :class:`ParityError` beyond the tolerance,
    :class:`MissingDependencyError` without ONNX Runtime. On error nothing is written and an existing engine is kept.
    """
    options = options or BuildOptions()
    engine_id = _resolved(engine_id, options)
    warnings = _check(source, engine_id, options, root)
    key = backend(str(engine_id.backend)).content_key(source.manifest, engine_id.precision, options)
    folder = engine_folder(source.manifest, engine_id, root, key)
    with scratch_folder(root, "engine") as staging:
        with tempfile.TemporaryDirectory(dir=staging) as lowered:
            # Lowering may take minutes; do it once, however often the graph is compiled.
            recipe = _recipe(source, engine_id, Path(lowered), lower_graph)
            manifest, compile_s, options = _compiled(recipe, staging, options, images)
            reference = Reference.of_graph(source, images)
            proved = None if options.without_device else prove_build(recipe, staging, manifest, options, reference)
        if recipe.backend.proves_per_device:  # so that it can be proved on another machine's GPU
            manifest = _with_companions(manifest, staging, reference.write(staging), LAYERS_FILE)
        report, load_s = proved or (None, None)
        record = dataclasses.replace(manifest.engine, known_errors=tuple(warnings))
        manifest = dataclasses.replace(manifest, engine=record, parity=measured_parity(manifest, report))
        write_manifest(manifest, staging / manifest.file.name)
        publish(staging, folder)
    return BuildReport(folder, manifest, compile_s, load_s, report, tuple(warnings))


def graph_rest(engine_id: EngineId, rest: Precision | None = None) -> Precision:
    """Precision that the graph of an engine must state for nodes that are not quantised.

    ``engine_id`` has a backend. ``rest`` is their precision in the engine; default: the backend's choice.
    """
    served_by = backend(str(engine_id.backend))
    rests = served_by.rests(engine_id.precision)
    return served_by.graph_rest(rest or rests[0]) if rests else Precision.FP32


def graph_weight_bits(engine_id: EngineId) -> int:
    """Bits of the weights that the graph of an int8 engine must have here; ``engine_id`` has a backend."""
    return backend(str(engine_id.backend)).weight_bits()


def _resolved(engine_id: EngineId, options: BuildOptions) -> EngineId:
    """Resolve the id's backend on this machine; without a device it must be explicit."""
    if not options.without_device:
        return resolve(engine_id)
    if engine_id.backend is None:
        raise UsageError(f"--without-device needs an engine id with its backend, such as tensorrt-rtx:{engine_id}")
    return engine_id


def _check(source: GraphArtifact, engine_id: EngineId, options: BuildOptions, root: Path) -> list[str]:
    """Fail early for a build that cannot succeed; return the backend's warnings."""
    served_by = backend(str(engine_id.backend))
    if options.tune_s is not None:
        served_by.tuning_settings(engine_id.precision, options)  # raises if the backend is not tuned
    _check_rest(engine_id, served_by.rests(engine_id.precision), options.rest)
    onnxruntime_library(purpose="comparing an engine with its fp32 graph")
    return served_by.check_source(source.manifest, engine_id.precision, options, root)


def _check_rest(engine_id: EngineId, rests: Sequence[Precision], rest: Precision | None) -> None:
    """Raise :class:`UsageError` for a rest that the engine does not support."""
    if rest is None or rest in rests:
        return
    if not rests:
        raise UsageError(f"--rest is for engines in int8 and fp8, but this is {engine_id}; leave it out")
    raise UsageError(f"what {engine_id} does not quantise cannot compute in {rest}; use {' or '.join(rests)}")


def _recipe(source: GraphArtifact, engine_id: EngineId, folder: Path, lower_graph: LowerGraph | None) -> Recipe:
    """Recipe with the exported graph, or the graph lowered into ``folder`` if the backend needs it."""
    served_by = backend(str(engine_id.backend))
    graph = Graph(source.path, source.companions)
    if engine_id.precision in served_by.lowered_precisions:
        if lower_graph is None:
            raise UsageError(f"engine {engine_id} needs the graph in {engine_id.precision}; pass lower_graph")
        graph = lower_graph(graph, engine_id.precision, folder)
        _check_weights(graph, engine_id, served_by)
    return Recipe(source, graph, engine_id, served_by)


def _check_weights(graph: Graph, engine_id: EngineId, served_by: Backend) -> None:
    """Raise :class:`UsageError` if the products of an int8 graph would saturate here."""
    calibration = graph.lowering.calibration if graph.lowering is not None else None
    bits, most = (calibration.weight_bits or 8) if calibration is not None else 8, served_by.weight_bits()
    if engine_id.precision is Precision.INT8 and bits > most:
        raise UsageError(
            f"{graph.path.name} has weights of {bits} bits, whose products saturate on this CPU; {engine_id} needs "
            f"{most}: mvde lower GRAPH --to int8 --weight-bits {most}"
        )


def _compiled(
    recipe: Recipe, staging: Path, options: BuildOptions, images: NDArray[np.uint8]
) -> tuple[EngineManifest, float, BuildOptions]:
    """Compile into ``staging``; return manifest, time in seconds, and the options, tuned if requested."""
    started = time.perf_counter()
    if options.tune_s is None:
        return compile_engine(recipe, staging, options), time.perf_counter() - started, options
    options, tuning = tuned_options(recipe, options, options.tune_s, images)
    manifest = compile_engine(recipe, staging, options)
    manifest = dataclasses.replace(manifest, engine=dataclasses.replace(manifest.engine, tuning=tuning))
    return manifest, time.perf_counter() - started, options


def _with_companions(manifest: EngineManifest, staging: Path, *names: str) -> EngineManifest:
    """Add the companion files that exist to the manifest."""
    records = [file_record(staging / name) for name in names if (staging / name).is_file()]
    return dataclasses.replace(manifest, companions=(*manifest.companions, *records))
