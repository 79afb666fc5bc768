"""From an fp32 ONNX file to a typed one: decided on calibration images, judged on others, and what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.engines.base import Graph
from mvde.errors import UsageError
from mvde.export.precision.emulate import emulated
from mvde.export.precision.gate import check, judge
from mvde.export.precision.images import check_images, default_images, fingerprint
from mvde.export.precision.load import load_fp32, multiply_adds
from mvde.export.precision.options import METHODS, RESTS, HeldOut, LowerOptions
from mvde.export.precision.plan import Plan, lower_rest, plan_floats
from mvde.export.precision.probe import Probe
from mvde.export.precision.products import plan_products
from mvde.export.precision.promise import num_attention, num_by_dtype, num_layer_norm
from mvde.export.precision.targets import GATE
from mvde.files import sha256_file
from mvde.precision import Precision
from mvde.records import CalibrationRecord, GateRecord, GateRun, LoweringRecord

if TYPE_CHECKING:
    import onnx_ir as ir

LOWERED = ("fp16", "bf16", "int8", "fp8")

_ARITHMETIC = "ONNX Runtime on the CPU in float32, every fp16 or bf16 tensor rounded to its dtype"
_MAX_IMAGES, _MIN_IMAGES = 96, 4
_IMAGE_WORK = 1e12
"""Multiply-adds that the default images may cost, so that a large model is decided on few and a small one on all."""
_PROBE_WORK, _MAX_PROBE_IMAGES = 1e11, 12
"""The same for each of the several dozen measurements that decide what is lowered."""


def lower_graph(graph: Graph, precision: str, folder: Path, options: LowerOptions | None = None) -> Graph:
    """The graph in ``precision`` (one of :data:`LOWERED`), written to ``folder``; input and output keep their dtypes.

    Its ``precision`` record says what a parser should find in it, what stayed in fp32 and why, and what the gate
    measured. Raises :class:`UsageError` for wrong options, a graph that is typed already or an opset without the
    dtype, :class:`BackendError` for a graph that cannot be lowered, :class:`ParityError` past the tolerance; then
    nothing is written.
    """
    options = options or LowerOptions()
    check_options(precision, options)
    wide = f"{precision}+fp16" if _is_quantized(precision) and options.rest == "fp16" else precision
    base = load_fp32(graph.path, wide)
    images, held_out = _images(base, options)
    plan = _plan(base, precision, images, options)
    target = typed_path(folder / graph.path.name, precision, options.rest)
    try:
        files = _save(plan.model, target)
        options.progress(f"comparing with fp32 on {sum(len(item.images) for item in held_out)} held-out images")
        reports = _judge(target, base, held_out, precision, plan, options.patch_size)
    except BaseException:
        for path in (target, target.with_suffix(".data")):
            path.unlink(missing_ok=True)
        raise
    record = _record(graph, target, precision, plan)
    return Graph(
        files[0],
        files[1:],
        replace(
            record,
            calibration=CalibrationRecord(len(images), fingerprint(images), plan.method, plan.balanced),
            gate=GateRecord(_ARITHMETIC, GATE[precision], tuple(reports)),
        ),
    )


def typed_path(path: Path, precision: str, rest: str = "fp32") -> Path:
    """Where the typed form of the graph at ``path`` lies: beside it, ``nano-192x192.int8-fp16.onnx``."""
    suffix = f"-{rest}" if _is_quantized(precision) and rest != "fp32" else ""
    return path.with_name(f"{path.stem}.{precision}{suffix}.onnx")


def check_options(precision: str, options: LowerOptions) -> None:
    """Nothing, if there is such a precision, calibration method and rest. Raises :class:`UsageError` naming them."""
    if precision not in LOWERED:
        raise UsageError(f"cannot write a {precision} graph; expected one of {', '.join(LOWERED)}")
    if options.method not in (*METHODS, "auto"):
        raise UsageError(f"calibration method {options.method!r} is unknown; use auto, {', '.join(METHODS)}")
    if options.rest not in RESTS:
        raise UsageError(f"the rest of a quantised graph cannot be {options.rest!r}; use {' or '.join(RESTS)}")


def _is_quantized(precision: str) -> bool:
    return precision in {"int8", "fp8"}


def _images(base: ir.Model, options: LowerOptions) -> tuple[NDArray[np.uint8], tuple[HeldOut, ...]]:
    shape = base.graph.inputs[0].shape
    assert shape is not None
    resolution = (shape.numpy()[1], shape.numpy()[2])
    limit = max(_MIN_IMAGES, min(_MAX_IMAGES, int(_IMAGE_WORK // max(1, multiply_adds(base)))))
    calibration, held_out = options.calibration, options.held_out
    if calibration is None or not held_out:
        ours, others = default_images(resolution, limit)
        calibration = ours if calibration is None else calibration
        held_out = held_out or (others,)
    check_images(calibration, resolution, "calibration images")
    for item in held_out:
        check_images(item.images, resolution, f"held-out images ({item.name})")
    return calibration, held_out


def _plan(base: ir.Model, precision: str, images: NDArray[np.uint8], options: LowerOptions) -> Plan:
    probe = _probe(base, images, options)
    if not _is_quantized(precision):
        return plan_floats(base, precision, probe)
    plan = plan_products(base, precision, probe, images, options.method, options.rest)
    return plan if options.rest == "fp32" else lower_rest(plan, base, options.rest, probe)


def _probe(model: ir.Model, images: NDArray[np.uint8], options: LowerOptions) -> Probe:
    count = max(1, min(len(images), _MAX_PROBE_IMAGES, int(_PROBE_WORK // max(1, multiply_adds(model)))))
    taken = images[np.linspace(0, len(images) - 1, count).astype(int)]
    return Probe(model, taken, options.patch_size, options.progress)


def _save(model: ir.Model, target: Path) -> tuple[Path, ...]:
    from mvde.export.serialize import save_model

    metadata = dict(model.metadata_props)
    records = save_model(model.clone(), target, metadata)
    return tuple(target.with_name(record.name) for record in records)


def _judge(
    target: Path, base: ir.Model, held_out: Sequence[HeldOut], precision: str, plan: Plan, patch_size: int
) -> list[GateRun]:
    """What the gate measured of the file. Raises :class:`ParityError` past the tolerance."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    typed = ShapeInferencePass()(ir.load(target)).model
    reports = judge(emulated(typed), base, held_out, patch_size)
    check(reports, GATE[precision], f"the {precision} graph {target.name}", partial(_blame, plan))
    return reports


def _blame(plan: Plan) -> str:
    """What to look at where the gate refuses a graph."""
    worst = [f"{item.groups[0].name} (mean {item.effect.mean_rel:.1e})" for item in plan.decision.worst(3)]
    advice = "Calibrate on images like the robot's (--calibration FOLDER), or take a higher precision"
    return f"Of the lowered nodes, these move depth most: {'; '.join(worst) or 'none'}. {advice}"


def _record(graph: Graph, target: Path, precision: str, plan: Plan) -> LoweringRecord:
    import onnx

    model = onnx.load(str(target))
    return LoweringRecord(
        precision=Precision(precision),
        onnx_sha256=sha256_file(graph.path),
        num_by_dtype=num_by_dtype(model),
        num_attention=num_attention(model),
        num_layer_norm=num_layer_norm(model),
        kept=plan.kept,
    )
