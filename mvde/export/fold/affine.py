"""Fold scaling and normalisation into the following convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.export.graph.edit import (
    add_initializer,
    constant,
    has_constant_operands,
    ints,
    is_op,
    is_private,
    number,
    optional_input,
    text,
)

if TYPE_CHECKING:
    import onnx_ir as ir

_AFFINE_OPS = ("Add", "Sub", "Mul", "Div")


def fold_affine_into_conv(model: ir.Model) -> int:
    """Fold per-channel affine chains (Add, Sub, Mul, Div) into the next convolution; return the number folded.

    With ``y_c = a_c x_c + b_c``, a convolution without padding gives
    ``Σ w_oc y_c + k_o = Σ (w_oc a_c) x_c + (k_o + Σ w_oc b_c)``, which is a convolution of ``x``. Padding breaks this,
    because it adds zeros to ``y``, not to ``x``. The rule folds scaling bytes to [0, 1] and normalisation into the
    patch embedding. The new weights are computed in float64 and rounded once.
    """
    return sum(_fold_chain(model.graph, node) for node in list(model.graph) if _is_unpadded_conv(node))


def _is_unpadded_conv(node: ir.Node) -> bool:
    return (
        is_op(node, "Conv")
        and not any(ints(node, "pads", ()))
        and number(node, "group", 1) == 1
        and text(node, "auto_pad", "NOTSET") in {"NOTSET", "VALID"}
        and has_constant_operands(node)
    )


def _fold_chain(graph: ir.Graph, conv: ir.Node) -> bool:
    weight = constant(conv.inputs[1])
    scale, shift = np.ones(weight.shape[1]), np.zeros(weight.shape[1])
    source = conv.inputs[0]
    while (step := _affine_step(source, weight.shape[1])) is not None:
        source, step_scale, step_shift = step
        # The chain is walked backwards from the convolution, so each step applies before those already folded.
        scale, shift = scale * step_scale, scale * step_shift + shift
    if source is conv.inputs[0]:
        return False
    old_bias = optional_input(conv, 2)
    bias = 0.0 if old_bias is None else constant(old_bias)
    dtype = conv.inputs[1].dtype.numpy()  # type: ignore[union-attr]
    folded_bias = bias + np.einsum("ochw,c->o", weight, shift)
    new = [(weight * scale[None, :, None, None]).astype(dtype), folded_bias.astype(dtype)]
    conv.resize_inputs(3)
    conv.replace_input_with(0, source)
    stem = conv.inputs[1].name  # type: ignore[union-attr]
    for index, (suffix, array) in enumerate(zip(("", ".bias"), new, strict=True), start=1):
        conv.replace_input_with(index, add_initializer(graph, f"{stem}.folded{suffix}", array))
    return True


def _affine_step(
    value: ir.Value | None, num_channels: int
) -> tuple[ir.Value, NDArray[np.float64], NDArray[np.float64]] | None:
    """(x, a, b) with ``value = a x + b`` per channel, or ``None`` if it has another form or other readers."""
    node = value.producer() if value is not None else None
    if value is None or node is None or not is_op(node, *_AFFINE_OPS) or not is_private(value):
        return None
    data, operand = node.inputs
    if node.op_type in {"Add", "Mul"} and data is not None and data.const_value is not None:
        data, operand = operand, data
    if data is None or operand is None or operand.const_value is None:
        return None
    numbers = _per_channel(constant(operand), num_channels)
    if numbers is None or data.shape is None or len(data.shape) != 4 or data.shape[1] != num_channels:
        return None  # the constant may also broadcast one channel to several, which the weights cannot express
    one, zero = np.ones(num_channels), np.zeros(num_channels)
    scale_shift = {"Add": (one, numbers), "Sub": (one, -numbers), "Mul": (numbers, zero)}
    if node.op_type == "Div":
        return data, 1.0 / numbers, zero
    return data, *scale_shift[node.op_type]


def _per_channel(constant: NDArray[np.float64], num_channels: int) -> NDArray[np.float64] | None:
    """One number per channel, or ``None`` if the constant varies along other axes of (B, C, H, W)."""
    if constant.size == 1 and constant.ndim <= 4:
        return np.full(num_channels, constant.item())
    if constant.ndim in {3, 4} and constant.shape[-3:] == (num_channels, 1, 1) and constant.size == num_channels:
        return constant.reshape(num_channels)
    return None
