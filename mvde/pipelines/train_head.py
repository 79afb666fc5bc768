"""Training of the depth embedder of a vision-language model alone: its head for patch statistics.

The first part of `mvde vlm train`: the language model and its tower stay as they are, and the embedder learns tokens
that they understand. :mod:`mvde.vlm.training_setup` trains an adapter of the language model too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvde.stats import DEFAULT_STATS
from mvde.vlm.conversations import read_conversations
from mvde.vlm.training import TrainingResult, TrainingSettings
from mvde.vlm.training_setup import DepthModelSettings, load_for_answers, load_for_training, train


def train_head(
    model: str | Path,
    conversations: str | Path,
    output_dir: str | Path,
    hidden_width: int = 256,
    steps: int = 1000,
    batch_size: int = 16,
    lr: float = 1e-3,
    columns: Sequence[str] = DEFAULT_STATS,
    depth_source: Any = None,
    seed: int = 0,
) -> TrainingResult:
    """Train the embedder of ``model``, a folder of transformers, and write it to ``output_dir``; return the outcome.

    ``conversations`` is a file of `mvde vlm qa`; ``depth_source`` a DepthRuntime or a folder of depth, by default the
    files that the conversations name. An interrupted run is resumed. Raises DatasetError for conversations that cannot
    be read, CheckpointError for a folder without a vision-language model, TrainingError for a loss that is not finite.
    """
    settings = TrainingSettings(embedder_steps=steps, steps=0, batch_size=batch_size, lr=lr, seed=seed)
    read = read_conversations(conversations)
    chosen = DepthModelSettings(columns=tuple(columns), hidden=hidden_width)
    loaded, processor = load_for_training(str(model), depth_source, chosen)
    return train(loaded, processor, read, output_dir, settings, lambda step, num_steps, values: None)


def load_head(folder: str | Path, depth_source: Any = None) -> tuple[Any, Any]:
    """Load what :func:`train_head` wrote: the model with its depth, and its processor.

    Raises CheckpointError if the folder is missing, damaged or has no depth.
    """
    return load_for_answers(str(folder), depth_source)
