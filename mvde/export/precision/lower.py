"""From an fp32 ONNX file to a typed one, and what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvde.artifact import sha256_file
from mvde.engines.base import Graph
from mvde.errors import BackendError, MissingDependencyError, UsageError
from mvde.export.precision.options import LowerOptions
from mvde.export.precision.promise import num_attention, num_by_dtype, num_layer_norm
from mvde.manifest import PrecisionRecord


def lower_graph(graph: Graph, precision: str, folder: Path, options: LowerOptions | None = None) -> Graph:
    """The graph in ``precision`` (``"fp16"``), written to ``folder``; input and output keep their dtypes.

    Its ``precision`` record says what a parser should find in it.

    The conversion is onnxruntime's own (``onnxruntime.transformers.float16``), which keeps the operators in fp32 that
    its blocklist names and clamps constants to the range of fp16. Raises :class:`UsageError` for another precision,
    :class:`BackendError` where the converter refuses the graph.
    """
    if precision != "fp16":
        raise UsageError(f"cannot write a {precision} graph; expected fp16")
    onnx, convert = _libraries()
    try:
        model = onnx.load(str(graph.path))
        # Shape inference is left on: the converter needs the types of intermediate tensors to place its casts.
        lowered = convert(model, keep_io_types=True)
    except Exception as error:  # protobuf's, onnx's and the converter's own, without a common base
        raise BackendError(f"cannot convert {graph.path} to fp16: {' '.join(str(error).split())[:400]}") from error
    target = folder / f"{graph.path.stem}.fp16.onnx"
    record = PrecisionRecord(
        precision=precision,
        onnx_sha256=sha256_file(graph.path),
        num_by_dtype=num_by_dtype(lowered),
        num_attention=num_attention(lowered),
        num_layer_norm=num_layer_norm(lowered),
    )
    if lowered.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
        onnx.save(lowered, str(target))
        return Graph(target, (), record)
    data = target.with_name(f"{target.name}.data")
    onnx.save(lowered, str(target), save_as_external_data=True, location=data.name)
    return Graph(target, (data,), record)


def _libraries() -> tuple[Any, Any]:
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        package = (error.name or "onnx").split(".")[0]
        raise MissingDependencyError.for_extra(package, "export", "writing an fp16 graph") from error
    return onnx, convert_float_to_float16
