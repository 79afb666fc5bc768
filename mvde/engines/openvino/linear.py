"""Rewrite linear layers as 1×1 convolutions, which OpenVINO runs faster in bf16 on CPUs with AMX.

Tokens become pixels: tokens × channels in memory is a channels-last image, the layout of the library's convolutions, so
the inserted transposes are free. Both forms compute the same sums.
"""

from __future__ import annotations

from typing import Any

from mvde.engines.isa import onednn_features
from mvde.precision import Precision

OPTION = "linear_layers"
"""Tuning setting of mvde itself, not of the library; its effect is part of the blob."""

CONVOLUTIONS, PRODUCTS = "convolutions", "products"

_ACTIVATIONS = ("Gelu", "Relu", "Swish", "Sigmoid", "Tanh", "HSwish")


def default(precision: Precision) -> str:
    """Default form of linear layers in ``precision`` on this machine, unless tuning finds otherwise.

    Measured on one CPU with AMX: 1.6 times as fast in bf16, no gain in fp32, slower in int8.
    """
    return CONVOLUTIONS if precision is Precision.BF16 and "amx_bf16" in onednn_features() else PRODUCTS


def to_convolutions(model: Any) -> int:
    """Replace linear layers of an ``openvino.Model`` by convolutions in place; return their number."""
    layers = [node for node in model.get_ordered_ops() if _is_linear(node)]
    for layer in layers:
        _replace(layer)
    model.validate_nodes_and_infer_types()
    return len(layers)


def _is_linear(node: Any) -> bool:
    """Whether a node multiplies tokens (B, T, C) by a constant matrix."""
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
        return False
    tokens, weight = node.input_value(0), node.input_value(1)
    return bool(
        weight.get_node().get_type_name() == "Constant"
        and len(weight.get_shape()) == 2
        and tokens.get_partial_shape().is_static
        and len(tokens.get_shape()) == 3
    )


def _replace(layer: Any) -> None:
    """Replace the layer, its bias and its activation by a convolution between two transposes."""
    import numpy as np
    from openvino import opset13 as ops

    tokens, weight = layer.input_value(0), layer.input_value(1).get_node().data
    if not layer.get_attributes()["transpose_b"]:
        weight = weight.T
    (num_out, num_in), (batch, num_tokens, _) = weight.shape, tokens.get_shape()
    # The library parallelises over rows; a single row, or rows of one pixel, are slower.
    rows = next(rows for rows in range(int(num_tokens**0.5), 0, -1) if num_tokens % rows == 0)
    image = ops.reshape(ops.transpose(tokens, [0, 2, 1]), [batch, num_in, rows, num_tokens // rows], False)
    kernel = np.ascontiguousarray(weight).reshape(num_out, num_in, 1, 1)
    result = ops.convolution(image, ops.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
    last = _after_bias(layer)
    if last is not layer:
        (bias,) = (one.get_node() for one in last.input_values() if one.get_node().get_type_name() == "Constant")
        result = ops.add(result, ops.constant(bias.data.reshape(1, num_out, 1, 1)))
    users = list(last.output(0).get_target_inputs())
    if len(users) == 1 and users[0].get_node().get_type_name() in _ACTIVATIONS and users[0].get_index() == 0:
        activation = users[0].get_node()
        users = list(activation.output(0).get_target_inputs())
        activation.input(0).replace_source_output(result.output(0))
        result = activation
    back = ops.transpose(ops.reshape(result, [batch, num_out, num_tokens], False), [0, 2, 1])
    for user in users:
        user.replace_source_output(back.output(0))


def _after_bias(layer: Any) -> Any:
    """The bias addition that follows the layer, or the layer itself if there is none."""
    users = list(layer.output(0).get_target_inputs())
    if len(users) == 1 and users[0].get_node().get_type_name() == "Add":
        addition = users[0].get_node()
        other = addition.input_value(1 - users[0].get_index()).get_node()
        num_out = layer.output(0).get_partial_shape()[-1].get_length()
        if other.get_type_name() == "Constant" and other.data.size == num_out == (other.data.shape or (1,))[-1]:
            return addition
    return layer
