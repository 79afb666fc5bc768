"""Memory that an engine of a graph needs on a GPU, estimated from the graph's manifest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mvde.manifest import Manifest
from mvde.precision import Precision

FORMULA = (
    "context 512 MiB + plan (1.3 x weights in the precision) + activations (batch x H x W x max(16, decoder width / 2) "
    "values) + 2 x batch x H x W x (3 bytes in + 4 bytes per output); while building also 3 x graph and workspace"
)

_CONTEXT_BYTES = 512 << 20
"""Allowance for the CUDA context and the library's code. Not measured."""

_PLAN_PER_WEIGHTS = 1.3
"""TensorRT-RTX 1.7 wrote 1.3 times an fp32 graph of 12 MB."""

_LIVE_PER_CHANNEL, _LEAST_LIVE = 0.5, 16.0
"""Values alive at once per input pixel: a quarter less than half the decoder's width (its input and output at half the
resolution), or the head's two tensors of 32 channels there. A test recounts them in an exported graph."""

_USUAL_WIDTH = 256
"""Decoder width where the manifest states none: that of configs/base.yaml and of DPT's published models."""

_GRAPHS_WHILE_BUILDING = 3.0
WORKSPACE_BYTES = 1 << 30
"""Workspace that the printed commands allow the build."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes needed to run an engine, in parts, and the largest need while it is built. All are estimates."""

    context_bytes: int
    plan_bytes: int
    activation_bytes: int
    frame_bytes: int
    building_bytes: int

    @property
    def running_bytes(self) -> int:
        """Sum of the parts that an engine in use needs."""
        return self.context_bytes + self.plan_bytes + self.activation_bytes + self.frame_bytes


def estimate_memory(manifest: Manifest, precision: Precision) -> MemoryEstimate:
    """Estimate by :data:`FORMULA` for an engine in ``precision`` of the graph of ``manifest`` (fp32 or typed)."""
    graph_bytes = sum(record.size_bytes for record in (manifest.file, *manifest.companions))
    is_typed = manifest.lowering is not None
    weights = graph_bytes if is_typed else graph_bytes * _bytes_per_weight(precision) / 4
    pixels = manifest.batch * math.prod(manifest.resolution)
    live = max(_decoder_width(manifest) * _LIVE_PER_CHANNEL, _LEAST_LIVE)
    activations = pixels * live * _bytes_per_activation(precision)
    frames = 2 * pixels * (3 + 4 * len(manifest.outputs))
    plan = weights * _PLAN_PER_WEIGHTS
    building = _CONTEXT_BYTES + graph_bytes * _GRAPHS_WHILE_BUILDING + plan + activations + WORKSPACE_BYTES
    return MemoryEstimate(_CONTEXT_BYTES, round(plan), round(activations), frames, round(building))


def _decoder_width(manifest: Manifest) -> int:
    decoder = manifest.source.config.get("decoder")
    width = decoder.get("c_dec") if isinstance(decoder, dict) else None
    return width if isinstance(width, int) and width > 0 else _USUAL_WIDTH


def _bytes_per_weight(precision: Precision) -> int:
    match precision:
        case Precision.FP32:
            return 4
        case Precision.FP16 | Precision.BF16:
            return 2
        case Precision.INT8 | Precision.FP8:
            return 1


def _bytes_per_activation(precision: Precision) -> int:
    """Bytes of an activation; those between quantised products are fp16, see ``mvde lower --rest fp16``."""
    return 4 if precision is Precision.FP32 else 2
