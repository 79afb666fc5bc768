"""ONNX graphs to files: one self-contained file below 2 GB, with the weights in a file beside it above."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.artifact import FileRecord, file_record
from mvde.errors import BackendError

if TYPE_CHECKING:
    import onnx_ir as ir

MAX_INLINE_BYTES = 1_900_000_000
"""Protobuf refuses messages of 2 GiB and more; this leaves room for the graph itself."""


def save_model(model: ir.Model, path: Path, metadata: Mapping[str, str]) -> list[FileRecord]:
    """Records of the files written: the checked ONNX file at ``path``, then its external weights, if it needs any.

    Raises :class:`BackendError` if ONNX's checker refuses the graph.
    """
    import onnx
    import onnx_ir as ir

    model.metadata_props.update(metadata)
    model.producer_name = "mvde"
    model.producer_version = metadata.get("mvde.version", "")
    model.graph.name = "mvde"
    weights = path.with_suffix(".data")
    num_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    ir.save(model, path, external_data=weights.name if num_bytes > MAX_INLINE_BYTES else None)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BackendError(f"ONNX's checker refuses the exported graph {path.name}: {error}") from error
    return [file_record(file) for file in (path, weights) if file.exists()]
