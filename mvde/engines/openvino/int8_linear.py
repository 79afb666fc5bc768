"""Linear layers of int8 graphs through mvde's own operator, on x86 CPUs with AVX2 and without VNNI.

oneDNN's 8-bit products are slower than its float products there; mvde's operator, in ``libmvde_openvino.so``, is twice
as fast as the latter. It quantises its rows itself and is exact: products of 7-bit weights do not saturate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.engines.isa import onednn_features, saturates
from mvde.engines.openvino import attention
from mvde.engines.openvino.operators import operator_factory, register
from mvde.errors import BackendError, IncompatibleEngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.records import EngineRecord

OPTION = "MVDE_INT8_LINEAR"
"""Engine option: :data:`OURS` or :data:`LIBRARYS`. Not passed to the library."""
OURS, LIBRARYS = "avx2", "openvino"

_COLUMNS, _DEPTHS = 24, 4  # kColumns and kDepths of cpp/backends/openvino/linear_avx2.hpp
_ZERO = 128  # of the unsigned rows
_LARGEST = 63  # magnitude of a 7-bit weight


@dataclass(frozen=True)
class _Weights:
    """Weights (depth, columns), int8, with a scale per column, float32."""

    steps: NDArray[np.int8]
    scale: NDArray[np.float32]


def applied(core: Any, model: Any, options: dict[str, Any], version: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace the 8-bit linear layers of ``model``; return the resulting options and rewrites for the manifest.

    Raises :class:`BackendError` for an unknown name, or if mvde's operator was requested and cannot run.
    """
    asked = options.get(OPTION)
    if asked not in (None, OURS, LIBRARYS):
        raise BackendError(f"{OPTION} is {asked!r}: expected {OURS} or {LIBRARYS}")
    if asked == LIBRARYS or not (asked or saturates(onednn_features())):
        return options, {}
    if reason := attention.unavailable(attention.AVX2, version):
        if asked:
            raise BackendError(f"mvde's 8-bit linear layers were requested but cannot run here: {reason}")
        return options, {}
    register(core)
    replaced = replace_linear(model)
    if not replaced:
        return options, {}
    return {**options, OPTION: OURS}, {"int8_linear": f"{replaced} by mvde's AVX2 kernel"}


def is_default(version: str) -> bool:
    """Whether int8 engines have mvde's linear layers by default with OpenVINO ``version``."""
    return saturates(onednn_features()) and not attention.unavailable(attention.AVX2, version)


def require(core: Any, engine: EngineRecord, version: str, where: Path) -> None:
    """Register the operator with ``core`` if the engine at ``where`` was compiled with it.

    Raises :class:`IncompatibleEngineError` if it cannot run.
    """
    if engine.options.get(OPTION, LIBRARYS) == LIBRARYS:
        return
    if reason := attention.unavailable(attention.AVX2, version):
        raise IncompatibleEngineError(
            f"{where} was compiled with mvde's 8-bit linear layers, which cannot run here: {reason}; or build the "
            f"engine again: mvde build --engine {engine.id}"
        )
    register(core)


def replace_linear(model: Any) -> int:
    """Replace the linear layers whose rows and 7-bit weights are dequantised; return their number.

    None is replaced in a graph without quantised convolutions, whose engine would report that it computes in fp32.
    """
    if not any(node.get_type_name() == "Convolution" and _dequantised(node.input_value(1)) for node in model.get_ops()):
        return 0
    replaced = sum(_replace(node) for node in model.get_ordered_ops() if node.get_type_name() == "MatMul")
    model.validate_nodes_and_infer_types()
    return replaced


def _replace(node: Any) -> bool:
    import openvino.opset13 as ops

    rows, weights = _quantised_rows(node), _weights(node)
    if rows is None or weights is None:
        return False
    source, step = rows
    last, bias = _bias(node, len(weights.scale))
    constants = (packed(weights.steps), _excess(weights.steps), weights.scale * np.float32(step), bias)
    arguments = [source, *(ops.constant(one).output(0) for one in constants)]
    ours = operator_factory().create("QuantizedLinear", arguments, {"step": float(step)})
    ours.set_friendly_name(last.get_friendly_name())
    for reader in list(last.output(0).get_target_inputs()):
        reader.replace_source_output(ours.output(0))
    return True


def packed(steps: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights (depth, columns) in the operator's order, padded with zeros: panels of columns, four depths together."""
    depth, columns = steps.shape
    padded = np.pad(steps, ((0, -depth % _DEPTHS), (0, -columns % _COLUMNS)))
    panels = padded.reshape(padded.shape[0] // _DEPTHS, _DEPTHS, padded.shape[1] // _COLUMNS, _COLUMNS)
    return np.ascontiguousarray(panels.transpose(2, 0, 3, 1)).ravel()


def _excess(steps: NDArray[np.int8]) -> NDArray[np.int32]:
    excess: NDArray[np.int32] = (_ZERO * steps.sum(0, dtype=np.int64)).astype(np.int32)
    return excess


def _quantised_rows(node: Any) -> tuple[Any, float] | None:
    """The float rows in front of a Q/DQ pair and its scale; None without a symmetric pair of 8 bits."""
    if node.get_attributes()["transpose_a"]:
        return None
    parts = _dequantised(node.input_value(0))
    if parts is None:
        return None
    value, scale = parts
    narrow = value.get_node()
    if narrow.get_type_name() != "Convert" or value.get_element_type().get_type_name() != "i8" or scale.size != 1:
        return None
    fake = narrow.input_value(0).get_node()
    if fake.get_type_name() != "FakeQuantize" or fake.get_attributes()["levels"] != 256:
        return None
    source, step = fake.input_value(0), float(scale.ravel()[0])
    bounds = [_constant(fake.input_value(index)) for index in range(1, 5)]
    expected = (-128 * step, 127 * step, -128.0, 127.0)
    pairs = zip(bounds, expected, strict=True)
    if any(found is None or found.size != 1 or not np.allclose(found, wanted, rtol=1e-5) for found, wanted in pairs):
        return None
    return (source, step) if source.get_partial_shape().is_static else None


def _weights(node: Any) -> _Weights | None:
    """The layer's weights if they are dequantised from 7 bits with a scale per column or one scale."""
    parts = _dequantised(node.input_value(1))
    if parts is None:
        return None
    value, scale = parts
    steps = _constant(value)
    if steps is None or steps.dtype != np.int8 or steps.ndim != 2 or np.abs(steps.astype(np.int16)).max() > _LARGEST:
        return None
    if node.get_attributes()["transpose_b"]:
        steps, scale = steps.T, scale.T
    columns = steps.shape[1]
    if scale.size not in (1, columns) or scale.size == columns != scale.shape[-1]:
        return None
    return _Weights(np.ascontiguousarray(steps), np.broadcast_to(scale.ravel(), columns).astype(np.float32))


def _dequantised(value: Any) -> tuple[Any, NDArray[Any]] | None:
    """What a DequantizeLinear with zero points of 0 converts, and its scale; None for anything else."""
    multiply = value.get_node()
    if multiply.get_type_name() != "Multiply" or (scale := _constant(multiply.input_value(1))) is None:
        return None
    inner = multiply.input_value(0).get_node()
    if inner.get_type_name() == "Subtract":
        zero = _constant(inner.input_value(1))
        if zero is None or np.any(zero):
            return None
        inner = inner.input_value(0).get_node()
    return (inner.input_value(0), scale) if inner.get_type_name() == "Convert" else None


def _constant(value: Any) -> NDArray[Any] | None:
    """A constant's values through conversions and reshapes; None if it is none."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        data: NDArray[Any] = node.get_data()
        return data
    if node.get_type_name() == "Convert":
        found = _constant(node.input_value(0))
        return None if found is None else found.astype(value.get_element_type().to_dtype())
    if node.get_type_name() == "Reshape" and value.get_partial_shape().is_static:
        found = _constant(node.input_value(0))
        return None if found is None else found.reshape(tuple(value.get_shape()))
    return None


def _bias(node: Any, columns: int) -> tuple[Any, NDArray[np.float32]]:
    """The node that ends the layer, and its bias: an addition of a number per column that follows it, or nothing."""
    readers = list(node.output(0).get_target_inputs())
    if len(readers) == 1 and readers[0].get_node().get_type_name() == "Add":
        addition = readers[0].get_node()
        bias = _constant(addition.input_value(1 - readers[0].get_index()))
        if bias is not None and bias.size == columns == (bias.shape or (1,))[-1]:
            return addition, bias.ravel().astype(np.float32)
    return node, np.zeros(columns, np.float32)
