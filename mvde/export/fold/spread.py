"""Transposed convolution with kernel equal to stride, as a 1x1 convolution and a DepthToSpace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvde.export.graph.edit import (
    add_initializer,
    add_node,
    constant,
    ints,
    is_dense_conv,
    is_op,
    optional_input,
    replace,
    static_shape,
    text,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def spread_by_depth_to_space(model: ir.Model) -> int:
    """Replace transposed convolutions by a 1x1 convolution and DepthToSpace; return the number replaced.

    With kernel size equal to stride s and no padding, the outputs of different pixels do not overlap:
    ``y[c, s i + a, s j + b] = Σ_d w[d, c, a, b] x[d, i, j] + bias[c]`` for 0 <= a, b < s. That is a 1x1 convolution to
    channels (c, a, b); ``DepthToSpace`` in mode ``CRD`` moves channel (c, a, b) of pixel (i, j) to channel c of pixel
    (s i + a, s j + b). Products and order of summation are unchanged.
    """
    return sum(_spread(model.graph, node) for node in list(model.graph) if _does_not_overlap(node))


def _does_not_overlap(node: ir.Node) -> bool:
    if not is_op(node, "ConvTranspose") or not is_dense_conv(node):
        return False
    strides, weight_shape = ints(node, "strides", (1, 1)), static_shape(node.inputs[1])
    return (
        weight_shape is not None
        and len(weight_shape) == 4
        and weight_shape[2:] == strides
        and len(set(strides)) == 1
        and strides[0] > 1
        and not any(ints(node, "pads", (0, 0, 0, 0)))
        and not any(ints(node, "output_padding", (0, 0)))
        and "output_shape" not in node.attributes
        and text(node, "auto_pad", "NOTSET") in {"NOTSET", "VALID"}
        and static_shape(node.inputs[0]) is not None
    )


def _spread(graph: ir.Graph, node: ir.Node) -> bool:
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None
    assert weight is not None
    assert weight.dtype is not None
    kernel, dtype, shape = constant(weight), weight.dtype.numpy(), static_shape(source)
    assert shape is not None
    size = kernel.shape[2]
    channels = kernel.shape[1] * size**2
    flat = kernel.transpose(1, 2, 3, 0).reshape(channels, kernel.shape[0], 1, 1)
    operands = [source, add_initializer(graph, f"{weight.name}.spread", flat.astype(dtype))]
    bias = optional_input(node, 2)
    if bias is not None:
        repeated = np.repeat(constant(bias), size**2)
        operands.append(add_initializer(graph, f"{bias.name}.spread", repeated.astype(dtype)))
    small = (shape[0], channels, *shape[2:])
    (stacked,) = add_node(node, "Conv", operands, [small], {"kernel_shape": [1, 1]})
    wide = (shape[0], kernel.shape[1], shape[2] * size, shape[3] * size)
    (spread,) = add_node(node, "DepthToSpace", [stacked], [wide], {"blocksize": size, "mode": "CRD"})
    replace(node.outputs[0], spread)
    return True
