"""Graph editing: read constants, find the readers of a value, insert nodes and constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvde.errors import BackendError

if TYPE_CHECKING:
    import onnx_ir as ir


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether a node is a standard ONNX operator of one of these types."""
    return node is not None and node.op_type in op_types and not node.domain


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is present and constant."""
    return value is not None and value.const_value is not None


def constant(value: ir.Value | None) -> NDArray[np.float64]:
    """Array of a constant in float64. Raises :class:`BackendError` for a value that is not constant."""
    if value is None or value.const_value is None:
        raise BackendError(f"the value {value} is not a constant and cannot be folded")
    return value.const_value.numpy().astype(np.float64)


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """Optional input of an operator, such as the bias of a convolution; ``None`` if absent."""
    return node.inputs[index] if len(node.inputs) > index else None


def has_constant_operands(node: ir.Node) -> bool:
    """Whether all inputs but the first (weights, bias, sizes) are constant."""
    return all(is_constant(value) for value in node.inputs[1:] if value is not None)


def is_dense_conv(node: ir.Node) -> bool:
    """Whether a convolution of either kind has constant weights, one group and no dilation."""
    return (
        is_op(node, "Conv", "ConvTranspose")
        and number(node, "group", 1) == 1
        and set(ints(node, "dilations", (1, 1))) == {1}
        and has_constant_operands(node)
    )


def is_private(value: ir.Value) -> bool:
    """Whether a value has exactly one use and is not a graph output, so that it may be changed with its reader."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def sole_reader(value: ir.Value) -> ir.Node | None:
    """Only reader of a value, ``None`` if there are others."""
    return next(iter(value.uses())).node if is_private(value) else None


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Shape of a value, ``None`` unless fully static."""
    shape = value.shape if value is not None else None
    return tuple(shape.numpy()) if shape is not None and shape.is_static() else None


def ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """Attribute as integers, or ``default``."""
    attribute = node.attributes.get(name)
    return tuple(default) if attribute is None else tuple(attribute.as_ints())


def number(node: ir.Node, name: str, default: int) -> int:
    """Attribute as an integer, or ``default``."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def text(node: ir.Node, name: str, default: str) -> str:
    """Attribute as a string, or ``default``."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def graph_of(node: ir.Node) -> ir.Graph:
    """Main graph that contains a node; rules do not enter functions."""
    import onnx_ir as ir

    assert isinstance(node.graph, ir.Graph)
    return node.graph


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Add a constant to the graph under ``name``, with a numeric suffix if the name is taken."""
    import onnx_ir as ir

    free, count = name, 0
    while free in graph.initializers:
        count += 1
        free = f"{name}.{count}"
    tensor = ir.tensor(array, name=free)
    value = ir.Value(name=free, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def add_node(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    shapes: Sequence[Sequence[int]],
    attributes: dict[str, Any] | None = None,
) -> list[ir.Value]:
    """Insert a node before another; return its outputs, with the given shapes and the first input's type."""
    node = _node(op_type, inputs, shapes, attributes)
    graph_of(before).insert_before(before, node)
    return list(node.outputs)


def add_constant_after(node: ir.Node, array: NDArray[np.float64], name: str) -> None:
    """Insert an Add of a constant along the last axis between the node's output and its readers."""
    output, graph, shape = node.outputs[0], graph_of(node), static_shape(node.outputs[0])
    assert shape is not None
    adder = _node("Add", [None, add_initializer(graph, name, array.astype(output.dtype.numpy()))], [shape])  # type: ignore[union-attr]
    adder.outputs[0].type = output.type
    replace(output, adder.outputs[0])
    adder.replace_input_with(0, output)
    graph.insert_after(node, adder)


def set_constant(node: ir.Node, index: int, array: NDArray[np.float64]) -> None:
    """Replace an input of a node by a new constant of the same dtype."""
    old, graph = node.inputs[index], graph_of(node)
    assert old is not None
    stem = (old.name or "constant").removesuffix(".folded")
    node.replace_input_with(index, add_initializer(graph, f"{stem}.folded", array.astype(old.dtype.numpy())))  # type: ignore[union-attr]


def replace(old: ir.Value, new: ir.Value) -> None:
    """Redirect all readers of ``old``, graph outputs included, to ``new``, which takes over the old name."""
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}.folded"
    new.name = name


def remove_unused(model: ir.Model) -> int:
    """Remove unused nodes and initializers; return the number of nodes removed."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    before = len(model.graph)
    RemoveUnusedNodesPass()(model)
    return before - len(model.graph)


def _node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    shapes: Sequence[Sequence[int]],
    attributes: dict[str, Any] | None = None,
) -> ir.Node:
    import onnx_ir as ir

    outputs = [ir.Value(type=inputs[0].type if inputs[0] else None, shape=ir.Shape(shape)) for shape in shapes]
    return ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes or {}), outputs=outputs)
