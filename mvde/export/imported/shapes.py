"""Shape arithmetic of a graph with fixed input sizes: computed once, so that only arithmetic on pictures remains."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import one_line
from mvde.errors import ArtifactError, BackendError, UsageError
from mvde.export.graph.edit import is_constant, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

_MAX_ROUNDS = 8
"""Each round resolves the shapes behind the constants of the round before; real files need two or three."""

_SMALL_BYTES = 8192
"""Shapes and scales; constants above this size are computed by ONNX Runtime."""

_MAX_FOLDED_BYTES = 256 << 20
"""Largest constant that replaces a node, above the largest position embedding."""

_MAX_READ_BYTES = 1 << 30
"""Weights read at a time; the rest waits for the next round. ONNX Runtime gets them in one message of at most 2 GB."""

_KEPT = {"Constant", "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan"}


def raise_opset(model: ir.Model, path: Path, opset: int) -> None:
    """Convert a graph to a newer opset in place.

    Raises :class:`ArtifactError` where an operator has no successor, :class:`UsageError` for an older opset.
    """
    from onnxscript import version_converter

    own = model.graph.opset_imports[""]
    if own > opset:
        raise UsageError(f"{path} has opset {own}, which is not converted to the older {opset}; use --opset {own}")
    if own == opset:
        return
    try:
        with _collected_failures():
            version_converter.convert_version(model, opset, fallback=True)
    except Exception as error:  # the libraries' exceptions share no public base class
        raise ArtifactError(
            f"{path} has opset {own} and cannot be converted to {opset}: {one_line(error)}; "
            "export it again with opset 17 or later"
        ) from error


def fold_shapes(model: ir.Model, path: Path) -> None:
    """Compute shapes, branches and constant subgraphs of a graph whose input sizes are fixed, in place.

    Raises :class:`ArtifactError` if ONNX rejects the graph.
    """
    from onnxscript.optimizer import optimize_ir

    forget_shapes(model)
    for _ in range(_MAX_ROUNDS):
        before = _signature(model)
        infer_shapes(model, path)
        try:
            with _collected_failures():
                optimize_ir(
                    model,
                    num_iterations=2,
                    input_size_limit=_SMALL_BYTES,
                    output_size_limit=_SMALL_BYTES,
                    should_fold=lambda node: False if _is_large(node, _SMALL_BYTES) else None,
                )
        except Exception as error:  # the library's exceptions share no public base class
            raise ArtifactError(f"{path} cannot be simplified: {one_line(error)}") from error
        compute_constants(model)
        if _signature(model) == before:
            break
    infer_shapes(model, path)


def forget_shapes(model: ir.Model) -> None:
    """Remove the shapes that the exporter stored for other sizes, inputs and constants aside."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.const_value is None:
                value.shape = None


def infer_shapes(model: ir.Model, path: Path) -> None:
    """Infer shapes and dtypes in place. Raises :class:`ArtifactError` naming what does not fit together."""
    from onnx_ir.passes.common import ShapeInferencePass

    with _collected_failures() as failures:
        ShapeInferencePass(check_type=True, strict_mode=True, data_prop=True)(model)
    if failures:
        raise ArtifactError(
            f"the shapes of {path} do not fit together at this size: {one_line(failures[0])}; the model may need "
            "another --res, such as one whose sides are multiples of its patch"
        )


@contextlib.contextmanager
def _collected_failures() -> Iterator[list[BaseException]]:
    """Collect the exceptions that the libraries log instead of raising them, and keep their logs off the terminal."""
    failures: list[BaseException] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                failures.append(record.exc_info[1])

    loggers, handler = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")], Collector()
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield failures
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


def compute_constants(model: ir.Model) -> int:
    """Replace nodes that depend on constants only, such as resampled position embeddings; return their number."""
    constants: dict[ir.Value, None] = {}
    nodes, num_bytes = [], 0
    for node in model.graph:
        is_fixed = all(value is None or is_constant(value) or value in constants for value in node.inputs)
        is_computed = node.op_type not in _KEPT and not _is_large(node, _MAX_FOLDED_BYTES, unknown=True)
        num_read = sum(value.const_value.nbytes for value in node.inputs if value is not None and value.const_value)
        if is_fixed and node.inputs and is_computed and num_bytes + num_read <= _MAX_READ_BYTES:
            num_bytes += num_read
            nodes.append(node)
            constants.update(dict.fromkeys(node.outputs))
    ends = [value for value in constants if _leaves(value, constants)]
    if not ends:
        return 0
    _replace(model, nodes, ends)
    return len(nodes)


def _leaves(value: ir.Value, constants: dict[ir.Value, None]) -> bool:
    """Whether a constant is read outside the constant part of the graph."""
    readers = [use.node for use in value.uses()]
    return value.is_graph_output() or any(not set(reader.outputs) <= constants.keys() for reader in readers)


def _replace(model: ir.Model, nodes: list[ir.Node], ends: list[ir.Value]) -> None:
    """Compute the values ``ends`` of ``nodes`` in ONNX Runtime and store them in place of the nodes."""
    import onnx_ir as ir

    names = [str(value.name) for value in ends]
    arrays = _computed(model, nodes, names)
    for value, name, array in zip(ends, names, arrays, strict=True):
        value.name = f"{name}.computed"
        tensor = ir.tensor(array, name=name)
        shape = ir.Shape(array.shape)
        constant = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        model.graph.register_initializer(constant)
        value.replace_all_uses_with(constant, replace_graph_outputs=True)
    for node in reversed(nodes):
        if not any(value.uses() for value in node.outputs):
            model.graph.remove(node, safe=True)


def _in_memory(value: ir.Value) -> ir.TensorProtocol | None:
    """The value's constant without a reference to a file, which ONNX Runtime would seek beside the working folder."""
    import onnx_ir as ir

    tensor = value.const_value
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


def _computed(model: ir.Model, nodes: list[ir.Node], names: list[str]) -> list[NDArray[Any]]:
    import onnx_ir as ir

    from mvde.engines.onnxruntime.session import AS_WRITTEN, open_session

    inputs = {value for node in nodes for value in node.inputs if value is not None and is_constant(value)}
    copies = {value: ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=_in_memory(value))
              for value in inputs}  # fmt: skip
    made = []
    for node in nodes:
        sources = [None if value is None else copies[value] for value in node.inputs]
        copy = ir.Node("", node.op_type, sources, node.attributes.values(), num_outputs=len(node.outputs))
        for value, result in zip(node.outputs, copy.outputs, strict=True):
            result.name, result.type, copies[value] = value.name, value.type, result
        made.append(copy)
    ends = {str(value.name): value for copy in made for value in copy.outputs}
    graph = ir.Graph([], [ends[name] for name in names], nodes=made, initializers=[copies[value] for value in inputs],
                     opset_imports=dict(model.graph.opset_imports), name="constants")  # fmt: skip
    data = ir.to_proto(ir.Model(graph, ir_version=model.ir_version)).SerializeToString()
    session = open_session(data, AS_WRITTEN, what="a constant part of the graph", extra="export")
    try:
        return list(session.run(names, {}))
    except Exception as error:  # the library's exceptions share no public base class
        raise BackendError(f"ONNX Runtime cannot compute a constant part of the graph: {one_line(error)}") from error


def _is_large(node: ir.Node, limit_bytes: int, unknown: bool = False) -> bool:
    """Whether a node's result exceeds ``limit_bytes`` at 8 bytes a number; ``unknown`` where its size is open."""
    shapes = [static_shape(value) for value in node.outputs if value.uses() or value.is_graph_output()]
    return any(unknown if shape is None else 8 * math.prod(shape) > limit_bytes for shape in shapes)


def _signature(model: ir.Model) -> tuple[int, int]:
    """Number of nodes, and of values without a static shape."""
    nodes = list(model.graph)
    return len(nodes), sum(static_shape(value) is None for node in nodes for value in node.outputs)
