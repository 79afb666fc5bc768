"""The two ends of an imported graph: the camera's bytes in front, float32 maps (B, H, W) behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.contract import OutputRole, PreprocessRecord
from mvde.export.graph.edit import add_initializer, static_shape
from mvde.export.imported.contract import Layout, NamedOutput
from mvde.export.imported.tensors import Pixels

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

INPUT_NAME = "image"


def take_camera_bytes(model: ir.Model, pixels: Pixels, record: PreprocessRecord) -> None:
    """Replace the picture input by ``image``, uint8 (B, H, W, 3) RGB; the graph computes the pixels from it.

    The cast comes before the transpose: TensorRT's parser refuses to transpose uint8.
    """
    import onnx_ir as ir

    graph = model.graph
    (picture,) = [value for value in graph.inputs if value.name == pixels.name]
    sides = static_shape(picture)
    assert sides is not None
    batch, height, width = (sides[0], *sides[2:]) if pixels.layout is Layout.NCHW else sides[:3]
    _free_name(model, INPUT_NAME)
    image = ir.Value(name=INPUT_NAME, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape((batch, height, width, 3)))
    front = _Chain(graph, "front")
    value = front.add("Cast", [image], to=int(ir.DataType.FLOAT))
    if record.colour == "BGR":
        value = front.add("Gather", [value, front.constant("channels", np.array([2, 1, 0]))], axis=3)
    if pixels.layout is Layout.NCHW:
        value = front.add("Transpose", [value], perm=[0, 3, 1, 2])
    if record.pixel_range != 255:
        value = front.add("Div", [value, front.constant("largest", np.float32(255 / record.pixel_range))])
    axes = (1, 3, 1, 1) if pixels.layout is Layout.NCHW else (1, 1, 1, 3)
    if any(record.mean):
        value = front.add("Sub", [value, front.constant("mean", np.array(record.mean, np.float32).reshape(axes))])
    if set(record.std) != {1.0}:
        value = front.add("Div", [value, front.constant("std", np.array(record.std, np.float32).reshape(axes))])
    picture.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.insert_before(graph[0], front.nodes)
    graph.inputs[:] = [image]


def keep_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Drop the other outputs, and the nodes that only they need."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    found = {str(value.name): value for value in model.graph.outputs}
    model.graph.outputs[:] = [found[name] for name in names]
    RemoveUnusedNodesPass()(model)


def give_maps(
    model: ir.Model, outputs: Sequence[NamedOutput], batch_shape: Sequence[int], map_scale: float
) -> list[str]:
    """Replace the graph's outputs by float32 maps (B, H, W) named after their roles; return these names.

    Depth is multiplied by ``map_scale``.
    """
    import onnx_ir as ir

    graph, chain = model.graph, _Chain(model.graph, "back")
    found = {str(value.name): value for value in graph.outputs}
    maps = []
    for output in outputs:
        value = found[output.name]
        if value.dtype is not ir.DataType.FLOAT:
            value = chain.add("Cast", [value], to=int(ir.DataType.FLOAT))
        if output.role is OutputRole.DEPTH and map_scale != 1:
            value = chain.add("Mul", [value, chain.constant("map_scale", np.float32(map_scale))])
        maps.append(chain.add("Reshape", [value, chain.constant("map_shape", np.asarray(batch_shape, np.int64))]))
    graph.extend(chain.nodes)
    graph.outputs[:] = maps
    names = []
    for output, value in zip(outputs, maps, strict=True):
        value.name = None
        _free_name(model, output.role.value)
        value.name = output.role.value
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(batch_shape)
        names.append(output.role.value)
    return names


class _Chain:
    """Nodes to be inserted, and their constants in the graph."""

    def __init__(self, graph: ir.Graph, end: str) -> None:
        self._graph, self._end = graph, end
        self.nodes: list[ir.Node] = []

    def add(self, op_type: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        """Append a node with one output, and return the output."""
        import onnx_ir as ir

        node = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), num_outputs=1)
        node.name = f"mvde_{self._end}_{len(self.nodes)}_{op_type}"
        node.outputs[0].name = f"{node.name}.out"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, name: str, array: NDArray[Any] | np.generic) -> ir.Value:
        """Constant in the graph."""
        return add_initializer(self._graph, f"mvde_{name}", np.asarray(array))


def _free_name(model: ir.Model, name: str) -> None:
    """Rename a value of the graph that is called ``name``."""
    graph = model.graph
    for value in [*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs)]:
        if value.name == name:
            value.name = f"{name}.original"
    if name in graph.initializers:
        value = graph.initializers.pop(name)
        value.name = f"{name}.original"
        graph.register_initializer(value)
