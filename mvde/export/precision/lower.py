"""Conversion of an fp32 ONNX file to a typed one: calibrated, then validated on held-out images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.engines.base import Graph
from mvde.export.graph.edit import static_shape
from mvde.export.graph.flops import count_weight_multiply_adds
from mvde.export.graph.load import load_fp32
from mvde.export.graph.save import save_model
from mvde.export.precision import targets
from mvde.export.precision.emulate import emulated
from mvde.export.precision.floats import lower_floats, lower_rest, upcast_attentions
from mvde.export.precision.gate import check, judge
from mvde.export.precision.images import check_images, default_images, fingerprint
from mvde.export.precision.lowered_model import LoweredModel
from mvde.export.precision.lowering_options import HeldOut, LowerOptions, check_lowered
from mvde.export.precision.node_counts import num_attention, num_by_dtype, num_layer_norm
from mvde.export.precision.probe import Probe
from mvde.export.precision.products import lower_products
from mvde.export.precision.quantize import QuantizationGrid
from mvde.files import sha256_file
from mvde.precision import Precision
from mvde.records import CalibrationRecord, GateRecord, LoweringRecord

if TYPE_CHECKING:
    import onnx_ir as ir

_ARITHMETIC = "ONNX Runtime on the CPU in float32, every fp16 or bf16 tensor rounded to its dtype"
_MAX_IMAGES, _MIN_IMAGES = 96, 4
_IMAGE_WORK = 1e12
"""Budget of multiply-adds for the default images: large models use few of them, small models all."""
_PROBE_WORK, _MAX_PROBE_IMAGES = 1e11, 12
"""The same budget for each of the several dozen measurements of the selection."""


def lower_graph(graph: Graph, precision: Precision, folder: Path, options: LowerOptions | None = None) -> Graph:
    """Write the graph in ``precision`` to ``folder``; graph inputs and outputs keep their dtypes.

    Its ``lowering`` record holds node counts by dtype, the nodes kept in fp32 with reasons, and the results of the
    gate. Raises :class:`UsageError` for fp32, a typed graph or an opset without the dtype, :class:`BackendError` for a
    graph that cannot be lowered, :class:`ParityError` outside the tolerance; then nothing is written.
    """
    options = options or LowerOptions()
    check_lowered(precision)
    base = load_fp32(graph.path, precision, options.rest)
    images, held_out = _images(base, options)
    lowered = _lower(base, precision, images, options)
    target = typed_path(folder / graph.path.name, precision, options.rest, options.weight_bits)
    try:
        files = _save(lowered.model, target)
        options.progress(f"comparing with fp32 on {sum(len(item.images) for item in held_out)} held-out images")
        runs = judge(_as_computed(target), base, held_out, options.patch_size, options.depth_kind)
        tolerance = targets.gate_tolerance(precision)
        check(runs, tolerance, f"the {precision} graph {target.name}", partial(_advice, lowered))
    except BaseException:
        for path in (target, *target.parent.glob(f"{target.stem}.*.data")):
            path.unlink(missing_ok=True)
        raise
    record = replace(
        _counted(graph, target, precision),
        kept=lowered.kept,
        calibration=_calibration_record(lowered, images, precision, options.weight_bits),
        gate=GateRecord(_ARITHMETIC, tolerance, runs),
    )
    return Graph(files[0], files[1:], record)


def typed_path(path: Path, precision: Precision, rest: Precision = Precision.FP32, weight_bits: int = 8) -> Path:
    """Path of the typed form of the graph at ``path``: ``nano-192x192.int8-w7-fp16.onnx`` in the same folder."""
    suffix = f"-w{weight_bits}" if precision is Precision.INT8 and weight_bits != 8 else ""
    suffix += f"-{rest}" if precision.is_quantized and rest.is_lowered else ""
    return path.with_name(f"{path.stem}.{precision}{suffix}.onnx")


def _images(base: ir.Model, options: LowerOptions) -> tuple[NDArray[np.uint8], tuple[HeldOut, ...]]:
    """Calibration and held-out images: the caller's, or crops of the bundled photographs."""
    _, height, width, _ = static_shape(base.graph.inputs[0]) or (0, 0, 0, 0)
    resolution = (height, width)
    limit = max(_MIN_IMAGES, min(_MAX_IMAGES, int(_IMAGE_WORK // max(1, count_weight_multiply_adds(base)))))
    calibration, held_out = options.calibration, options.held_out
    if calibration is None or not held_out:
        ours, others = default_images(resolution, limit, options.resampling)
        calibration = ours if calibration is None else calibration
        held_out = held_out or (others,)
    check_images(calibration, resolution, "calibration images")
    for item in held_out:
        check_images(item.images, resolution, f"held-out images ({item.name})")
    return calibration, held_out


def _lower(base: ir.Model, precision: Precision, images: NDArray[np.uint8], options: LowerOptions) -> LoweredModel:
    attentions = upcast_attentions(base, precision, options)  # may raise: before anything is measured
    probe = _probe(base, images, options)
    if not precision.is_quantized:
        return lower_floats(base, precision, probe, attentions)
    grid = QuantizationGrid(precision, options.rest, options.weight_bits)
    quantized = lower_products(base, grid, probe, images, options.method)
    return lower_rest(quantized, base, options.rest, probe, attentions) if options.rest.is_lowered else quantized


def _probe(model: ir.Model, images: NDArray[np.uint8], options: LowerOptions) -> Probe:
    """Probe on as many images as the measurement budget allows."""
    count = max(1, min(len(images), _MAX_PROBE_IMAGES, int(_PROBE_WORK // max(1, count_weight_multiply_adds(model)))))
    taken = images[np.linspace(0, len(images) - 1, count).astype(int)]
    return Probe(model, taken, options.patch_size, options.progress, kind=options.depth_kind)


def _save(model: ir.Model, target: Path) -> tuple[Path, ...]:
    """Write a copy of ``model``; return the files, the graph first."""
    records = save_model(model.clone(), target, dict(model.metadata_props))
    return tuple(target.with_name(record.name) for record in records)


def _as_computed(target: Path) -> ir.Model:
    """Load the graph of a file with its dtypes emulated, so that a CPU computes them faithfully."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    return emulated(ShapeInferencePass()(ir.load(target)).model)


def _advice(lowered: LoweredModel) -> str:
    """Advice for a graph that fails the gate."""
    worst = [f"{item.groups[0].name} (mean {item.effect.mean_rel:.1e})" for item in lowered.decision.worst(3)]
    way_out = "Calibrate on images like the robot's (--quantization-images FOLDER), or use a higher precision"
    return f"These lowered nodes change depth most: {'; '.join(worst) or 'none'}. {way_out}"


def _counted(source: Graph, target: Path, precision: Precision) -> LoweringRecord:
    """Lowering record of a file made from ``source``, with its node counts."""
    import onnx

    model = onnx.load(str(target))
    return LoweringRecord(
        precision=precision,
        onnx_sha256=sha256_file(source.path),
        num_by_dtype=num_by_dtype(model),
        num_attention=num_attention(model),
        num_layer_norm=num_layer_norm(model),
    )


def _calibration_record(
    lowered: LoweredModel, images: NDArray[np.uint8], precision: Precision, weight_bits: int
) -> CalibrationRecord:
    method = "none" if lowered.method is None else str(lowered.method)
    bits = weight_bits if precision is Precision.INT8 else None
    return CalibrationRecord(len(images), fingerprint(images), method, lowered.balanced, bits)
