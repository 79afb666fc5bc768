"""State of an interrupted training: trained weights, their optimiser and the random numbers, in one safetensors file.

The weights of the base model are not in it: they do not change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvde.checkpoint import read_tensors, write_tensors
from mvde.errors import CheckpointError

STATE_FILE = "training.safetensors"
_FORMAT = "mvde-vlm-training-1"


@dataclass(frozen=True)
class TrainingState:
    """``step`` updates done of a run with ``settings`` (JSON types)."""

    step: int
    settings: dict[str, Any]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_state(
    path: Path,
    parameters: dict[str, nn.Parameter],
    buffers: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
) -> None:
    """Write everything that a resume needs, atomically. Raises OutputError if the disk is full or not writable.

    ``buffers`` are those that were set before the first step: the moments of the statistics.
    """
    tensors: dict[str, Tensor] = {f"parameter.{name}": value.data for name, value in parameters.items()}
    tensors |= {f"buffer.{name}": value for name, value in buffers.items()}
    tensors |= {
        f"optimizer.{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    tensors["rng"] = torch.get_rng_state()
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = json.dumps({"format": _FORMAT, "step": state.step, "settings": state.settings})
    write_tensors(path, stored, {"mvde": header})


def load_state(
    path: Path, parameters: dict[str, nn.Parameter], buffers: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Restore what :func:`save_state` wrote.

    Raises CheckpointError for a damaged file and for one of another model, adapter or version.
    """
    try:
        metadata, tensors = read_tensors(path)
        header = json.loads(metadata["mvde"])
        state = TrainingState(int(header["step"]), dict(header["settings"]))
        found = str(header["format"])
    except (CheckpointError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not the state of a training ({' '.join(str(error).split())}); remove it to start again"
        ) from error
    if found != _FORMAT:
        raise CheckpointError(f"{path} has the format {found!r}, but this version of mvde reads {_FORMAT!r}")
    _restore(path, "parameter", parameters, tensors)
    _restore(path, "buffer", buffers, tensors)
    restored: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            restored.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng"])
    return state


@torch.no_grad()
def _restore(path: Path, kind: str, targets: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    stored = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}
    wrong = sorted(stored.keys() ^ targets.keys())
    wrong += [name for name in stored.keys() & targets.keys() if stored[name].shape != targets[name].shape]
    if wrong:
        raise CheckpointError(
            f"{path} is the state of another model or adapter: {len(wrong)} of its {kind}s differ, such as {wrong[0]}; "
            "train the model that it was started with, or choose another output folder"
        )
    for name, value in stored.items():
        targets[name].copy_(value)
