"""Training state on disk: weights, average, optimisers and step in one safetensors file, written atomically.

Rank 0 writes it, and reads it for all: machines need not share a disk.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvde.checkpoint import read_metadata, read_tensors, write_tensors
from mvde.config import Config
from mvde.errors import CheckpointError
from mvde.pipelines.optim import MovingAverage
from mvde.pipelines.processes import gathered, together

STATE_FILE = "state.safetensors"
FORMAT = "mvde-train-state-1"


@dataclass
class TrainProgress:
    """Progress of a run: ``step`` updates done; ``best`` is the lowest validation AbsRel of stage ``best_stage``."""

    step: int = 0
    best: float = float("inf")
    best_stage: int = -1


@dataclass(frozen=True)
class _Header:
    """Metadata of the file: ``scalars`` are each optimiser's plain numbers, keyed by ``index.name``."""

    progress: TrainProgress
    scalars: list[dict[str, Any]]
    config: dict[str, Any]
    format: str = FORMAT


def save_state(
    path: Path,
    model: nn.Module,
    average: MovingAverage,
    optimizers: list[torch.optim.Optimizer],
    progress: TrainProgress,
    config: dict[str, Any],
) -> None:
    """Write everything that a resume needs; an existing file at ``path`` is replaced atomically.

    Raises :class:`OutputError` if the disk is full or not writable.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.shadow.items()}
    tensors["rng.torch"] = torch.get_rng_state()
    plain: list[dict[str, Any]] = []
    for number, optimizer in enumerate(optimizers):
        state, scalars = _split_scalars(optimizer.state_dict()["state"])
        tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
        plain.append(scalars)
    header = json.dumps(asdict(_Header(progress, plain, config)))
    write_tensors(path, {k: v.detach().contiguous().clone() for k, v in tensors.items()}, {"mvde": header})


def restore_state(
    accelerator: Any,
    path: Path,
    model: nn.Module,
    average: MovingAverage,
    optimizers: list[torch.optim.Optimizer],
) -> tuple[TrainProgress, dict[str, Any]] | None:
    """Restore a saved run into the given objects of every process; return its progress and configuration, if any.

    The first process reads the file and sends it to the others, which need none. Raises :class:`CheckpointError`, in
    all of them, if the file is damaged or belongs to another architecture or optimiser, or if a process finds another
    state at ``path`` than the first one does.
    """
    if not _exists_for_all(accelerator, path):
        return None
    is_first = accelerator.is_main_process
    read = together(accelerator, lambda: _read(path) if is_first else None)
    header, tensors = _sent_to_all(accelerator, read)
    together(accelerator, lambda: _apply(path, header, tensors, model, average, optimizers))
    return header.progress, header.config


def _exists_for_all(accelerator: Any, path: Path) -> bool:
    """Whether there is a state. Raises CheckpointError if a process finds another one than the first process does."""
    mine = together(accelerator, lambda: _label(path))
    found = gathered(accelerator, (mine, socket.gethostname()))
    first, host = found[0]
    for rank, (other, other_host) in enumerate(found):
        if other is not None and other != first:
            raise CheckpointError(
                f"the processes find different states at {path}: {first or 'none'} on {host} (process 0), but {other} "
                f"on {other_host} (process {rank}); keep the one to go on from on {host}, and remove the others"
            )
    return first is not None


def _label(path: Path) -> str | None:
    """Step and checksum that a state's header gives; ``None`` if there is no file."""
    if not path.exists():
        return None
    try:
        metadata = read_metadata(path)
        step = json.loads(metadata["mvde"])["progress"]["step"]
    except (CheckpointError, KeyError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from error
    return f"step {step} (SHA-256 {metadata.get('sha256', '')[:12]}…)"


def _sent_to_all(accelerator: Any, read: tuple[_Header, dict[str, Tensor]] | None) -> tuple[_Header, dict[str, Tensor]]:
    """What the first process has read, in every process."""
    if accelerator.num_processes == 1:
        assert read is not None
        return read
    from accelerate.utils import broadcast, broadcast_object_list

    shapes = None if read is None else {name: (value.dtype, value.shape) for name, value in read[1].items()}
    header, shapes = broadcast_object_list([None if read is None else read[0], shapes])
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        num_bytes = math.prod(shape) * dtype.itemsize
        # As bytes, which every backend can send, whatever the type.
        flat = torch.empty(num_bytes, dtype=torch.uint8)
        if read is not None:
            flat = read[1][name].contiguous().reshape(-1).view(torch.uint8)
        tensors[name] = broadcast(flat.to(accelerator.device)).cpu().view(dtype).reshape(shape)
    return header, tensors


def _apply(
    path: Path,
    header: _Header,
    tensors: dict[str, Tensor],
    model: nn.Module,
    average: MovingAverage,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    try:
        model.load_state_dict(_with_prefix("model.", tensors))
        for name, value in _with_prefix("average.", tensors).items():
            average.shadow[name].copy_(value)
        for number, optimizer in enumerate(optimizers):
            state = _join_scalars(_with_prefix(f"optimizer.{number}.", tensors), header.scalars[number])
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path} was written by a run with another model or optimiser ({reason}); "
            "resume with that run's configuration, or choose another output folder"
        ) from error
    torch.set_rng_state(tensors["rng.torch"])


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    try:
        metadata, tensors = read_tensors(path)
        header = json.loads(metadata["mvde"])
    except (CheckpointError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has the format {header.get('format')!r}; this version reads {FORMAT!r}")
    try:
        return _Header(TrainProgress(**header["progress"]), header["scalars"], header["config"]), tensors
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} lacks {error}; remove it to restart training") from error


def _unreadable(path: Path, reason: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not a readable training state: {reason}; remove it to restart training")


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _split_scalars(state: dict[int, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors keyed by ``index.name``, and its plain numbers."""
    items = {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}
    tensors = {key: value for key, value in items.items() if isinstance(value, Tensor)}
    return tensors, {key: value for key, value in items.items() if key not in tensors}


def _join_scalars(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in (tensors | scalars).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return state


def flattened(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, in types that TensorBoard stores as hyper-parameters."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat


def changed_keys(before: Mapping[str, Any], now: Config) -> str:
    """Message suffix naming the keys whose values differ between the saved run and this one; empty if none."""
    old, new = flattened(before), flattened(now.to_dict())
    keys = [key for key in new if old.get(key) != new[key]]
    return f", with other values of {', '.join(keys)}" if keys else ""
