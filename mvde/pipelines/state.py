"""Training state on disk: weights, average, optimisers and step in one safetensors file, written atomically."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvde.checkpoint import read_tensors, write_tensors
from mvde.errors import CheckpointError
from mvde.pipelines.optim import MovingAverage

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


def load_state(
    path: Path, model: nn.Module, average: MovingAverage, optimizers: list[torch.optim.Optimizer]
) -> tuple[TrainProgress, dict[str, Any]]:
    """Restore a saved run into the given objects; return its progress and configuration.

    Raises :class:`CheckpointError` if the file is damaged or belongs to another architecture or optimiser.
    """
    header, tensors = _read(path)
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
    return header.progress, header.config


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    try:
        metadata, tensors = read_tensors(path)
        header = json.loads(metadata["mvde"])
    except (CheckpointError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable training state: {error}; remove it to restart training"
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has the format {header.get('format')!r}; this version reads {FORMAT!r}")
    try:
        return _Header(TrainProgress(**header["progress"]), header["scalars"], header["config"]), tensors
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} lacks {error}; remove it to restart training") from error


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
