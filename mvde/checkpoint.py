"""Checkpoints of depth models: safetensors with the configuration as JSON in the metadata."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import struct
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.errors import CheckpointError
from mvde.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

METADATA_KEY = "mvde"

_METADATA, _CHECKSUM = "__metadata__", "sha256"
_ZEROS = "0" * 64
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class CheckpointHeader:
    """Model metadata in a checkpoint: configuration, tower, taps and pixel normalisation.

    ``taps`` is ``None`` in older files; the configuration's taps apply then.
    """

    config: Mapping[str, Any]
    tower: Mapping[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    taps: Sequence[int] | None = None


def write_checkpoint(path: Path, header: CheckpointHeader, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write ``tensors`` as ``dtype`` to ``path`` atomically, with ``header`` in the metadata.

    Raises :class:`OutputError` on failure and leaves any existing file untouched.
    """
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
    write_tensors(path, stored, {"format": "pt", METADATA_KEY: json.dumps(asdict(header))})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` unconverted to a safetensors file, atomically; equal tensors give identical bytes.

    Adds the metadata key ``sha256``: the checksum of the file with these 64 digits set to zero. Raises
    :class:`OutputError` on failure and leaves any existing file untouched.
    """
    # The safetensors library orders metadata differently in each process, and writes no checksum.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
    header: dict[str, Any] = {_METADATA: dict(sorted({**metadata, _CHECKSUM: _ZEROS}.items()))}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _dtype_name(tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    head: list[bytes | memoryview] = [struct.pack("<Q", len(text)), text]
    parts = itertools.chain(head, (_bytes_of(tensors[name]) for name in names))
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        for part in parts:
            digest.update(part)
            stream.write(part)
        stream.seek(8 + text.index(_ZEROS.encode(), text.index(f'"{_CHECKSUM}":"{_ZEROS}"'.encode())))
        stream.write(digest.hexdigest().encode())


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors written by :func:`write_tensors`, verifying the checksum.

    Raises :class:`CheckpointError` if the file is unreadable or truncated, or its checksum is missing or wrong.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        _check_checksum(path, metadata)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy or save it again") from error
    return metadata, tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a file written by :func:`write_tensors`, without its tensors and unchecked.

    Raises :class:`CheckpointError` if the file is unreadable or truncated.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy or save it again") from error


def read_checkpoint(path: Path) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """Read the header and the float32 tensors written by :func:`write_checkpoint`.

    Raises :class:`CheckpointError` if the file is missing, truncated, or not an mvde checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give a .safetensors file that mvde train wrote")
    metadata, tensors = read_tensors(path)
    header = _read_header(path, metadata.get(METADATA_KEY))
    return header, {key: tensor.float() for key, tensor in tensors.items()}


def check_architecture(path: Path, stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise :class:`CheckpointError` unless both have the same tensor names and shapes.

    The error names the first mismatch, with both shapes.
    """
    for key in sorted(stored.keys() | expected.keys()):
        there, here = (_shape(tensors, key) for tensors in (stored, expected))
        if there != here:
            raise CheckpointError(
                f"{path} has another architecture: {key} is {there} in the file, but {here} in the model; "
                f"use the configuration that the checkpoint was trained with"
            )


def _check_checksum(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise :class:`CheckpointError` unless the file matches the checksum in its metadata."""
    if _CHECKSUM not in metadata:
        raise CheckpointError(
            f"{path} has no checksum: it was written by another program or by an older mvde; "
            "give a file that mvde train or DepthModel.save wrote"
        )
    stated = metadata[_CHECKSUM].encode()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        length = stream.read(8)
        header = stream.read(*struct.unpack("<Q", length))
        key = f'"{_CHECKSUM}":"'.encode()
        for part in (length, header.replace(key + stated, key + _ZEROS.encode(), 1)):
            digest.update(part)
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest().encode() != stated:
        raise CheckpointError(
            f"{path} has SHA-256 {digest.hexdigest()[:12]}…, but states {stated[:12].decode()}…: it was damaged "
            "after it was written; copy it again or use an older checkpoint"
        )


def _dtype_name(dtype: torch.dtype) -> str:
    """Name of a dtype in safetensors, e.g. ``BF16`` for bfloat16."""
    kind, bits = re.fullmatch("([a-z]+?)([0-9]*)", str(dtype).removeprefix("torch.")).groups()  # type: ignore[union-attr]
    letters = {"float": "F", "bfloat": "BF", "int": "I", "uint": "U", "bool": "BOOL"}
    return f"{letters[kind]}{bits}"


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    plain = tensor.detach().to("cpu").contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data


def _shape(tensors: Mapping[str, Tensor], key: str) -> str:
    return str(tuple(tensors[key].shape)) if key in tensors else "absent"


def _read_header(path: Path, text: str | None) -> CheckpointHeader:
    if text is None:
        raise CheckpointError(f"{path} has no mvde configuration; give a file that mvde train or DepthModel.save wrote")
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: the configuration in its metadata is not valid JSON: {error}") from error
    given = plain if isinstance(plain, dict) else {}
    missing = [key for key in ("config", "tower", "mean", "std") if key not in given]
    if missing:
        raise CheckpointError(f"{path}: its metadata lacks {', '.join(missing)}; save it again with this version")
    return CheckpointHeader(**{spec.name: given[spec.name] for spec in fields(CheckpointHeader) if spec.name in given})
