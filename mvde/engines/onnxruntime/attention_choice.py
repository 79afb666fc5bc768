"""Measured choice of the form of attention: each of a graph's attentions, alone, in every form, on this machine.

Which form is fastest depends on the threads and on the number of heads: the standard operator and products are shared
between threads by heads, so that two threads compute the three heads of nano in the time of two, while the library's
fused operator shares blocks of rows. On one thread all three are within 8 % of each other (nano, AVX2).
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mvde.engines.in_turns import least_times_s
from mvde.engines.onnxruntime import attention
from mvde.engines.onnxruntime.attention import Form
from mvde.engines.onnxruntime.session import SessionSettings, open_session

if TYPE_CHECKING:
    import onnx_ir as ir

_GAIN = 0.97
"""Share of the preferred form's time below which another one is chosen; smaller gains are noise."""


class Case(NamedTuple):
    """Attention over (batch, heads, tokens, depth) in a NumPy dtype."""

    shape: tuple[int, int, int, int]
    dtype: str


class Choice(NamedTuple):
    """The chosen form, and the milliseconds that all attentions of the graph took in each; empty without attention."""

    form: Form
    times_ms: dict[Form, float]

    def __str__(self) -> str:
        times = ", ".join(f"{attention.NAMES[form]} {time_ms:.2f}" for form, time_ms in self.times_ms.items())
        return f"measured in ms: {times}" if times else ""


def choose(model: ir.Model, settings: SessionSettings) -> Choice:
    """The form in which a graph's attentions take the least time with these settings; the default if it has none."""
    cases = Counter(case for node in model.graph if (case := _case(node)) is not None)
    times_ms = dict.fromkeys(Form, 0.0)
    for case, count in cases.items():
        for form, time_s in _times_s(case, settings).items():
            times_ms[form] += time_s * 1e3 * count
    if not cases:
        return Choice(attention.DEFAULT, {})
    best = min(Form, key=lambda form: times_ms[form] * (_GAIN if form is attention.DEFAULT else 1))
    return Choice(best, times_ms)


def _case(node: ir.Node) -> Case | None:
    """What to measure for a node; ``None`` if it is no attention that has another form."""
    shape = attention.rewritable(node)
    query = node.inputs[0] if shape is not None else None
    if shape is None or query is None or query.dtype is None:
        return None
    return Case(shape, query.dtype.numpy().name)


def _times_s(case: Case, settings: SessionSettings) -> dict[Form, float]:
    """Least seconds of a run in each form, in turns."""
    rng = np.random.default_rng(0)
    batch, heads, tokens, depth = case.shape
    feeds = {name: rng.standard_normal((batch, tokens, heads * depth)).astype(case.dtype) for name in "qkv"}
    sessions = {form: open_session(_alone(case, form), settings, what="one attention") for form in Form}
    return least_times_s({form: partial(session.run, None, feeds) for form, session in sessions.items()})


def _alone(case: Case, form: Form) -> bytes:
    """A graph of one attention in a form, between the split and the joining of its heads."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    (batch, heads, tokens, depth), dtype = case.shape, ir.DataType.from_numpy(np.dtype(case.dtype))
    joint = (batch, tokens, heads * depth)
    inputs = [ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(joint)) for name in "qkv"]
    sizes = {"split": (batch, tokens, heads, depth), "joint": joint}
    constants = {name: ir.tensor(np.array(size, np.int64), name=name) for name, size in sizes.items()}
    values = {
        name: ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        for name, tensor in constants.items()
    }
    nodes, split = [], []
    for value in inputs:
        apart = ir.node("Reshape", [value, values["split"]])
        turned = ir.node("Transpose", [apart.outputs[0]], {"perm": [0, 2, 1, 3]})
        nodes += [apart, turned]
        split.append(turned.outputs[0])
    attended = ir.node("Attention", split)
    back = ir.node("Transpose", [attended.outputs[0]], {"perm": [0, 2, 1, 3]})
    result = ir.node("Reshape", [back.outputs[0], values["joint"]])
    result.outputs[0].type, result.outputs[0].shape = ir.TensorType(dtype), ir.Shape(joint)
    nodes += [attended, back, result]
    graph = ir.Graph(
        inputs,
        result.outputs,
        nodes=nodes,
        initializers=list(values.values()),
        opset_imports={"": 23},
        name="attention",
    )
    model = common.ShapeInferencePass()(ir.Model(graph, ir_version=11)).model
    attention.rewrite(model, form)
    common.RemoveUnusedNodesPass()(model)
    content: Any = ir.to_proto(model)
    return bytes(content.SerializeToString())
