"""Q/DQ pairs around the products of an fp32 graph: int8 or fp8 E4M3, symmetric, per-channel weights.

Only inputs of products are quantised, never outputs: sums with the bias and the residual stream stay exact, and a
tensor read by several products is quantised once. Biases stay floats, as TensorRT's parser requires.
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
"""Axis of the output channels in a weight; the last for a matrix."""


@dataclass(frozen=True)
class Product:
    """Node that multiplies an activation by a constant weight.

    ``output_axis`` and ``input_axis`` are the channel axes of the weight, ``activation_axis`` the activation's axis
    that meets the latter.
    """

    node: str
    activation: str
    weight: str
    output_axis: int
    input_axis: int
    activation_axis: int


@dataclass(frozen=True)
class QuantizationGrid:
    """Representable values of a tensor: steps of ``precision`` times a scale in the precision ``rest``.

    ``rest`` is the precision of the non-quantised nodes. Scales are rounded to it before they divide anything, so that
    lowering the other nodes later changes no scale. ``weight_bits`` is the number of bits of int8 weights: 7 for CPUs
    whose products of 8 bits saturate (:mod:`mvde.engines.isa`).
    """

    precision: Precision
    rest: Precision = Precision.FP32
    weight_bits: int = 8

    @property
    def for_weights(self) -> float:
        """Largest step of a weight."""
        largest = self.precision.largest
        return float(int(largest) >> 8 - self.weight_bits) if self.precision is Precision.INT8 else largest

    def scale(self, largest: Any, most: float | None = None) -> NDArray[np.float32]:
        """Step size for tensors with those largest magnitudes, bounded below for tensors of zeros.

        ``most`` is the largest step, by default that of the precision.
        """
        smallest = np.float32(2.0**-14)  # fp16's smallest normal number: below it a scale loses precision
        step = np.maximum(np.asarray(largest, np.float32) / (most or self.precision.largest), smallest)
        rounded: NDArray[np.float32] = step.astype(ir_dtype(self.rest).numpy()).astype(np.float32)
        return rounded

    def stored(self, steps: NDArray[np.float32]) -> NDArray[Any]:
        """Convert a weight's steps to the storage dtype: clipped, and rounded to nearest, ties to even."""
        largest = self.for_weights
        clipped = np.clip(steps, -largest, largest)
        whole = np.rint(clipped) if self.precision is Precision.INT8 else clipped
        return whole.astype(ir_dtype(self.precision).numpy())


def find_products(graph: ir.Graph) -> dict[str, Product]:
    """Find the products of an activation and a constant weight, by node name."""
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
    """Insert Q/DQ pairs before both operands of ``products`` in ``model``, in place.

    ``thresholds`` are the magnitudes at which activations are clipped.
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
    """Writer of Q/DQ nodes; one pair per tensor, shared by all readers."""

    def __init__(self, graph: ir.Graph, grid: QuantizationGrid) -> None:
        self._graph = graph
        self._grid = grid
        self._dtype = ir_dtype(grid.precision)
        self._made: dict[str, ir.Value] = {}

    def activation(self, value: ir.Value, threshold: float) -> ir.Value:
        """Quantise and dequantise the value with one scale per tensor."""
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
        """Store the weight in 8 bits with one scale per output channel."""
        import onnx_ir as ir

        name = str(value.name)
        if name not in self._made:
            assert value.const_value is not None
            weight = value.const_value.numpy().astype(np.float32)
            others = tuple(i for i in range(weight.ndim) if i != axis)
            scale = self._grid.scale(np.abs(weight).max(axis=others), self._grid.for_weights)
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
