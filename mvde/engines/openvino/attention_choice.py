"""Measured choice between OpenVINO's attention and a kernel that was not measured on CPUs like this one.

Each kind of attention of the graph is run alone, in both forms, on this machine. The kernel is used if its results are
right and it takes clearly less time.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mvde.engines.base import one_line
from mvde.engines.in_turns import least_times_s
from mvde.engines.openvino.attention_graph import Case, replace_attention, replaceable
from mvde.engines.openvino.library import DEVICE, openvino_library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mvde.engines.openvino.attention import Kernel

_LIMIT = 0.9
"""Share of the library's time that the kernel may take at most: what it gains inside a network is not measured here."""
_THREADS = "INFERENCE_NUM_THREADS"
_CHECKED = 8  # queries of each head that are compared with float64


class Choice(NamedTuple):
    """Whether to use the kernel, and ``"; why"`` for the manifest; empty for a graph without such attention."""

    is_ours: bool
    note: str


class Trial(NamedTuple):
    """Least seconds of one attention by the kernel and by the library, and the kernel's error relative to its bound."""

    ours_s: float
    theirs_s: float
    error: float


def choose(core: Any, model: Any, kernel: Kernel, options: Mapping[str, Any]) -> Choice:
    """Whether ``kernel`` computes the attentions of ``model`` here, and faster than the library with these options."""
    cases = Counter(found.case for found in replaceable(model))
    if not cases:
        return Choice(True, "")
    try:
        trials = {case: trial(core, case, kernel, options.get(_THREADS)) for case in cases}
    except RuntimeError as error:
        return Choice(False, f"; {kernel.title} failed: {one_line(error)}")
    worst = max(one.error for one in trials.values())
    if not worst <= 1:
        return Choice(False, f"; {kernel.title} is off by {worst:.3g} times its rounding")
    ours_s, theirs_s = (sum(getattr(trials[case], name) * cases[case] for case in cases) for name in Trial._fields[:2])
    note = f"; measured in ms: {kernel.title} {ours_s * 1e3:.2f}, OpenVINO's {theirs_s * 1e3:.2f}"
    return Choice(ours_s <= _LIMIT * theirs_s, note)


@lru_cache(maxsize=64)
def trial(core: Any, case: Case, kernel: Kernel, num_threads: Any) -> Trial:
    """Run one attention in both forms; measured once, however often a graph is compiled for tuning.

    Raises :class:`RuntimeError` if the library cannot compile or run it.
    """
    options = {"INFERENCE_PRECISION_HINT": kernel.hint, "PERFORMANCE_HINT": "LATENCY"}
    if num_threads is not None:
        options[_THREADS] = str(num_threads)
    theirs, ours = alone(case, kernel.hint), alone(case, kernel.hint)
    replace_attention(core, ours, kernel)
    requests = {
        name: core.compile_model(model, DEVICE, options).create_infer_request()
        for name, model in (("ours", ours), ("theirs", theirs))
    }
    values, tensors = random_inputs(case, kernel.hint)
    error = _error(case, values, _numbers(requests["ours"].infer(tensors)[0], kernel.hint)) / kernel.rounding
    times_s = least_times_s({name: partial(request.infer, tensors) for name, request in requests.items()})
    return Trial(times_s["ours"], times_s["theirs"], error)


def alone(case: Case, kind: str) -> Any:
    """Model of one attention over tensors (batch, tokens, heads * depth) of type ``kind``, as exporters write it."""
    openvino = openvino_library()
    from openvino import opset13 as operators

    batch, tokens, heads, depth = case.shape
    joint = [batch, tokens, heads * depth]
    inputs = [operators.parameter(openvino.Shape(joint), getattr(openvino.Type, kind)) for _ in range(3)]
    split = [
        operators.transpose(operators.reshape(one, [batch, tokens, heads, depth], False), [0, 2, 1, 3])
        for one in (operators.convert(tensor, "f32") for tensor in inputs)
    ]
    node = operators.scaled_dot_product_attention(*split, np.float32(0), np.float32(case.scale), causal=False)
    joined = operators.reshape(operators.transpose(node, [0, 2, 1, 3]), joint, False)
    return openvino.Model([operators.convert(joined, kind)], inputs)


def random_inputs(case: Case, kind: str) -> tuple[list[NDArray[np.float32]], list[Any]]:
    """Normally distributed queries, keys and values (batch, tokens, heads * depth), and tensors of them in ``kind``."""
    openvino = openvino_library()
    rng = np.random.default_rng(0)
    batch, tokens, heads, depth = case.shape
    values = [rng.standard_normal((batch, tokens, heads * depth), np.float32) for _ in range(3)]
    if kind == "f32":
        return values, [openvino.Tensor(one) for one in values]
    halves = [(one.view(np.uint32) >> 16).astype(np.uint16) for one in values]
    tensors = [openvino.Tensor(half, openvino.Shape(half.shape), openvino.Type.bf16) for half in halves]
    return [_widened(half) for half in halves], tensors


def _numbers(result: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """A result as float32; the library hands bf16 out as the bits of float16."""
    return np.array(result, np.float32) if kind == "f32" else _widened(np.ascontiguousarray(result).view(np.uint16))


def _widened(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    wide: NDArray[np.float32] = (halves.astype(np.uint32) << 16).view(np.float32)
    return wide


def _error(case: Case, inputs: Sequence[NDArray[np.float32]], result: NDArray[np.float32]) -> float:
    """Largest error of some queries against float64, relative to the weighted mean of the values' magnitudes."""
    picked = np.unique(np.linspace(0, case.shape[1] - 1, _CHECKED).astype(int))
    queries, keys, values, got = (one.astype(np.float64).reshape(case.shape) for one in (*inputs, result))
    scores = case.scale * np.einsum("brhd,bthd->bhrt", queries[:, picked], keys)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    wanted, size = (np.einsum("bhrt,bthd->brhd", weights, one) for one in (values, np.abs(values)))
    return float(np.max(np.abs(got[:, picked] - wanted) / size))
