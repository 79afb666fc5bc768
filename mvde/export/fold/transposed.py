"""Merge of a transposed convolution with the convolution after it, where no activation lies between."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mvde.export.graph.edit import (
    add_initializer,
    add_node,
    constant,
    graph_of,
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
    from numpy.typing import NDArray


def merge_conv_into_transposed(model: ir.Model) -> int:
    """Merge convolutions into the preceding transposed convolution where that saves work; return the number merged.

    In one dimension, a transposed convolution with kernel v of size k and stride s writes ``m[s i + a] += v[a] x[i]``,
    and a convolution with kernel u of size l and padding p, which reads zeros outside m, gives
    ``y[t] = Σ_e u[e] m[t + e - p]``. Together ``y[s i + a - e + p] += u[e] v[a] x[i]``: a transposed convolution with
    stride s, whose kernel ``w[q] = Σ_{a - e + l - 1 = q} u[e] v[a]`` has size k + l - 1, cropped by ``l - 1 - p``
    elements at each end. Two dimensions and several channels work the same way.

    A bias of the transposed convolution is constant inside m and zero outside, so its contribution varies along the
    border. It is carried by an extra input channel of ones, produced by the 1x1 convolution in front, with the bias as
    its kernel.
    """
    return sum(_merge(model.graph, node) for node in list(model.graph) if _is_plain_transposed(node))


def _is_plain_transposed(node: ir.Node) -> bool:
    return (
        is_op(node, "ConvTranspose")
        and _is_plain(node)
        and not any(ints(node, "pads", (0, 0, 0, 0)))
        and not any(ints(node, "output_padding", (0, 0)))
        and "output_shape" not in node.attributes
        and len(static_shape(node.inputs[0]) or ()) == 4
    )


def _is_plain(node: ir.Node) -> bool:
    """Whether a convolution has constant weights, no groups, no dilation and no automatic padding."""
    return (
        is_dense_conv(node)
        and text(node, "auto_pad", "NOTSET") == "NOTSET"
        and len(static_shape(node.inputs[1]) or ()) == 4
    )


def _merge(graph: ir.Graph, spread: ir.Node) -> bool:
    conv = sole_reader(spread.outputs[0])
    if conv is None or not is_op(conv, "Conv") or not _is_plain(conv) or set(ints(conv, "strides", (1, 1))) != {1}:
        return False
    first, second = constant(spread.inputs[1]), constant(conv.inputs[1])
    pads = ints(conv, "pads", (0, 0, 0, 0))
    crop = [size - 1 - pad for size, pad in zip(second.shape[2:] * 2, pads, strict=True)]
    bias = optional_input(spread, 2)
    source = spread.inputs[0]
    assert source is not None
    if min(crop) < 0 or not _saves_work(spread, first, second):
        return False
    kernel = _merged(first, second)
    if bias is not None and np.any(constant(bias)):
        widened = _with_ones(source)
        if widened is None:
            return False
        ones = np.broadcast_to(constant(bias)[None, :, None, None], (1, *first.shape[1:]))
        kernel = np.concatenate([kernel, _merged(ones, second)])
        source = widened
    dtype = spread.inputs[1].dtype.numpy()  # type: ignore[union-attr]
    weight = add_initializer(graph, f"{spread.inputs[1].name}.merged", kernel.astype(dtype))  # type: ignore[union-attr]
    attributes = {"strides": ints(spread, "strides", (1, 1)), "pads": crop, "kernel_shape": kernel.shape[2:]}
    shape = static_shape(conv.outputs[0])
    assert shape is not None
    operands = [source, weight, *conv.inputs[2:]]
    (merged,) = add_node(conv, "ConvTranspose", operands, [shape], attributes)
    replace(conv.outputs[0], merged)
    return True


def _merged(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kernel (C, O, k + l - 1, ...) merged from (C, M, k, ...) of the transposed and (O, M, l, ...) of the other."""
    channels, _, rows, columns = first.shape
    high, wide = second.shape[2:]
    merged = np.zeros((channels, second.shape[0], rows + high - 1, columns + wide - 1))
    for row in range(high):
        for column in range(wide):
            part = np.einsum("cmab,om->coab", first, second[:, :, row, column], optimize=True)
            top, left = high - 1 - row, wide - 1 - column
            merged[:, :, top : top + rows, left : left + columns] += part
    return merged


def _saves_work(spread: ir.Node, first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    num_pixels = math.prod((static_shape(spread.inputs[0]) or (0,))[2:])
    num_spread = math.prod((static_shape(spread.outputs[0]) or (0,))[2:])
    apart = num_pixels * first.size + num_spread * second.size
    area = math.prod(a + b - 1 for a, b in zip(first.shape[2:], second.shape[2:], strict=True))
    together = num_pixels * (first.shape[0] + 1) * second.shape[0] * area
    return bool(together < 0.75 * apart)  # a larger kernel has lower throughput


def _with_ones(source: ir.Value) -> ir.Value | None:
    """``source`` with an extra channel of ones, or ``None`` if its convolution has other readers."""
    conv = source.producer()
    if conv is None or not is_op(conv, "Conv") or not _is_plain(conv) or sole_reader(source) is None:
        return None
    weight, shape = constant(conv.inputs[1]), static_shape(source)
    assert shape is not None
    old_bias = optional_input(conv, 2)
    bias = np.zeros(shape[1]) if old_bias is None else constant(old_bias)
    wider = np.concatenate([weight, np.zeros((1, *weight.shape[1:]))])
    return _widened(conv, wider, np.append(bias, 1.0), (shape[0], shape[1] + 1, *shape[2:]))


def _widened(conv: ir.Node, weight: NDArray[np.float64], bias: NDArray[np.float64], shape: tuple[int, ...]) -> ir.Value:
    dtype = conv.inputs[1].dtype.numpy()  # type: ignore[union-attr]
    stem = conv.inputs[1].name  # type: ignore[union-attr]
    constants = [
        add_initializer(graph_of(conv), f"{stem}.ones{suffix}", array.astype(dtype))
        for suffix, array in (("", weight), (".bias", bias))
    ]
    (wider,) = add_node(conv, "Conv", [conv.inputs[0], *constants], [shape], dict(conv.attributes.items()))
    return wider
