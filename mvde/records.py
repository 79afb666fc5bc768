"""What a manifest says of parity, of an engine and of a typed graph: plain records, written to and read from JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mvde.precision import Precision

NOT_MEASURED = "not measured: no device when it was built"
"""What is said of the parity of an engine that has none yet."""


@dataclass(frozen=True)
class ParityReport:
    """Differences of a candidate from its reference (see :mod:`mvde.parity`).

    ``max_rel``, ``mean_rel`` and ``p99_rel`` are |Δdepth| / depth over all pixels, without a unit; ``max_abs_m`` is the
    largest |Δdepth| (metres, or the unit of relative depth). ``stats`` holds the largest absolute difference per patch
    statistic, in that statistic's unit (mean m, var m², grad m/px).
    """

    max_rel: float
    mean_rel: float
    p99_rel: float
    max_abs_m: float
    num_images: int
    stats: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        stats = ", ".join(f"{name} {value:.2e}" for name, value in self.stats.items())
        return f"|Δdepth|/depth max {self.max_rel:.2e}, mean {self.mean_rel:.2e}; patch statistics max: {stats}"


@dataclass(frozen=True)
class GraphParity:
    """An exported graph against the model that it was traced from; ``photos`` are the names of the pictures."""

    reference: str
    candidate: str
    tolerance_max_rel: float
    photos: tuple[str, ...]
    measured: ParityReport


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed relative depth difference (mean and 99th percentile over pixels) and patch-mean difference.

    ``patch_mean`` is the largest allowed difference of any patch's mean depth, as a fraction of the model's depth
    range. The maximum over pixels is measured and stored, but it is no gate: at a depth edge one pixel flips between
    near and far on a rounding difference.
    """

    mean_rel: float
    p99_rel: float
    patch_mean: float


@dataclass(frozen=True)
class DeviceRecord:
    """The GPU that an engine was measured on: name, compute capability (``"8.9"``), the driver's CUDA version."""

    gpu: str
    compute_capability: str
    driver_cuda: str


@dataclass(frozen=True)
class EngineParity:
    """An engine against its fp32 graph, whose own parity is ``export``.

    ``measured`` is ``None`` for an engine that was built without its device; ``measured_on`` is ``None`` on a CPU.
    """

    reference: str
    tolerance: Tolerance
    export: GraphParity
    measured: ParityReport | None = None
    measured_on: DeviceRecord | None = None


@dataclass(frozen=True)
class TuningCandidate:
    """Settings that were tried: the median of a frame in milliseconds, and how much faster than without them.

    ``gain`` is the median over rounds of the default's time over the candidate's in the same round, and ``sure_gain``
    that less two of its standard errors. ``refused`` is the reason where the library did not take the settings, and
    then nothing was measured.
    """

    settings: dict[str, Any]
    median_ms: float | None = None
    gain: float | None = None
    sure_gain: float | None = None
    refused: str = ""


@dataclass(frozen=True)
class TuningRecord:
    """What tuning measured in ``budget_s`` seconds: every candidate, and the settings that were chosen."""

    budget_s: float
    chosen: dict[str, Any]
    candidates: tuple[TuningCandidate, ...]


@dataclass(frozen=True)
class NetworkRecord:
    """A network as TensorRT parsed it, in numbers.

    ``num_by_dtype`` counts the layers that stand for an ONNX node by what they compute in, as :class:`LoweringRecord`
    counts the nodes; ``products_by_dtype`` the matrix products, convolutions and attentions; products whose operands
    are both quantised count as int8 or fp8. ``num_attention`` are those recognised as such, ``num_softmax`` those left
    as a Softmax between products, ``num_layer_norm`` the normalisation layers. ``constant_resizes`` are layers that
    resize nothing but constants.
    """

    num_layers: int
    num_by_dtype: dict[str, int]
    products_by_dtype: dict[str, int]
    num_attention: int
    num_softmax: int
    num_layer_norm: int
    constant_resizes: tuple[str, ...] = ()

    def share(self, dtype: str) -> float:
        """Fraction (0 to 1) of the nodes that compute in ``dtype``."""
        return _share(self.num_by_dtype, dtype)

    @property
    def executed_precision(self) -> str:
        """What the products compute in, most first, such as ``"fp16"`` or ``"int8+fp16"``."""
        return "+".join(sorted(self.products_by_dtype, key=lambda name: -self.products_by_dtype[name])) or "fp32"


@dataclass(frozen=True)
class CudaRecord:
    """What a plan was built with and for: CUDA's major version and the driver's, the GPU, compute capabilities."""

    cuda_major: str | None
    driver_cuda: str | None
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    build_s: float
    network: NetworkRecord


@dataclass(frozen=True)
class EngineRecord:
    """What an engine runs on: ``executed_precision`` is what the backend reports, not what was asked for.

    ``rewrites`` says what mvde put in the place of the library's own (``"attention"``, ``"linear_layers"``);
    ``known_errors`` are entries of the list of known errors that were accepted when it was built.
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
    """Nodes that a typed graph computes in a higher precision: ``group`` names them, ``reason`` says what was measured.

    ``dtype`` is the one they compute in, ``num_nodes`` how many they are.
    """

    group: str
    dtype: Precision
    num_nodes: int
    reason: str


@dataclass(frozen=True)
class CalibrationRecord:
    """The images that decided a typed graph: how many, the SHA-256 of their pixels, how ranges were taken of them.

    ``method`` is ``"none"`` where no range is stored in the graph (fp16, bf16). ``balanced`` says, for each kind of
    activation whose channels can be rescaled into the weights, whether that was done and what it measured.
    """

    num_images: int
    sha256: str
    method: str
    balanced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GateTolerance:
    """Largest changes against the fp32 graph that a typed file may show on images that calibration did not see.

    ``abs_rel`` is |ΔAbsRel| / AbsRel and ``delta1`` |Δδ1|, both against ground truth. ``mean_rel`` and ``p99_rel`` are
    relative depth errors against the fp32 graph's depth, which also stands in for a ground truth that is not given.
    """

    abs_rel: float
    delta1: float
    mean_rel: float
    p99_rel: float


@dataclass(frozen=True)
class GateRun:
    """What one set of held-out images says: metrics of both graphs against ``truth``, and how far they are apart.

    ``abs_rel`` and ``delta1`` hold (fp32, typed). ``measured`` is against the fp32 graph whatever the truth is.
    """

    images: str
    num_images: int
    truth: str
    abs_rel: tuple[float, float]
    delta1: tuple[float, float]
    measured: ParityReport

    @property
    def abs_rel_change(self) -> float:
        """ΔAbsRel / AbsRel of the fp32 graph; ΔAbsRel itself where the fp32 graph is its own truth."""
        before, after = self.abs_rel
        return (after - before) / before if before > 0 else after - before


@dataclass(frozen=True)
class GateRecord:
    """What the gate measured of a typed graph, computed in ``arithmetic``, and what it allowed."""

    arithmetic: str
    tolerance: GateTolerance
    runs: tuple[GateRun, ...]


@dataclass(frozen=True)
class LoweringRecord:
    """What a typed graph promises, for whoever parses it to compare with what was parsed.

    ``onnx_sha256`` is that of the fp32 graph it was made from. ``num_by_dtype`` counts the nodes that compute on real
    numbers by what they compute in (``"int8"`` and ``"fp8"`` for products whose operands are both quantised); casts,
    constants and Q/DQ nodes are in none. ``num_attention`` counts ``Attention`` nodes, or the Softmax between two
    products where the opset lacks them; ``num_layer_norm`` counts ``LayerNormalization``. ``kept`` says what was left
    higher than asked for, and why; ``gate`` is what was measured against the fp32 graph on images that the calibration
    did not see.
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
        """Fraction (0 to 1) of the computing nodes that compute in ``dtype``."""
        return _share(self.num_by_dtype, dtype)


def _share(num_by_dtype: dict[str, int], dtype: str) -> float:
    return num_by_dtype.get(dtype, 0) / max(1, sum(num_by_dtype.values()))
