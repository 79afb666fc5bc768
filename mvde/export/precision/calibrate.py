"""Activation ranges on real images: histograms of the tensors that products read, and clipping thresholds.

onnxruntime's calibrators insert nodes that are invalid in opset 23 and hold every tensor of every image in memory. The
thresholds here equal theirs (see the tests) but use histograms updated image by image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.errors import UsageError
from mvde.export.graph.run import GraphSession, split_by_bytes, with_outputs
from mvde.export.range_method import RangeMethod

if TYPE_CHECKING:
    import onnx_ir as ir

NUM_BINS = 4096
PERCENTILE = 99.99
"""Share (%) of an activation's values that are not clipped; one in 10⁴ is clipped."""

_MAX_BINNED = 1 << 20
"""Values per tensor and run added to its histogram, evenly strided; a 99.99 % percentile clips about a hundred of them.

Largest magnitudes use all values.
"""

_NUM_LEVELS = 128
"""int8 levels on one side of zero, into which the entropy method merges bins."""


@dataclass
class TensorStatistics:
    """Calibration statistics of one tensor: a histogram of magnitudes, and the largest magnitude per channel."""

    channel_axis: int
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    limit: float = 0.0
    largest: float = 0.0
    channel_largest: NDArray[np.float64] | None = None

    def add(self, tensor: NDArray[np.float32]) -> None:
        """Add the values of one run. Raises :class:`UsageError` if one is not finite."""
        magnitude = np.abs(tensor)
        largest = float(magnitude.max())
        if not np.isfinite(largest):
            raise UsageError("an activation of the fp32 graph is not finite on a calibration image; check the weights")
        self._grow(largest)
        self.largest = max(self.largest, largest)
        if self.limit > 0:
            binned = magnitude.ravel()[:: _step(magnitude.size)]
            bins = np.minimum(binned * np.float32(NUM_BINS / self.limit), NUM_BINS - 1).astype(np.int32)
            self.counts += np.bincount(bins, minlength=NUM_BINS)
        self._add_channels(magnitude)

    def _grow(self, largest: float) -> None:
        """Merge bins in pairs until the largest value fits, so that counts stay exact."""
        if self.limit == 0.0:
            self.limit = largest
        while largest > self.limit:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(NUM_BINS // 2, np.int64)])
            self.limit *= 2

    def _add_channels(self, magnitude: NDArray[np.float32]) -> None:
        others = tuple(axis for axis in range(magnitude.ndim) if axis != self.channel_axis % magnitude.ndim)
        largest = magnitude.max(axis=others).astype(np.float64)
        seen = self.channel_largest
        self.channel_largest = largest if seen is None else np.maximum(seen, largest)


def _step(size: int) -> int:
    """Stride of the values that are binned; coprime to the tensor's size, so that no channel is skipped."""
    step = -(-size // _MAX_BINNED)
    while math.gcd(step, size) > 1:
        step += 1
    return step


def collect(model: ir.Model, channel_axis: dict[str, int], images: NDArray[np.uint8]) -> dict[str, TensorStatistics]:
    """Collect statistics of the named tensors of an fp32 graph over images (K, H, W, 3) uint8 at its resolution."""
    found = {name: TensorStatistics(axis) for name, axis in channel_axis.items()}
    for names in split_by_bytes(model, list(channel_axis)):
        session = GraphSession(with_outputs(model, names))
        for tensors in session.tensors(images, names):
            for name, tensor in tensors.items():
                found[name].add(tensor)
    return found


def threshold(statistics: TensorStatistics, method: RangeMethod) -> float:
    """Magnitude at which an activation is clipped. Raises :class:`UsageError` for the method auto."""
    if statistics.largest == 0.0:
        return 1.0  # a tensor of zeros: any scale represents it
    match method:
        case RangeMethod.MINMAX:
            return statistics.largest
        case RangeMethod.PERCENTILE:
            return _percentile(statistics)
        case RangeMethod.ENTROPY:
            return _entropy(statistics)
        case RangeMethod.AUTO:
            raise UsageError("the method auto is resolved by measuring the others; pass one of them")


def _percentile(statistics: TensorStatistics) -> float:
    share = np.cumsum(statistics.counts) / statistics.counts.sum()
    edge = int(np.searchsorted(share, PERCENTILE / 100)) + 1
    return min(statistics.largest, edge * statistics.limit / NUM_BINS)


def _entropy(statistics: TensorStatistics) -> float:
    """Threshold that minimises the divergence from the quantised distribution (Migacz, GTC 2017; as in TensorRT)."""
    counts = statistics.counts.astype(np.float64)
    candidates = range(_NUM_LEVELS, NUM_BINS + 1, _NUM_LEVELS // 4)
    divergence = [_divergence(counts, num_bins) for num_bins in candidates]
    best = candidates[int(np.argmin(divergence))]
    return min(statistics.largest, best * statistics.limit / NUM_BINS)


def _divergence(counts: NDArray[np.float64], num_bins: int) -> float:
    """Kullback-Leibler divergence of the distribution clipped to ``num_bins`` from its quantised form, in nats."""
    inside = counts[:num_bins]
    clipped = inside.copy()
    clipped[-1] += counts[num_bins:].sum()
    edges = np.linspace(0, num_bins, _NUM_LEVELS + 1).astype(int)
    occupied = np.add.reduceat((clipped > 0).astype(np.float64), edges[:-1])
    level = np.add.reduceat(inside, edges[:-1]) / np.maximum(occupied, 1)
    quantized = np.where(clipped > 0, np.repeat(level, np.diff(edges)), 0)
    p, q = _smoothed(clipped), _smoothed(quantized)
    return float(np.sum(p * np.log(p / q)))


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalised distribution without empty bins, so that the divergence stays finite."""
    filled = np.maximum(counts, 1e-4)
    normalized: NDArray[np.float64] = filled / filled.sum()
    return normalized


def thresholds(found: dict[str, TensorStatistics], method: RangeMethod) -> dict[str, float]:
    """Threshold of every tensor for one method."""
    return {name: threshold(statistics, method) for name, statistics in found.items()}
