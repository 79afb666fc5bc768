"""Validation of a typed graph against its fp32 graph on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.alignment import default_alignment
from mvde.contract import DepthKind
from mvde.errors import ParityError
from mvde.export.graph.run import GraphSession
from mvde.export.precision.lowering_options import HeldOut
from mvde.metrics import MetricTotals, depth_metrics
from mvde.parity import compare_depth
from mvde.records import GateRun, GateTolerance

if TYPE_CHECKING:
    import onnx_ir as ir

FP32_AS_TRUTH = "the fp32 graph's depth"


def judge(
    typed: ir.Model,
    fp32: ir.Model,
    held_out: Sequence[HeldOut],
    patch_size: int,
    kind: DepthKind = DepthKind.METRIC,
) -> tuple[GateRun, ...]:
    """One run per image set; ``typed`` is a graph that ONNX Runtime's CPU provider computes faithfully."""
    candidate, reference = GraphSession(typed), GraphSession(fp32)
    return tuple(
        gate_run(candidate.depth(images.images), reference.depth(images.images), images, patch_size, kind)
        for images in held_out
    )


def gate_run(
    candidate: NDArray[np.float32],
    reference: NDArray[np.float32],
    held_out: HeldOut,
    patch_size: int,
    kind: DepthKind = DepthKind.METRIC,
) -> GateRun:
    """Compare maps (K, H, W) of ``kind`` of a typed and of the fp32 graph on ``held_out``.

    Against ground truth, both are aligned to it as evaluation does; against the fp32 graph's own map, neither is.
    """
    if held_out.depth_m is None:
        fp32, typed = (_metrics(depth, reference, DepthKind.METRIC) for depth in (reference, candidate))
    else:
        fp32, typed = (_metrics(depth, held_out.depth_m, kind) for depth in (reference, candidate))
    return GateRun(
        images=held_out.name,
        num_images=len(held_out.images),
        truth=FP32_AS_TRUTH if held_out.depth_m is None else "ground truth",
        abs_rel=(fp32["abs_rel"], typed["abs_rel"]),
        delta1=(fp32["delta1"], typed["delta1"]),
        measured=compare_depth(candidate, reference, patch_size, kind=kind),
    )


def check(runs: Sequence[GateRun], tolerance: GateTolerance, what: str, advice: Callable[[], str]) -> None:
    """Raise :class:`ParityError`, ending with ``advice``, unless every run is within ``tolerance``."""
    for run in runs:
        outside = _outside(run, tolerance)
        if outside:
            raise ParityError(
                f"{what} differs from the fp32 graph by more than allowed on {run.images} ({run.num_images} images, "
                f"against {run.truth}): {'; '.join(outside)}; nothing was written. {advice()}"
            )


def _outside(run: GateRun, tolerance: GateTolerance) -> list[str]:
    """Measures outside the tolerance, each with its limit (NaN is always outside)."""
    difference = run.measured.difference
    measures = {
        f"mean {difference}": (run.measured.mean_rel, tolerance.mean_rel),
        f"99th percentile of {difference}": (run.measured.p99_rel, tolerance.p99_rel),
    }
    if run.truth != FP32_AS_TRUTH:
        measures["|ΔAbsRel|/AbsRel"] = (abs(run.abs_rel_change), tolerance.abs_rel)
        measures["|Δδ1|"] = (abs(run.delta1[1] - run.delta1[0]), tolerance.delta1)
    return [f"{name} is {got:.2e}, allowed {most:.1e}" for name, (got, most) in measures.items() if not got <= most]


def _metrics(depth: NDArray[np.float32], truth: NDArray[np.float32], kind: DepthKind) -> dict[str, float]:
    """Mean over images of AbsRel and δ1; a non-finite prediction has infinite error."""
    totals, alignment = MetricTotals(), default_alignment(kind)
    for index, (pred, target) in enumerate(zip(depth, truth, strict=True)):
        if not (np.isfinite(target) & (target > 0)).any():
            continue
        finite = np.isfinite(pred).all()
        found = (
            depth_metrics(pred, target, alignment=alignment, kind=kind)
            if finite
            else {"abs_rel": np.inf, "delta1": 0.0}
        )
        totals.add(str(index), {name: found[name] for name in ("abs_rel", "delta1")})
    return totals.overall()
