"""Inspection of the parsed network of a typed graph, before anything is built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvde.errors import BackendError
from mvde.records import NetworkRecord

if TYPE_CHECKING:
    from mvde.precision import Precision
    from mvde.records import LoweringRecord

DTYPE_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
PRODUCTS = {"MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "ATTENTION_INPUT"}
_BOOKKEEPING = {"CAST", "CONSTANT", "QUANTIZE", "DEQUANTIZE", "SHAPE"}
_MOVES = {"SHUFFLE", "CONSTANT", "SQUEEZE", "UNSQUEEZE", "IDENTITY", "CAST"}
_OF_NODE = "[ONNX Layer: "
"""Metadata prefix of the one layer that represents an ONNX node; auxiliary layers have none."""

SHARE_SLACK = 0.02
"""Tolerance between the promised and the parsed share of a dtype. TensorRT-RTX 1.7 maps nodes to layers one to one, so
there is no difference; other parsers may drop a few nodes (Identity, a Reshape of a Reshape)."""


def inspect_network(network: Any) -> NetworkRecord:
    """Statistics of a parsed network.

    Layers that represent an ONNX node are counted by dtype, as :class:`~mvde.manifest.LoweringRecord` counts nodes;
    products of two quantised operands count as int8 or fp8. ``num_attention`` counts recognised attention layers,
    ``num_softmax`` those left as a Softmax between products.
    """
    layers = [_Layer.of(network.get_layer(index)) for index in range(network.num_layers)]
    makers = {name: layer for layer in layers for name in layer.outputs}
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    products = Counter(_computes_in(layer, makers) for layer in layers if layer.kind in PRODUCTS)
    nodes = [layer for layer in layers if layer.stands_for_node and layer.kind not in _BOOKKEEPING]
    dtypes = Counter(_computes_in(layer, makers) for layer in nodes if layer.dtype in DTYPE_NAMES)
    kinds = Counter(layer.kind for layer in layers)
    return NetworkRecord(
        num_layers=len(layers),
        num_by_dtype=dict(dtypes),
        products_by_dtype=dict(products),
        num_attention=kinds["ATTENTION_INPUT"],
        num_softmax=kinds["SOFTMAX"],
        num_layer_norm=kinds["NORMALIZATION"],
        constant_resizes=tuple(_constant_resizes(layers, inputs)),
    )


def check_promise(network: NetworkRecord, promised: LoweringRecord, title: str) -> None:
    """Raise :class:`BackendError` naming every promise of the typed graph that the parsed network breaks.

    Compares the share of each dtype and the numbers of attentions and layer normalisations.
    """
    broken = [
        f"{network.share(dtype):.0%} of its nodes compute in {dtype}, promised {promised.share(dtype):.0%}"
        for dtype in sorted({*network.num_by_dtype, *promised.num_by_dtype})
        if abs(network.share(dtype) - promised.share(dtype)) > SHARE_SLACK
    ]
    # Before opset 23 attention is two products around a Softmax, which the builder fuses later by pattern.
    num_attention = network.num_attention + network.num_softmax
    if num_attention != promised.num_attention:
        broken.append(f"{num_attention} attentions are recognised, promised {promised.num_attention}")
    if network.num_layer_norm != promised.num_layer_norm:
        broken.append(
            f"{network.num_layer_norm} layer normalisations are recognised, promised {promised.num_layer_norm}"
        )
    if broken:
        raise BackendError(
            f"{title} would not compute what the {promised.precision} graph says: {'; '.join(broken)}. Nothing was "
            "written; export the graph again, or build another precision"
        )


def check_network(network: NetworkRecord, precision: Precision, title: str) -> None:
    """Raise :class:`BackendError` for a network that does not compute in ``precision``, or resizes a constant.

    Most products must compute in it; in an int8 or fp8 graph, which keeps many in a higher precision, at least one. A
    resized constant is a position embedding resampled at run time.
    """
    main = network.executed_precision.split("+")[0]
    is_it = precision in network.products_by_dtype if precision.is_quantized else main == precision
    if network.products_by_dtype and not is_it:
        counts = ", ".join(f"{count} in {name}" for name, count in network.products_by_dtype.items())
        raise BackendError(
            f"{title} would compute most products in {main}, not {precision} ({counts}); nothing was written"
        )
    if network.constant_resizes:
        raise BackendError(
            f"the graph resizes constants at run time ({', '.join(network.constant_resizes[:3])}): position embeddings "
            "must be stored at their final size; export it again with `mvde export`"
        )


@dataclass(frozen=True)
class _Layer:
    """A layer: kind, dtype of its first output, and tensor names."""

    name: str
    kind: str
    dtype: str
    stands_for_node: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        return cls(
            name=layer.name,
            kind=layer.type.name,
            dtype=outputs[0].dtype.name if outputs and outputs[0] is not None else "",
            stands_for_node=str(layer.metadata).startswith(_OF_NODE),
            inputs=tuple(tensor.name for tensor in inputs if tensor is not None),  # skip absent optional inputs
            outputs=tuple(tensor.name for tensor in outputs if tensor is not None),
        )


def _computes_in(layer: _Layer, makers: dict[str, _Layer]) -> str:
    """Dtype that a layer computes in; for a product of two dequantised operands, their quantised dtype."""
    quantised = []
    if layer.kind in PRODUCTS:
        quantised = [_quantised_to(name, makers) for name in layer.inputs[:2]]
    if len(quantised) == 2 and quantised[0] is not None and quantised[0] == quantised[1]:
        return quantised[0]
    return DTYPE_NAMES.get(layer.dtype, layer.dtype.lower())


def _quantised_to(tensor: str, makers: dict[str, _Layer]) -> str | None:
    """``"int8"`` or ``"fp8"`` if a tensor comes from a dequantisation, looking through layers that only move data."""
    for layer in _upwards(tensor, makers):
        if layer.kind == "DEQUANTIZE":
            source = makers.get(layer.inputs[0])
            return DTYPE_NAMES.get(source.dtype) if source is not None else None
        if layer.kind not in _MOVES:
            return None
    return None


def _upwards(tensor: str, makers: dict[str, _Layer]) -> Iterator[_Layer]:
    """Producer of ``tensor`` and its predecessors along first inputs."""
    layer = makers.get(tensor)
    while layer is not None:
        yield layer
        layer = makers.get(layer.inputs[0]) if layer.inputs else None


def _constant_resizes(layers: list[_Layer], inputs: set[str]) -> Iterator[str]:
    """Names of resizes that depend on no network input; layers are in topological order."""
    reached = set(inputs)
    for layer in layers:
        if any(name in reached for name in layer.inputs):
            reached.update(layer.outputs)
        elif layer.kind == "RESIZE":
            yield layer.name
