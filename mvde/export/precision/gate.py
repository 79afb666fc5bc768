"""The gate: a typed graph against its fp32 graph on images that its calibration did not see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvde.errors import ParityError
from mvde.export.precision.options import HeldOut
from mvde.export.precision.session import GraphSession
from mvde.export.precision.targets import GateTolerance
from mvde.metrics import MetricTotals, depth_metrics
from mvde.parity import ParityReport, compare_depth

if TYPE_CHECKING:
    import onnx_ir as ir

STANDS_IN = "the fp32 graph's depth"


@dataclass(frozen=True)
class GateReport:
    """What one set of images says: metrics of both graphs against ``truth``, and how far they are apart.

    ``abs_rel`` and ``delta1`` hold (fp32, typed). ``parity`` has the relative depth error and the largest change of
    each patch statistic, against the fp32 graph whatever the truth is.
    """

    images: str
    num_images: int
    truth: str
    abs_rel: tuple[float, float]
    delta1: tuple[float, float]
    parity: ParityReport

    @property
    def abs_rel_change(self) -> float:
        """ΔAbsRel / AbsRel of the fp32 graph; ΔAbsRel itself where the fp32 graph is its own truth."""
        before, after = self.abs_rel
        return (after - before) / before if before > 0 else after - before

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of JSON types, as the manifest stores it."""
        return {
            "images": self.images,
            "truth": self.truth,
            "abs_rel_fp32": self.abs_rel[0],
            "abs_rel": self.abs_rel[1],
            "abs_rel_change": self.abs_rel_change,
            "delta1_fp32": self.delta1[0],
            "delta1": self.delta1[1],
            **self.parity.to_dict(),
        }

    def outside(self, tolerance: GateTolerance) -> list[str]:
        """The measures past the tolerance, each with what was allowed (NaN is always past it)."""
        measures = {
            "mean |Δdepth|/depth": (self.parity.mean_rel, tolerance.mean_rel),
            "99th percentile of |Δdepth|/depth": (self.parity.p99_rel, tolerance.p99_rel),
        }
        if self.truth != STANDS_IN:
            measures["|ΔAbsRel|/AbsRel"] = (abs(self.abs_rel_change), tolerance.abs_rel)
            measures["|Δδ1|"] = (abs(self.delta1[1] - self.delta1[0]), tolerance.delta1)
        return [f"{name} is {got:.2e}, allowed {most:.1e}" for name, (got, most) in measures.items() if not got <= most]


def judge(typed: ir.Model, fp32: ir.Model, held_out: Sequence[HeldOut], patch_size: int) -> list[GateReport]:
    """One report per set of images; ``typed`` is a graph that ONNX Runtime's CPU provider computes faithfully."""
    candidate, reference = GraphSession(typed), GraphSession(fp32)
    return [
        report(candidate.depth(images.images), reference.depth(images.images), images, patch_size)
        for images in held_out
    ]


def report(
    candidate_m: NDArray[np.float32], reference_m: NDArray[np.float32], held_out: HeldOut, patch_size: int
) -> GateReport:
    """What depths (K, H, W) of a typed and of the fp32 graph say on ``held_out``."""
    truth_m = reference_m if held_out.depth_m is None else held_out.depth_m
    fp32, typed = (_metrics(depth_m, truth_m) for depth_m in (reference_m, candidate_m))
    return GateReport(
        images=held_out.name,
        num_images=len(held_out.images),
        truth=STANDS_IN if held_out.depth_m is None else "ground truth",
        abs_rel=(fp32["abs_rel"], typed["abs_rel"]),
        delta1=(fp32["delta1"], typed["delta1"]),
        parity=compare_depth(candidate_m, reference_m, patch_size),
    )


def check(reports: Sequence[GateReport], tolerance: GateTolerance, what: str, blame: Callable[[], str]) -> None:
    """Nothing, if every report is inside ``tolerance``. Raises :class:`ParityError` with what ``blame`` says if not."""
    for item in reports:
        outside = item.outside(tolerance)
        if outside:
            raise ParityError(
                f"{what} differs from the fp32 graph by more than allowed on {item.images} ({item.num_images} images, "
                f"against {item.truth}): {'; '.join(outside)}; nothing was written. {blame()}"
            )


def gate_record(reports: Sequence[GateReport], tolerance: GateTolerance, arithmetic: str) -> dict[str, Any]:
    """The gate as the manifest stores it."""
    return {
        "arithmetic": arithmetic,
        "tolerance": dataclasses.asdict(tolerance),
        "runs": [item.to_dict() for item in reports],
    }


def _metrics(depth_m: NDArray[np.float32], truth_m: NDArray[np.float32]) -> dict[str, float]:
    """Mean over images of AbsRel and δ1; a prediction that is not finite has infinite error."""
    totals = MetricTotals()
    for index, (pred, target) in enumerate(zip(depth_m, truth_m, strict=True)):
        if not (np.isfinite(target) & (target > 0)).any():
            continue
        finite = np.isfinite(pred).all()
        found = depth_metrics(pred, target) if finite else {"abs_rel": np.inf, "delta1": 0.0}
        totals.add(str(index), {name: found[name] for name in ("abs_rel", "delta1")})
    return totals.overall()
