"""Manifest records of parity, engines and typed graphs: plain dataclasses, serialised to JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mvde.precision import Precision

NOT_MEASURED = "not measured: no device when it was built"
"""Shown in place of the parity of an engine that was built without its device."""


@dataclass(frozen=True)
class ParityReport:
    """Differences of a candidate from its reference (see :mod:`mvde.parity`).

    ``max_rel``, ``mean_rel`` and ``p99_rel`` are |Δdepth| / depth over all pixels, dimensionless; ``max_abs_m`` is the
    largest |Δdepth| (in the map's unit). ``stats`` holds the largest absolute difference per patch statistic, in its
    unit (for metres: mean m, var m², grad m/px).

    ``reference_range`` is there for inverse kinds: their relative differences are |Δ| / (p99 − p1) of the reference
    map, and this is the smallest such range among the images.
    """

    max_rel: float
    mean_rel: float
    p99_rel: float
    max_abs_m: float
    num_images: int
    stats: dict[str, float] = field(default_factory=dict)
    reference_range: float | None = None

    @property
    def difference(self) -> str:
        """Name of the relative difference."""
        return "|Δdepth|/depth" if self.reference_range is None else "|Δ|/range"

    def __str__(self) -> str:
        stats = ", ".join(f"{name} {value:.2e}" for name, value in self.stats.items())
        return f"{self.difference} max {self.max_rel:.2e}, mean {self.mean_rel:.2e}; patch statistics max: {stats}"


@dataclass(frozen=True)
class GraphParity:
    """Parity of an exported graph with its source model; ``photos`` are the names of the images."""

    reference: str
    candidate: str
    tolerance_max_rel: float
    photos: tuple[str, ...]
    measured: ParityReport


@dataclass(frozen=True)
class Tolerance:
    """Tolerances of the relative depth difference (mean and 99th percentile over pixels) and of patch means.

    ``patch_mean`` limits the difference of any patch's mean depth, as a fraction of the model's depth range. The
    maximum over pixels is measured and stored but not gated: at a depth edge, rounding can flip a pixel between near
    and far.
    """

    mean_rel: float
    p99_rel: float
    patch_mean: float


@dataclass(frozen=True)
class DeviceRecord:
    """GPU that an engine was measured on: name, compute capability (``"8.9"``), CUDA version of the driver."""

    gpu: str
    compute_capability: str
    driver_cuda: str


@dataclass(frozen=True)
class EngineParity:
    """Parity of an engine with its fp32 graph; ``export`` is the graph's own parity.

    ``measured`` is ``None`` for an engine built without its device; ``measured_on`` is ``None`` on a CPU.
    """

    reference: str
    tolerance: Tolerance
    export: GraphParity
    measured: ParityReport | None = None
    measured_on: DeviceRecord | None = None


@dataclass(frozen=True)
class TuningCandidate:
    """Settings that were tried, with the median latency of a frame in milliseconds and the speed-up.

    ``gain`` is the median over rounds of the default's time divided by the candidate's in the same round,
    ``sure_gain`` the same minus two standard errors. ``refused`` is the reason if the library rejected the settings;
    nothing was measured then.
    """

    settings: dict[str, Any]
    median_ms: float | None = None
    gain: float | None = None
    sure_gain: float | None = None
    refused: str = ""


@dataclass(frozen=True)
class TuningRecord:
    """Result of tuning within ``budget_s`` seconds: all candidates and the chosen settings."""

    budget_s: float
    chosen: dict[str, Any]
    candidates: tuple[TuningCandidate, ...]


@dataclass(frozen=True)
class NetworkRecord:
    """Layer counts of a network as parsed by TensorRT.

    ``num_by_dtype`` counts the layers that correspond to ONNX nodes by compute type, as :class:`LoweringRecord` counts
    nodes; ``products_by_dtype`` counts matrix products, convolutions and attentions, those with two quantised operands
    as int8 or fp8. ``num_attention`` counts recognised attentions, ``num_softmax`` those left as a Softmax between
    products, ``num_layer_norm`` normalisation layers. ``constant_resizes`` are layers that only resize constants.
    """

    num_layers: int
    num_by_dtype: dict[str, int]
    products_by_dtype: dict[str, int]
    num_attention: int
    num_softmax: int
    num_layer_norm: int
    constant_resizes: tuple[str, ...] = ()

    def share(self, dtype: str) -> float:
        """Fraction (0 to 1) of nodes that compute in ``dtype``."""
        return _share(self.num_by_dtype, dtype)

    @property
    def executed_precision(self) -> str:
        """Compute types of the products, most frequent first, e.g. ``"fp16"`` or ``"int8+fp16"``."""
        return "+".join(sorted(self.products_by_dtype, key=lambda name: -self.products_by_dtype[name])) or "fp32"


@dataclass(frozen=True)
class CudaRecord:
    """Build environment and target of a plan: CUDA major version, driver CUDA version, GPU, compute capabilities."""

    cuda_major: str | None
    driver_cuda: str | None
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    build_s: float
    network: NetworkRecord


@dataclass(frozen=True)
class EngineRecord:
    """Backend and target of an engine; ``executed_precision`` is reported by the backend, not the requested one.

    ``rewrites`` lists what mvde replaced by its own (``"attention"``, ``"gelu"``, ``"int8_linear"``,
    ``"linear_layers"``, ``"weights"``); ``known_errors`` are known library errors that were accepted at build time.
    """

    id: str
    backend: str
    precision: Precision
    executed_precision: str
    device: str
    library_version: str
    cpu_features: tuple[str, ...]
    options: dict[str, Any]
    onnx_sha256: str
    rewrites: dict[str, str] = field(default_factory=dict)
    tuning: TuningRecord | None = None
    cuda: CudaRecord | None = None
    known_errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptNodes:
    """Nodes that a typed graph keeps in a higher precision.

    ``group`` names them, ``dtype`` is their compute type, ``num_nodes`` their number, ``reason`` the measured cause.
    """

    group: str
    dtype: Precision
    num_nodes: int
    reason: str


@dataclass(frozen=True)
class CalibrationRecord:
    """Calibration of a typed graph: number of images, SHA-256 of their pixels, and the range method.

    ``method`` is ``"none"`` if the graph stores no ranges (fp16, bf16). ``balanced`` states, for each kind of
    activation whose channel scales can be folded into the weights, whether that was done and the measured effect.
    ``weight_bits`` is the number of bits of int8 weights, ``None`` for other precisions and in older manifests (8).
    """

    num_images: int
    sha256: str
    method: str
    balanced: dict[str, str] = field(default_factory=dict)
    weight_bits: int | None = None


@dataclass(frozen=True)
class GateTolerance:
    """Tolerances of a typed graph against the fp32 graph on held-out images.

    ``abs_rel`` is |ΔAbsRel| / AbsRel and ``delta1`` |Δδ1|, both against ground truth. ``mean_rel`` and ``p99_rel`` are
    relative depth errors against the fp32 graph's depth, which also replaces missing ground truth.
    """

    abs_rel: float
    delta1: float
    mean_rel: float
    p99_rel: float


@dataclass(frozen=True)
class GateRun:
    """Results on one set of held-out images: metrics of both graphs against ``truth``, and their difference.

    ``abs_rel`` and ``delta1`` hold (fp32, typed). ``measured`` is always relative to the fp32 graph.
    """

    images: str
    num_images: int
    truth: str
    abs_rel: tuple[float, float]
    delta1: tuple[float, float]
    measured: ParityReport

    @property
    def abs_rel_change(self) -> float:
        """ΔAbsRel / AbsRel of the fp32 graph; plain ΔAbsRel if the fp32 graph is its own ground truth."""
        before, after = self.abs_rel
        return (after - before) / before if before > 0 else after - before


@dataclass(frozen=True)
class GateRecord:
    """Gate results of a typed graph, computed in ``arithmetic``, with the tolerances applied."""

    arithmetic: str
    tolerance: GateTolerance
    runs: tuple[GateRun, ...]


@dataclass(frozen=True)
class LoweringRecord:
    """Expected properties of a typed graph, to be compared with what a backend parsed.

    ``onnx_sha256`` is the hash of the source fp32 graph. ``num_by_dtype`` counts nodes that compute on real numbers by
    compute type (``"int8"`` and ``"fp8"`` for products with two quantised operands); casts, constants and Q/DQ nodes
    are not counted. ``num_attention`` counts ``Attention`` nodes, or each Softmax between two products if the opset
    lacks them; ``num_layer_norm`` counts ``LayerNormalization``. ``kept`` lists nodes left in a higher precision than
    requested, with the reason; ``gate`` is the comparison with the fp32 graph on held-out images.
    """

    precision: Precision
    onnx_sha256: str
    num_by_dtype: dict[str, int]
    num_attention: int
    num_layer_norm: int
    kept: tuple[KeptNodes, ...] = ()
    calibration: CalibrationRecord | None = None
    gate: GateRecord | None = None

    def share(self, dtype: str) -> float:
        """Fraction (0 to 1) of compute nodes in ``dtype``."""
        return _share(self.num_by_dtype, dtype)


def _share(num_by_dtype: dict[str, int], dtype: str) -> float:
    return num_by_dtype.get(dtype, 0) / max(1, sum(num_by_dtype.values()))
