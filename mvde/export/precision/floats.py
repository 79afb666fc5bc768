"""Selection of the nodes lowered to a float format, measured on calibration images, with reasons."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.errors import UsageError
from mvde.export.graph.edit import is_op
from mvde.export.graph.run import largest_magnitudes
from mvde.export.precision import targets
from mvde.export.precision.cast import cast_nodes, refused_nodes
from mvde.export.precision.decide import decide
from mvde.export.precision.groups import Group, node_groups
from mvde.export.precision.lowered_model import LoweredModel, kept_nodes
from mvde.export.precision.lowering_options import LowerOptions
from mvde.export.precision.probe import Probe
from mvde.precision import Precision
from mvde.records import KeptNodes

if TYPE_CHECKING:
    import onnx_ir as ir

FP16_HEADROOM = 4.0
"""Minimum ratio of fp16's largest number to the largest activation on the calibration images.

Other scenes drove activations of the shipped model to 2.4 times those of the photographs.
"""

_SUMS = "its sums are wanted in fp32: TensorRT from 11.3 fuses it with the casts around it, others compute it in fp32"


def lower_floats(base: ir.Model, precision: Precision, probe: Probe, attentions: Collection[str] = ()) -> LoweredModel:
    """Lower ``base`` to ``precision``, except groups excluded by their effect on depth or activation range.

    ``attentions`` are the nodes of :func:`upcast_attentions`, which stay in fp32 as well.
    """
    groups = node_groups(base.graph)
    probe.progress("ranges of activations")
    ranges = _too_large(base, groups, probe.images) if precision is Precision.FP16 else {}

    def lower(lowered: Collection[Group]) -> ir.Model:
        wanted = {name for group in lowered for name in group.nodes}
        copy = base.clone()
        cast_nodes(copy, precision, {name for group in groups for name in group.nodes} - wanted | set(attentions))
        return copy

    decision = decide(groups, lower, probe, targets.target(precision), ranges)
    kept = kept_nodes(decision, precision, ranges)
    refused = refused_nodes(base, precision)
    if refused:
        why = next(iter(refused.values()))
        kept = (*kept, KeptNodes("nodes without the dtype", Precision.FP32, len(refused), why))
    if attentions:
        kept = (*kept, KeptNodes("attention", Precision.FP32, len(attentions), _SUMS))
    return LoweredModel(lower(decision.lowered), decision, kept)


def upcast_attentions(base: ir.Model, precision: Precision, options: LowerOptions) -> set[str]:
    """Names of the attentions that ``options`` want in fp32 between casts, in a graph in ``precision``.

    The form is TensorRT 11.3's: fp16 query, key and value, cast to fp32 around the node. Raises :class:`UsageError` for
    a graph without fp16, or whose attention is no single node (before opset 23).
    """
    if options.attention is Precision.FP16:
        return set()
    floats = options.rest if precision.is_quantized else precision
    if floats is not Precision.FP16:
        raise UsageError(
            f"--attention fp32 is for graphs with fp16 attention, but this one is {precision}"
            f"{f' with {options.rest}' if precision.is_quantized else ''}; give --to fp16, or --rest fp16"
        )
    names = {str(node.name) for node in base.graph if is_op(node, "Attention")}
    if not names:
        raise UsageError(
            f"--attention fp32 needs ONNX's Attention operator, which this graph of opset "
            f"{base.graph.opset_imports.get('')} does not have; export it with --opset 23"
        )
    return names


def lower_rest(
    quantized: LoweredModel, base: ir.Model, rest: Precision, probe: Probe, attentions: Collection[str] = ()
) -> LoweredModel:
    """Lower the non-quantised nodes of ``quantized`` to ``rest``, except groups excluded by measurement.

    These are found on ``base``, the fp32 graph: with quantisation, a change in the last bit moves values to the next
    step, so that every group would appear to affect depth.
    """
    floats = lower_floats(base, rest, probe, attentions)
    model = quantized.model.clone()
    cast_nodes(model, rest, {name for group in floats.decision.kept for name in group.nodes} | set(attentions))
    in_fp32 = {item.group for item in floats.kept}
    others = tuple(replace(item, dtype=rest) for item in quantized.kept if item.group not in in_fp32)
    return replace(quantized, model=model, kept=others + floats.kept)


def _too_large(base: ir.Model, groups: Sequence[Group], images: NDArray[np.uint8]) -> dict[str, str]:
    """Map groups whose activations are too close to fp16's largest number on the images to the reason."""
    group_of = {name: group.name for group in groups for name in group.nodes}
    largest: dict[str, float] = {}
    for name, reached in largest_magnitudes(base, list(group_of), images).items():
        largest[group_of[name]] = max(largest.get(group_of[name], 0.0), reached)
    limit = Precision.FP16.largest
    return {
        name: f"its activations reach {reached:.3g}, too close to fp16's largest number {limit:g}"
        for name, reached in largest.items()
        if not reached * FP16_HEADROOM <= limit
    }
