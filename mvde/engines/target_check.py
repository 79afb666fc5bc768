"""What works on another system: engine ids, known errors, opset and precision for it, memory, and the commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mvde.engines.base import EngineId
from mvde.engines.known_bad import Combination, KnownBad, all_known_bad
from mvde.engines.store import all_engine_ids
from mvde.engines.target_commands import commands
from mvde.engines.target_memory import FORMULA, estimate_memory
from mvde.engines.targets import Target
from mvde.engines.tensorrt.api import oldest_version, version_of
from mvde.engines.tensorrt.checks import check_arithmetic
from mvde.engines.tensorrt.parse import FIRST_ATTENTION_OPSET, FIRST_VERSION_WITH_ATTENTION
from mvde.errors import BackendError
from mvde.precision import Precision

if TYPE_CHECKING:
    from mvde.artifact import GraphArtifact

_OPSET_WITHOUT_ATTENTION = 20
_OLDEST_PYTHON = (3, 10)
_TRIED = (Precision.FP16, Precision.BF16, Precision.FP32)
"""Precisions to advise, the first that is not refused: fp16 is what TensorRT runs fastest without calibration."""

_CPU_FALLBACK = EngineId("onnxruntime", Precision.FP32)
_FITS_IN = 0.5
"""Share of a Jetson's memory that engine and frames may take: the rest of the robot's software shares it."""


def check_target(targets: Sequence[Target], graphs: Sequence[GraphArtifact]) -> dict[str, Any]:
    """Judge the first of ``targets`` (see :func:`mvde.engines.targets.find_targets`) for ``graphs``, as JSON types.

    Keys: ``target``, ``engines``, ``known_bad``, ``advice``, ``graphs``, ``memory_formula``, ``commands``, ``others``
    (the further targets in brief), ``sources`` and ``unverified``.
    """
    target = targets[0]
    advice = _advice(target)
    return {
        "target": _facts(target),
        "engines": [_engine(target, engine_id) for engine_id in all_engine_ids()],
        "known_bad": [_known_bad(entry) for entry in _concerning(target)],
        "advice": advice,
        "graphs": [_graph(target, graph, advice) for graph in graphs],
        "memory_formula": FORMULA,
        "commands": [asdict(step) for step in commands(target, advice["engine"], advice["opset"], graphs)],
        "others": [
            {"name": other.name, "title": other.title, "tensorrt": other.tensorrt, "engine": _advice(other)["engine"]}
            for other in targets[1:]
        ],
        "sources": list(target.sources),
        "unverified": list(target.unverified),
    }


def _facts(target: Target) -> dict[str, Any]:
    """What the system carries."""
    system = target.system
    devices = [
        {
            "name": device.name,
            "title": device.title,
            "compute_capability": device.compute_capability,
            "memory_gib": list(device.memory_gib),
        }
        for device in target.devices
    ]
    return {
        "name": target.name,
        "title": target.title,
        "os": target.os,
        "python": system.python if system else None,
        "machine": system.machine if system else None,
        "cuda": system.cuda if system else None,
        "tensorrt": target.tensorrt,
        "newer": asdict(target.newer) if target.newer else None,
        "compute_capabilities": list(target.compute_capabilities),
        "devices": devices,
    }


def _engine(target: Target, engine_id: EngineId) -> dict[str, Any]:
    """Whether an engine id works on all of the target's GPUs, with the reason."""
    refusal = why_not(target, engine_id)
    return {"id": str(engine_id), "works": refusal is None, "note": refusal or _how(target, engine_id)}


def why_not(target: Target, engine_id: EngineId) -> str | None:
    """Reason why an engine id does not work on the target, or ``None``."""
    system = target.system
    if system is not None and version_of(system.python) < _OLDEST_PYTHON:
        return f"{system.os} has Python {system.python}, and mvde needs 3.10"
    match engine_id.backend:
        case "tensorrt":
            return _why_not_tensorrt(target, engine_id.precision)
        case "tensorrt-rtx":
            return _why_not_rtx(target, engine_id.precision)
        case "openvino" if system is not None:
            return f"mvde installs OpenVINO on x86-64 only; use {_CPU_FALLBACK} on the CPU"
        case "onnxruntime" if engine_id.precision not in (Precision.FP32, Precision.FP16, Precision.INT8):
            return f"ONNX Runtime has no products in {engine_id.precision}"
    return None


def _why_not_tensorrt(target: Target, precision: Precision) -> str | None:
    oldest = oldest_version("tensorrt")
    if version_of(target.tensorrt)[:2] < oldest:
        return f"TensorRT {target.tensorrt} is too old: mvde needs {'.'.join(map(str, oldest))}"
    if lacking := _lacking(target, precision):
        return lacking
    refusing = [entry for entry in _matching(target, precision, 1) if entry.level == "refuse"]
    if refusing:
        return f"TensorRT {target.tensorrt}: {'; '.join(f'{entry.id}: {entry.what}' for entry in refusing)}"
    return None


def _why_not_rtx(target: Target, precision: Precision) -> str | None:
    if target.card is None:
        capabilities = ", ".join(target.compute_capabilities)
        return f"TensorRT-RTX has no Jetson among its targets (compute capability {capabilities})"
    if not target.card.tensorrt_rtx:
        return f"TensorRT-RTX does not build for compute capability {target.card.name}"
    return _lacking(target, precision)


def _lacking(target: Target, precision: Precision) -> str | None:
    """Reason why one of the target's GPUs lacks the arithmetic of a precision."""
    try:
        check_arithmetic(precision, target.compute_capabilities)
    except BackendError as error:
        return str(error)
    return None


def _how(target: Target, engine_id: EngineId) -> str:
    """How an engine id that works is run."""
    match engine_id.backend:
        case "tensorrt":
            warned = [entry.id for entry in _matching(target, engine_id.precision, 1)]
            note = f"TensorRT {target.tensorrt}"
            return f"{note}; to be watched: {', '.join(warned)}" if warned else note
        case "tensorrt-rtx":
            return "builds without the GPU, too: --without-device --set compute_capability=" + "".join(
                target.compute_capabilities
            )
        case _:
            return "on the CPU; `mvde doctor` on the machine itself says in which arithmetic"


def _matching(target: Target, precision: Precision, batch: int) -> list[KnownBad]:
    """Known errors of the target's TensorRT for a graph in ``precision`` with ``batch`` images per call."""
    about = Combination("tensorrt", target.tensorrt, target.compute_capabilities, precision, batch)
    return [entry for entry in all_known_bad() if entry.matches(about)]


def _concerning(target: Target) -> list[KnownBad]:
    """Known errors of the target's TensorRT for any graph."""
    found = {entry.id: entry for p in Precision for batch in (1, 2) for entry in _matching(target, p, batch)}
    return [entry for entry in all_known_bad() if entry.id in found]


def _known_bad(entry: KnownBad) -> dict[str, Any]:
    return {
        "id": entry.id,
        "level": entry.level,
        "precisions": [str(precision) for precision in entry.precisions],
        "batches": entry.batches,
        "what": entry.what,
        "advice": entry.advice,
        "sources": list(entry.sources),
    }


def _advice(target: Target) -> dict[str, Any]:
    """Engine id, opset and precision to export and build for the target, and why."""
    has_attention = version_of(target.tensorrt) >= FIRST_VERSION_WITH_ATTENTION
    opset = FIRST_ATTENTION_OPSET if has_attention else _OPSET_WITHOUT_ATTENTION
    for backend in ("tensorrt", "tensorrt-rtx"):
        for precision in _TRIED:
            if why_not(target, EngineId(backend, precision)) is None:
                library = f"TensorRT {target.tensorrt}" if backend == "tensorrt" else "TensorRT-RTX"
                why = f"{library} {'knows' if has_attention else 'does not know'} ONNX's Attention operator"
                return _advised(EngineId(backend, precision), opset, why)
    if why_not(target, _CPU_FALLBACK) is None:
        refused = why_not(target, EngineId("tensorrt", Precision.FP16))
        return _advised(_CPU_FALLBACK, FIRST_ATTENTION_OPSET, f"on the CPU, because of the GPU: {refused}")
    return _advised(None, FIRST_ATTENTION_OPSET, f"nothing works: {why_not(target, _CPU_FALLBACK)}")


def _advised(engine_id: EngineId | None, opset: int, why: str) -> dict[str, Any]:
    return {
        "engine": None if engine_id is None else str(engine_id),
        "precision": None if engine_id is None else str(engine_id.precision),
        "opset": opset,
        "why": why,
    }


def _graph(target: Target, graph: GraphArtifact, advice: dict[str, Any]) -> dict[str, Any]:
    """Problems of a graph on the target, and the memory of its engine in the graph's or the advised precision."""
    manifest = graph.manifest
    lowering = manifest.lowering
    precision = lowering.precision if lowering else Precision(advice["precision"] or Precision.FP32)
    memory = estimate_memory(manifest, precision)
    problems = [str(entry) for entry in _matching(target, precision, manifest.batch)]
    if manifest.opset > advice["opset"]:
        problems.append(
            f"it has opset {manifest.opset}, whose Attention operator TensorRT {target.tensorrt} does not know; export "
            f"it with --opset {advice['opset']}"
        )
    if (lacking := _lacking(target, precision)) is not None:
        problems.append(lacking)
    sizes = [size for device in target.devices for size in device.memory_gib]
    if sizes and memory.running_bytes > _FITS_IN * min(sizes) * 2**30:
        problems.append(
            f"its engine needs about {memory.running_bytes / 2**30:.1f} GiB, more than half of the {min(sizes)} GiB of "
            "the smallest such Jetson; export a smaller --res"
        )
    elif sizes and memory.building_bytes > min(sizes) * 2**30:
        problems.append(
            f"building needs about {memory.building_bytes / 2**30:.1f} GiB, and the smallest such Jetson has "
            f"{min(sizes)}; build with a smaller --set workspace_mib, or on a larger module of the same kind"
        )
    return {
        "path": str(graph.path),
        "name": manifest.name,
        "resolution": list(manifest.resolution),
        "batch": manifest.batch,
        "opset": manifest.opset,
        "precision": str(precision),
        "problems": problems,
        "memory": {**asdict(memory), "running_bytes": memory.running_bytes},
    }
