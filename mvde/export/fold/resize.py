"""Fold rules for bilinear Resize: move it after ops that shrink its input, and resize as few axes as needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvde.export.graph.edit import (
    add_initializer,
    add_node,
    constant,
    graph_of,
    ints,
    is_constant,
    is_dense_conv,
    is_op,
    number,
    optional_input,
    replace,
    sole_reader,
    static_shape,
    text,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def squeeze_before_resize(model: ir.Model) -> int:
    """Drop the channel axis of one-channel maps before the Resize instead of after; return the number moved.

    An unscaled axis of length one only changes the indexing: linear resizing of (B, 1, H, W) over its last two axes and
    of (B, H, W) over its last two use the same elements and weights. Channels-last backends spread one channel over a
    whole vector register or pad it to sixteen; without the axis they vectorise along the row.
    """
    return sum(_squeeze_first(model.graph, node) for node in list(model.graph) if _is_spatial_linear(node))


def _is_spatial_linear(node: ir.Node) -> bool:
    """Whether a node resizes (B, C, h, w) linearly to a static (B, C, H, W)."""
    if not is_op(node, "Resize") or text(node, "mode", "nearest") != "linear" or "axes" in node.attributes:
        return False
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return (
        before is not None
        and after is not None
        and len(before) == 4
        and before[:2] == after[:2]
        and optional_input(node, 1) is None  # no region of interest
        and all(is_constant(value) for value in node.inputs[2:] if value is not None)
    )


def _squeeze_first(graph: ir.Graph, resize: ir.Node) -> bool:
    squeeze = sole_reader(resize.outputs[0])
    source, before = resize.inputs[0], static_shape(resize.inputs[0])
    after = static_shape(resize.outputs[0])
    if squeeze is None or source is None or before is None or after is None or before[1] != 1:
        return False
    if not is_op(squeeze, "Squeeze") or len(squeeze.inputs) < 2 or not is_constant(squeeze.inputs[1]):
        return False
    if constant(squeeze.inputs[1]).tolist() not in ([1.0], [-3.0]):
        return False
    axes = add_initializer(graph, "resize.channel", np.asarray([1], np.int64))
    (flat,) = add_node(resize, "Squeeze", [source, axes], [(before[0], *before[2:])])
    operands: list[ir.Value | None] = [flat, None, None, None]
    for index, value in enumerate(resize.inputs[2:], start=2):
        if value is not None and value.const_value is not None and value.const_value.size:
            kept = np.delete(value.const_value.numpy(), 1)
            operands[index] = add_initializer(graph, f"{value.name}.flat", kept)
    while operands[-1] is None:
        operands.pop()
    attributes = dict(resize.attributes.items())
    (resized,) = add_node(resize, "Resize", operands, [(after[0], *after[2:])], attributes)
    replace(squeeze.outputs[0], resized)
    return True


def convolve_before_resize(model: ir.Model) -> int:
    """Move 1x1 convolutions from after a linear upsampling to before it; return the number moved.

    Each output pixel of a Resize is a weighted mean of input pixels, Σᵢ aᵢ xᵢ with Σᵢ aᵢ = 1, and a 1x1 convolution
    acts per pixel: ``W (Σᵢ aᵢ xᵢ) + b = Σᵢ aᵢ (W xᵢ + b)``. Before the Resize, the convolution processes fewer pixels,
    and the Resize processes only the convolution's output channels.
    """
    return sum(_convolve_first(node) for node in list(model.graph) if _is_spatial_linear(node))


def _convolve_first(resize: ir.Node) -> bool:
    conv = sole_reader(resize.outputs[0])
    before, after = static_shape(resize.inputs[0]), static_shape(resize.outputs[0])
    if (
        conv is None
        or before is None
        or after is None
        or not _is_pointwise(conv)
        or conv.inputs[0] is not resize.outputs[0]
    ):
        return False
    num_channels = (static_shape(conv.inputs[1]) or (0,))[0]
    cheaper = before[2] * before[3] < after[2] * after[3] and num_channels <= after[1]
    if not cheaper or _extrapolates(resize):
        return False
    shape = (before[0], num_channels)
    (convolved,) = add_node(
        resize, "Conv", [resize.inputs[0], *conv.inputs[1:]], [(*shape, *before[2:])], dict(conv.attributes.items())
    )
    operands: list[ir.Value | None] = [convolved, None, *resize.inputs[2:]]
    sizes = optional_input(resize, 3)
    if sizes is not None and sizes.const_value is not None and sizes.const_value.size:
        operands[3] = add_initializer(
            graph_of(resize), f"{sizes.name}.narrow", np.asarray([*shape, *after[2:]], np.int64)
        )
    (resized,) = add_node(resize, "Resize", operands, [(*shape, *after[2:])], dict(resize.attributes.items()))
    replace(conv.outputs[0], resized)
    return True


def _is_pointwise(node: ir.Node) -> bool:
    shape = static_shape(node.inputs[1]) if is_op(node, "Conv") else None
    return (
        is_dense_conv(node)
        and shape is not None
        and len(shape) == 4
        and shape[2:] == (1, 1)
        and set(ints(node, "strides", (1, 1))) == {1}
        and not any(ints(node, "pads", (0, 0, 0, 0)))
        and text(node, "auto_pad", "NOTSET") in {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"}
    )


def _extrapolates(resize: ir.Node) -> bool:
    """Whether output weights may not sum to one."""
    return (
        text(resize, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
        or number(resize, "exclude_outside", 0) != 0
        or number(resize, "antialias", 0) != 0
    )
