"""Patch embedding as a matrix product: non-overlapping kernels cut the image into rows."""

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
    sole_reader,
    static_shape,
    text,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def embed_patches_by_product(model: ir.Model) -> int:
    """Replace patch convolutions by products of image patches with a matrix; return the number replaced.

    A convolution whose stride equals its kernel size reads every pixel once: its output at (i, j) is the sum over patch
    (i, j) of weight times pixel, which is one row of ``patches (N, p p C) · weights (p p C, D)``. For a channels-last
    image, the rows are formed by a reshape, one transpose of p C contiguous elements, and a reshape, without conversion
    to planes.
    """
    return sum(_embed(model.graph, node) for node in list(model.graph) if is_op(node, "Conv"))


def _embed(graph: ir.Graph, conv: ir.Node) -> bool:
    pixels, weight_shape = conv.inputs[0], static_shape(conv.inputs[1])
    planes = pixels.producer() if pixels is not None else None
    after = sole_reader(conv.outputs[0])
    tokens = sole_reader(after.outputs[0]) if after is not None else None
    if planes is None or after is None or tokens is None or weight_shape is None or len(weight_shape) != 4:
        return False
    image = planes.inputs[0] if is_op(planes, "Transpose") else None
    shape, out = static_shape(image), static_shape(tokens.outputs[0])
    if image is None or shape is None or out is None or not _is_patch_conv(conv, weight_shape):
        return False
    if ints(planes, "perm", ()) != (0, 3, 1, 2) or not is_op(after, "Transpose") or not is_op(tokens, "Reshape"):
        return False
    width, channels, size, _ = weight_shape
    batch, rows, columns = shape[0], shape[1] // size, shape[2] // size
    if ints(after, "perm", ()) != (0, 2, 3, 1) or out != (batch, rows * columns, width):
        return False
    patch = size * size * channels

    def reshaped(value: ir.Value, target: tuple[int, ...]) -> ir.Value:
        to = add_initializer(graph, "patches.shape", np.asarray(target, np.int64))
        return add_node(tokens, "Reshape", [value, to], [target])[0]

    cut = reshaped(image, (batch, rows, size, columns, size * channels))
    (moved,) = add_node(
        tokens, "Transpose", [cut], [(batch, rows, columns, size, size * channels)], {"perm": [0, 1, 3, 2, 4]}
    )
    flat = reshaped(moved, (batch, rows * columns, patch))
    dtype = conv.inputs[1].dtype.numpy()  # type: ignore[union-attr]
    matrix = constant(conv.inputs[1]).transpose(2, 3, 1, 0).reshape(patch, width)
    stem = conv.inputs[1].name  # type: ignore[union-attr]
    (result,) = add_node(
        tokens, "MatMul", [flat, add_initializer(graph, f"{stem}.matrix", matrix.astype(dtype))], [out]
    )
    bias = optional_input(conv, 2)
    if bias is not None:
        row = add_initializer(graph, f"{stem}.row", constant(bias).astype(dtype))
        (result,) = add_node(tokens, "Add", [result, row], [out])
    replace(tokens.outputs[0], result)
    return True


def _is_patch_conv(conv: ir.Node, weight_shape: tuple[int, ...]) -> bool:
    size = weight_shape[2:]
    return (
        is_dense_conv(conv)
        and size[0] == size[1]
        and ints(conv, "strides", (1, 1)) == size
        and not any(ints(conv, "pads", (0, 0, 0, 0)))
        and text(conv, "auto_pad", "NOTSET") in {"NOTSET", "VALID"}
    )
