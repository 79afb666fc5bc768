"""Q/DQ pairs round the products of an fp32 graph: int8 or fp8 E4M3, symmetric, weights per output channel.

Only what a product reads is quantised, never what it gives: the sum with the bias and with the residual stream stays
exact, and a tensor that several products read is quantised once. Biases stay floats, as TensorRT's parser wants them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvde.export.graph.dtypes import ir_dtype
from mvde.export.graph.edit import is_op
from mvde.precision import Precision

if TYPE_CHECKING:
    import onnx_ir as ir

_WEIGHT_AXIS = {"Conv": 0, "ConvTranspose": 1}
"""Axis of the output channels in a weight; a matrix has them last."""


@dataclass(frozen=True)
class Product:
    """A node that multiplies an activation by a constant weight: axes of the weight's output and input channels,
    and the axis of the activation that the latter meets."""

    node: str
    activation: str
    weight: str
    output_axis: int
    input_axis: int
    activation_axis: int


@dataclass(frozen=True)
class QuantizationGrid:
    """The numbers that a tensor can take: steps of ``precision`` times a scale in the precision ``rest``.

    ``rest`` is what the nodes that are not quantised compute in. Scales are rounded to it before anything is divided
    by them, so that lowering the graph's other nodes afterwards changes no scale.
    """

    precision: Precision
    rest: Precision = Precision.FP32

    def scale(self, largest: Any) -> NDArray[np.float32]:
        """Step for tensors with those largest magnitudes; a tiny one for a tensor of zeros."""
        smallest = np.float32(2.0**-14)  # fp16's smallest normal number: below it a scale would lose its digits
        step = np.maximum(np.asarray(largest, np.float32) / self.precision.largest, smallest)
        rounded: NDArray[np.float32] = step.astype(ir_dtype(self.rest).numpy()).astype(np.float32)
        return rounded

    def stored(self, steps: NDArray[np.float32]) -> NDArray[Any]:
        """Numbers of steps as they are stored: clipped, and rounded to the nearest, ties to even."""
        largest = self.precision.largest
        clipped = np.clip(steps, -largest, largest)
        whole = np.rint(clipped) if self.precision is Precision.INT8 else clipped
        return whole.astype(ir_dtype(self.precision).numpy())


def find_products(graph: ir.Graph) -> dict[str, Product]:
    """Products of an activation and a weight, by the node's name."""
    found = {}
    for node in graph:
        if not is_op(node, "MatMul", "Conv", "ConvTranspose") or len(node.inputs) < 2:
            continue
        activation, weight = node.inputs[0], node.inputs[1]
        if activation is None or weight is None or weight.const_value is None or activation.producer() is None:
            continue
        rank = len(weight.shape or ())
        is_matrix = node.op_type == "MatMul"
        if is_matrix and rank != 2:
            continue
        output_axis = 1 if is_matrix else _WEIGHT_AXIS[node.op_type]
        found[str(node.name)] = Product(
            str(node.name), str(activation.name), str(weight.name), output_axis, 1 - output_axis, -1 if is_matrix else 1
        )
    return found


def quantize(
    model: ir.Model, products: Collection[Product], thresholds: Mapping[str, float], grid: QuantizationGrid
) -> None:
    """Put Q/DQ pairs before both operands of ``products`` in ``model``, in place.

    ``thresholds`` are the magnitudes that activations are clipped at.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    writer = _QdqWriter(model.graph, grid)
    nodes = {node.name: node for node in model.graph}
    for product in products:
        node = nodes[product.node]
        activation, weight = node.inputs[0], node.inputs[1]
        assert activation is not None
        assert weight is not None
        node.replace_input_with(0, writer.activation(activation, thresholds[product.activation]))
        node.replace_input_with(1, writer.weight(weight, product.output_axis))
    RemoveUnusedNodesPass()(model)


class _QdqWriter:
    """Makes Q/DQ nodes in a graph; one pair per tensor, whatever reads it."""

    def __init__(self, graph: ir.Graph, grid: QuantizationGrid) -> None:
        self._graph = graph
        self._grid = grid
        self._dtype = ir_dtype(grid.precision)
        self._made: dict[str, ir.Value] = {}

    def activation(self, value: ir.Value, threshold: float) -> ir.Value:
        """The value after quantisation with one scale."""
        import onnx_ir as ir

        name = str(value.name)
        if name not in self._made:
            scale = self._constant(f"{name}.scale", self._grid.scale(threshold))
            zero = self._zero(f"{name}.zero", ())
            quantized = ir.Value(name=f"{name}.q", type=ir.TensorType(self._dtype), shape=value.shape)
            restored = ir.Value(name=f"{name}.dq", type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
            q = ir.Node("", "QuantizeLinear", [value, scale, zero], outputs=[quantized], name=f"{name}.q")
            dq = ir.Node("", "DequantizeLinear", [quantized, scale, zero], outputs=[restored], name=f"{name}.dq")
            producer = value.producer()
            assert producer is not None
            self._graph.insert_after(producer, [q, dq])
            self._made[name] = restored
        return self._made[name]

    def weight(self, value: ir.Value, axis: int) -> ir.Value:
        """The weight stored in 8 bits and scaled per output channel."""
        import onnx_ir as ir

        name = str(value.name)
        if name not in self._made:
            assert value.const_value is not None
            weight = value.const_value.numpy().astype(np.float32)
            others = tuple(i for i in range(weight.ndim) if i != axis)
            scale = self._grid.scale(np.abs(weight).max(axis=others))
            shape = [1] * weight.ndim
            shape[axis] = -1
            stored = self._constant(f"{name}.q", self._grid.stored(weight / scale.reshape(shape)))
            inputs = [stored, self._constant(f"{name}.scale", scale), self._zero(f"{name}.zero", scale.shape)]
            restored = ir.Value(name=f"{name}.dq", type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
            attributes = [ir.AttrInt64("axis", axis)]
            dq = ir.Node("", "DequantizeLinear", inputs, attributes, outputs=[restored], name=f"{name}.dq")
            self._graph.insert_before(self._graph[0], dq)
            self._made[name] = restored
        return self._made[name]

    def _zero(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        return self._constant(name, np.zeros(shape, self._dtype.numpy()))

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        import onnx_ir as ir

        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value
