"""Checkpoints of depth models: safetensors, with the configuration as JSON in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.artifact import atomic_write
from mvde.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

METADATA_KEY = "mvde"
_ABOUT_KEYS = ("config", "tower", "mean", "std")


def write_checkpoint(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write ``tensors`` as ``dtype`` to ``path``, with ``about`` in the metadata, all or nothing.

    Raises :class:`OutputError` where the file cannot be written, and leaves what stood there.
    """
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
    write_tensors(path, stored, {"format": "pt", METADATA_KEY: json.dumps(about)})


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


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write_checkpoint` wrote: the metadata, and the tensors in float32.

    Raises :class:`CheckpointError` for a file that is missing, truncated, or was not written by mvde.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give a .safetensors file that mvde train wrote")
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, (file.metadata() or {}).get(METADATA_KEY))
            return about, {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  (not a dict)
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


def _about(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise CheckpointError(
            f"{path} holds no configuration of mvde; give a file that mvde train or DepthModel.save wrote"
        )
    try:
        about = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: the configuration in its metadata is not valid JSON: {error}") from error
    missing = [key for key in _ABOUT_KEYS if not isinstance(about, dict) or key not in about]
    if missing:
        raise CheckpointError(f"{path}: its metadata lacks {', '.join(missing)}; save it again with this version")
    plain: dict[str, Any] = about
    return plain
