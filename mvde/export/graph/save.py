"""Saving of ONNX graphs: one self-contained file up to 2 GB, with external weights above.

The exporter's default path holds three copies of the weights: the model's, the protobuf message's and its
serialisation's. Here large tensors are streamed one by one to their position in the protobuf encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mvde.errors import BackendError
from mvde.files import file_record
from mvde.manifest import FileRecord
from mvde.publish import content_name

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

MAX_INLINE_BYTES = 1_900_000_000
"""Limit on a self-contained file: protobuf rejects messages of 2 GiB and more; the margin is for the graph itself."""

_STREAMED_BYTES = 1024
"""Initializers from this size are streamed; smaller ones (shapes, scalars) are needed by shape inference."""

_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9  # field numbers in onnx.proto


def save_model(model: ir.Model, path: Path, metadata: Mapping[str, str]) -> list[FileRecord]:
    """Write the checked ONNX file at ``path``, with external weights if needed; return the files' records.

    ``model`` is consumed. Raises :class:`BackendError` if ONNX's checker rejects the graph.
    """
    import onnx_ir as ir

    model.metadata_props.update(metadata)
    model.producer_name = "mvde"
    model.producer_version = metadata.get("mvde.version", "")
    model.graph.name = "mvde"
    weights = None
    if sum(tensor.nbytes for tensor in _tensors(model)) > MAX_INLINE_BYTES:
        weights = path.with_name(content_name(f"{path.stem}.data", path.stem, _sha256(model)))  # the graph names it
        ir.save(model, path, external_data=weights.name, size_threshold_bytes=_STREAMED_BYTES)
        _check(str(path), path)
    else:
        _save_inline(model, path)
    return [file_record(file) for file in (path, weights) if file is not None]


def _sha256(model: ir.Model) -> str:
    digest = hashlib.sha256()
    for tensor in _tensors(model):
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    return [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]


def _save_inline(model: ir.Model, path: Path) -> None:
    large = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes >= _STREAMED_BYTES
    }
    skeleton, headers = _split(model, large)
    _check(_with_inputs(skeleton, headers), path)
    with path.open("wb") as stream:
        _write(stream, skeleton, zip(headers, large.values(), strict=True))


def _split(model: ir.Model, large: Mapping[str, ir.TensorProtocol]) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """Message without large initializers, and their headers (name, dtype, shape) in the order of ``large``."""
    import onnx
    import onnx_ir as ir

    headers = []
    for name, tensor in large.items():
        headers.append(onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy()))
        del model.graph.initializers[name]
    return ir.to_proto(model), headers


def _with_inputs(skeleton: onnx.ModelProto, headers: Iterable[onnx.TensorProto]) -> onnx.ModelProto:
    """Copy of the message with the large initializers as inputs, which is equivalent for the checker."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(skeleton)
    for header in headers:
        copy.graph.input.append(onnx.helper.make_tensor_value_info(header.name, header.data_type, header.dims))
    return copy


def _check(model: onnx.ModelProto | str, path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BackendError(f"ONNX's checker rejects the exported graph {path.name}: {error}") from error


def _write(
    stream: BinaryIO,
    skeleton: onnx.ModelProto,
    tensors: Iterable[tuple[onnx.TensorProto, ir.TensorProtocol]],
) -> None:
    """Write the message with the large initializers appended to the graph field.

    Protobuf lengths precede contents, so sizes are summed first; the order of fields is free.
    """
    parts = [(_initializer_prefix(header, tensor.nbytes), tensor) for header, tensor in tensors]
    graph = skeleton.graph.SerializeToString()
    skeleton.ClearField("graph")
    num_bytes = len(graph) + sum(len(prefix) + tensor.nbytes for prefix, tensor in parts)
    stream.write(skeleton.SerializeToString())
    stream.write(_tag(_MODEL_GRAPH) + _varint(num_bytes) + graph)
    for prefix, tensor in parts:
        stream.write(prefix)
        stream.write(tensor.tobytes())


def _initializer_prefix(header: onnx.TensorProto, num_bytes: int) -> bytes:
    """Encoding of an initializer field up to its raw bytes."""
    tensor: bytes = header.SerializeToString() + _tag(_TENSOR_RAW_DATA) + _varint(num_bytes)
    return _tag(_GRAPH_INITIALIZER) + _varint(len(tensor) + num_bytes) + tensor


def _tag(field_number: int) -> bytes:
    """Key of a length-delimited field."""
    return _varint(field_number << 3 | 2)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
