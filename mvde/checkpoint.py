"""Checkpoints of depth models: safetensors, with the configuration as JSON in the metadata."""

from __future__ import annotations

import json
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


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of its model: configuration, tower, taps, and the normalisation of its pixels.

    ``taps`` is ``None`` in files that were written before they were stored; then they are the configuration's.
    """

    config: Mapping[str, Any]
    tower: Mapping[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    taps: Sequence[int] | None = None


def write_checkpoint(path: Path, header: CheckpointHeader, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write ``tensors`` as ``dtype`` to ``path``, with ``header`` in the metadata, all or nothing.

    Raises :class:`OutputError` where the file cannot be written, and leaves what stood there.
    """
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
    write_tensors(path, stored, {"format": "pt", METADATA_KEY: json.dumps(asdict(header))})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous ``tensors`` as they are to a safetensors file, all or nothing.

    Raises :class:`OutputError` where the file cannot be written, and leaves what stood there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors makes files that only their owner can read
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from error
        temporary.chmod(mode)


def read_checkpoint(path: Path) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """What :func:`write_checkpoint` wrote: the header, and the tensors in float32.

    Raises :class:`CheckpointError` for a file that is missing, truncated, or was not written by mvde.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give a .safetensors file that mvde train wrote")
    try:
        with safe_open(path, framework="pt") as file:
            header = _read_header(path, (file.metadata() or {}).get(METADATA_KEY))
            return header, {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  (not a dict)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy or save it again") from error


def check_architecture(path: Path, stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise :class:`CheckpointError` unless both hold tensors of the same names and shapes.

    The error names the first that differs, with both shapes.
    """
    for key in sorted(stored.keys() | expected.keys()):
        there, here = (_shape(tensors, key) for tensors in (stored, expected))
        if there != here:
            raise CheckpointError(
                f"{path} is of another architecture: {key} is {there} in the file, but {here} in the model; "
                f"use the configuration that the checkpoint was trained with"
            )


def _shape(tensors: Mapping[str, Tensor], key: str) -> str:
    return str(tuple(tensors[key].shape)) if key in tensors else "absent"


def _read_header(path: Path, text: str | None) -> CheckpointHeader:
    if text is None:
        raise CheckpointError(
            f"{path} holds no configuration of mvde; give a file that mvde train or DepthModel.save wrote"
        )
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: the configuration in its metadata is not valid JSON: {error}") from error
    given = plain if isinstance(plain, dict) else {}
    missing = [key for key in ("config", "tower", "mean", "std") if key not in given]
    if missing:
        raise CheckpointError(f"{path}: its metadata lacks {', '.join(missing)}; save it again with this version")
    return CheckpointHeader(**{spec.name: given[spec.name] for spec in fields(CheckpointHeader) if spec.name in given})
