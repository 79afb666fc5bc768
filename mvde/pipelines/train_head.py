"""Training of the projector from patch statistics to tokens, supervised by a teacher's tokens."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mvde.checkpoint import read_tensors, write_tensors
from mvde.errors import CheckpointError, DatasetError, TrainingError, UsageError
from mvde.heads.mlp import PatchStatsProjector
from mvde.pipelines.optim import rate_factor_cosine

HELD_OUT_FRACTION = 0.1


@dataclass(frozen=True)
class HeadResult:
    """Mean squared errors on held-out patches: of the trained head, and of always predicting the mean token."""

    error: float
    error_of_mean: float
    path: Path


def train_head(
    pairs_dir: str | Path,
    output: str | Path,
    hidden_width: int | None = None,
    steps: int = 1000,
    batch_size: int = 1024,
    lr: float = 1e-3,
    seed: int = 0,
) -> HeadResult:
    """Train on the ``.npz`` files in ``pairs_dir`` and write the head, with its sizes, to ``output`` (safetensors).

    Each file holds ``stats`` (N, S) and the teacher's ``tokens`` (N, D) of one image, row by row. The loss is the mean
    squared error over patches. Raises DatasetError naming a file that is malformed or inconsistent with the others,
    TrainingError if the final error is not finite; nothing is written then.
    """
    if steps < 1 or batch_size < 1 or not 0 < lr < math.inf:
        raise UsageError(
            f"steps, batch_size and lr must be positive and finite, but got {steps}, {batch_size} and {lr}"
        )
    stats, tokens = read_pairs(Path(pairs_dir))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(stats), generator=generator)
    held_out = max(1, round(HELD_OUT_FRACTION * len(stats)))
    test, train = order[:held_out], order[held_out:]
    torch.manual_seed(seed)
    head = PatchStatsProjector(stats.shape[1], tokens.shape[1], hidden_width)
    head.fit(stats[train][None])
    _fit(head, stats[train], tokens[train], steps, batch_size, lr, generator)
    with torch.no_grad():
        error = F.mse_loss(head(stats[test][None])[0], tokens[test]).item()
        error_of_mean = F.mse_loss(tokens[train].mean(dim=0).expand_as(tokens[test]), tokens[test]).item()
    if not math.isfinite(error):
        raise TrainingError(f"the head's error is {error:g}, not finite, after {steps} steps; lower lr ({lr:g})")
    save_head(head, Path(output))
    return HeadResult(error, error_of_mean, Path(output))


def read_pairs(folder: Path) -> tuple[Tensor, Tensor]:
    """Read all rows of the folder's pairs: ``stats`` (M, S) and ``tokens`` (M, D), float32."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DatasetError(f"{folder} holds no .npz file with 'stats' and 'tokens'")
    pairs = [_read_pair(path) for path in paths]
    widths = pairs[0][0].shape[1], pairs[0][1].shape[1]
    for path, (stats, tokens) in zip(paths, pairs, strict=True):
        if (stats.shape[1], tokens.shape[1]) != widths:
            raise DatasetError(
                f"{path} has {stats.shape[1]} statistics and tokens of width {tokens.shape[1]}, "
                f"but {paths[0]} has {widths[0]} and {widths[1]}"
            )
    if sum(len(stats) for stats, _ in pairs) < 2:
        raise DatasetError(f"{folder} holds a single patch; at least two are needed, one of them held out")
    return torch.cat([stats for stats, _ in pairs]), torch.cat([tokens for _, tokens in pairs])


def save_head(head: PatchStatsProjector, path: Path) -> None:
    """Write the head as safetensors with its sizes in the metadata."""
    hidden, width = head.layers[0].out_features, head.layers[2].out_features
    sizes = {"num_stats": head.mean.shape[0], "token_width": width, "hidden_width": hidden}
    write_tensors(path, head.state_dict(), {"mvde_head": json.dumps(sizes)})


def load_head(path: str | Path) -> PatchStatsProjector:
    """Load a head written by :func:`save_head`. Raises CheckpointError if it is missing, damaged or of another kind."""
    try:
        metadata, tensors = read_tensors(Path(path))
        sizes: dict[str, Any] = json.loads(metadata["mvde_head"])
        head = PatchStatsProjector(**sizes)
        head.load_state_dict(tensors)
    except (CheckpointError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a head saved by mvde: {' '.join(str(error).split())}") from error
    return head.eval()


def _fit(
    head: PatchStatsProjector,
    stats: Tensor,
    tokens: Tensor,
    steps: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * rate_factor_cosine(step / steps)
        rows = torch.randint(len(stats), (batch_size,), generator=generator)
        loss = F.mse_loss(head(stats[rows][None])[0], tokens[rows])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()


def _read_pair(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            stats, tokens = (np.asarray(archive[name], dtype=np.float32) for name in ("stats", "tokens"))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DatasetError(f"{path} is not an archive with 'stats' and 'tokens': {error}") from error
    if stats.ndim != 2 or tokens.ndim != 2 or len(stats) != len(tokens) or len(stats) == 0:
        raise DatasetError(
            f"{path}: stats {stats.shape} and tokens {tokens.shape} are not (N, S) and (N, D) with equal N"
        )
    if not (np.isfinite(stats).all() and np.isfinite(tokens).all()):
        raise DatasetError(f"{path} holds values that are not finite")
    return torch.from_numpy(stats), torch.from_numpy(tokens)
