"""Weights in bf16 inside the blobs of bf16 engines, in half the memory.

OpenVINO rounds the weights of products that compute in bf16 when it loads a blob, and packs them; the fp32 weights stay
in memory with the blob. A constant in bf16 behind a Convert that is marked as decompression stays in bf16 in the blob.
What the library makes of such a constant depends on the CPU, so a build compares both blobs there: executed graph, bits
and time must be the same.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.engines.base import one_line
from mvde.engines.in_turns import least_times_s
from mvde.engines.openvino.library import DEVICE, openvino_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

REWRITE = "weights"
"""Key of the rewrite in the manifest."""

_PRODUCTS = ("MatMul", "Convolution", "ConvolutionBackpropData", "GroupConvolution")
_SLOWER = 1.03
"""Share of the time with fp32 weights above which bf16 weights are not kept; smaller differences are noise."""

_MARKED = b"""<net name="marked" version="11"><layers>
<layer id="0" name="a" type="Parameter" version="opset1"><data shape="1" element_type="bf16"/>
<output><port id="0" precision="BF16"><dim>1</dim></port></output></layer>
<layer id="1" name="b" type="Convert" version="opset1"><data destination_type="f32"/>
<rt_info><attribute name="decompression" version="0"/></rt_info>
<input><port id="0" precision="BF16"><dim>1</dim></port></input>
<output><port id="1" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="2" name="c" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input></layer></layers>
<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>"""
"""A model of one marked Convert: Python cannot set the mark, but reads it."""


def compiled(core: Any, model: Any, options: dict[str, Any], hint: str = "bf16") -> tuple[Any, str]:
    """Compile ``model``, with the weights of what computes in ``hint`` in bf16 if that changes nothing but the size.

    Returns the compiled model and a note for the manifest. ``model`` is changed. Raises :class:`RuntimeError` if the
    library cannot compile it.
    """
    wide = core.compile_model(model, DEVICE, options)
    number = narrow(core, model, _layers_in(wide, hint))
    if not number:
        return wide, "fp32: no product computes in bf16"
    try:
        narrowed = core.compile_model(model, DEVICE, options)
        blob = narrowed.export_model().getvalue()
        loaded = core.import_model(io.BytesIO(blob), DEVICE, options)
        difference = _difference(wide, loaded)
    except RuntimeError as error:
        difference = f"OpenVINO fails: {one_line(error)}"
    if not difference and len(blob) >= len(wide.export_model().getvalue()):
        difference = "the blob is no smaller"
    if difference:
        return wide, f"fp32: in bf16 {difference}"
    return narrowed, f"{number} in bf16"


def narrow(core: Any, model: Any, names: Collection[str]) -> int:
    """Store the fp32 weights of the products with these names in bf16, in place; return their number."""
    converted: dict[tuple[str, bool], Any] = {}
    number = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() not in _PRODUCTS or not _names(node) & set(names):
            continue
        weights = node.input_value(1).get_node()
        if weights.get_type_name() != "Constant" or weights.get_element_type().get_type_name() != "f32":
            continue
        if len(weights.get_output_shape(0)) < 2:
            continue
        is_turned = node.get_type_name() == "MatMul" and not node.get_attributes()["transpose_b"]
        key = (weights.get_friendly_name(), is_turned)
        if key not in converted:
            values = weights.get_data()
            converted[key] = _decompressed(core, values.swapaxes(-1, -2) if is_turned else values)
        node.input(1).replace_source_output(converted[key].output(0))
        if is_turned:  # else the library turns them for every frame
            node.set_attribute("transpose_b", True)
        number += 1
    model.validate_nodes_and_infer_types()
    return number


def _names(node: Any) -> set[str]:
    """Names that a product may have in the executed graph: its own, or that of the bias that follows it."""
    readers = list(node.output(0).get_target_inputs())
    following = [readers[0].get_node().get_friendly_name()] if len(readers) == 1 else []
    return {node.get_friendly_name(), *following}


def rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bits of float32 values rounded to the nearest bfloat16, to even. NaN is not expected."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    halves: NDArray[np.uint16] = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
    return halves


def _decompressed(core: Any, values: NDArray[np.float32]) -> Any:
    """A marked Convert of weights in bf16."""
    openvino = openvino_library()
    from openvino import opset13 as operators

    halves = rounded(values)
    tensor = openvino.Tensor(openvino.Type.bf16, openvino.Shape(halves.shape))
    tensor.data.view(np.uint16)[...] = halves
    marked = core.read_model(_MARKED, openvino.Tensor(np.zeros(0, np.uint8)))
    (convert,) = (node for node in marked.get_ordered_ops() if node.get_type_name() == "Convert")
    convert.input(0).replace_source_output(operators.constant(tensor, shared_memory=False).output(0))
    convert.validate_and_infer_types()
    return convert


def _layers_in(compiled_model: Any, hint: str) -> set[str]:
    """Names in the original graph of what the executed graph computes in ``hint``."""
    about = [node.get_rt_info() for node in compiled_model.get_runtime_model().get_ordered_ops()]
    narrow_ones = [one for one in about if one["runtimePrecision"].astype(str) == hint]
    return {name for one in narrow_ones for name in one["originalLayersNames"].astype(str).split(",")}


def _difference(wide: Any, narrowed: Any) -> str:
    """What differs between engines with weights in fp32 and in bf16; empty if only the size does."""
    kinds = [_executed(one) for one in (wide, narrowed)]
    if kinds[0] != kinds[1]:
        added = ", ".join(f"{count} {' '.join(kind)}" for kind, count in (kinds[1] - kinds[0]).items())
        return f"other operators run: {added or 'fewer'}"
    rng = np.random.default_rng(0)
    shape = list(wide.input(0).shape)
    image = rng.integers(0, 256, shape).astype(wide.input(0).get_element_type().to_dtype())
    runs: dict[str, Callable[[], Any]] = {
        name: partial(one.create_infer_request().infer, [image]) for name, one in (("wide", wide), ("narrow", narrowed))
    }
    results = [[np.array(result) for result in run().to_tuple()] for run in runs.values()]
    if not all(np.array_equal(*pair) for pair in zip(*results, strict=True)):
        return "results differ"
    times_s = least_times_s(runs)
    if times_s["narrow"] > _SLOWER * times_s["wide"]:
        return f"it takes {times_s['narrow'] / times_s['wide']:.2f} times as long"
    return ""


def _executed(compiled_model: Any) -> Counter[tuple[str, str]]:
    """Operators that run for every frame, as layer and primitive, such as ``brgconv_avx512_bf16``."""
    about = [node.get_rt_info() for node in compiled_model.get_runtime_model().get_ordered_ops()]
    kinds = [(one["layerType"].astype(str), one["primitiveType"].astype(str)) for one in about]
    return Counter(kind for kind in kinds if kind[0] != "Const")
