"""From a folder of transformers and conversations to a run: depth, adapter, examples, and the trained folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mvde.errors import CheckpointError, MissingDependencyError
from mvde.stats import DEFAULT_STATS
from mvde.vlm.attach import add_depth
from mvde.vlm.checkpoint import ADAPTER_CONFIG, from_pretrained, save_pretrained
from mvde.vlm.collator import DepthCollator
from mvde.vlm.config import CONFIG_KEY
from mvde.vlm.conversations import Conversation
from mvde.vlm.lora import add_lora, language_model_path
from mvde.vlm.processor import DepthProcessor
from mvde.vlm.training import Reporter, TrainingResult, TrainingSettings, VlmTraining
from mvde.vlm.training_data import ConversationExamples

ADAPTED_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a decoder block that get an adapter, by the names that most language models give them."""


@dataclass(frozen=True)
class DepthModelSettings:
    """The depth that a model is given, unless it has depth already, and its adapter.

    ``columns`` of the statistics, ``hidden`` width of the embedder, ``lora_rank`` and ``lora_alpha`` of the adapter.
    """

    columns: tuple[str, ...] = DEFAULT_STATS
    hidden: int = 256
    lora_rank: int = 16
    lora_alpha: float = 32.0


def load_for_training(
    source: str, depth_source: Any = None, settings: DepthModelSettings | None = None
) -> tuple[Any, DepthProcessor]:
    """Load a model of transformers, give it depth and an adapter, and make its processor.

    A model that has depth keeps it, and an adapter is trained further. ``depth_source`` is that of the processor: a
    DepthRuntime, a folder, or None for depth files that the conversations name. Raises CheckpointError if ``source`` is
    no vision-language model.
    """
    settings = settings or DepthModelSettings()
    plain = load_processor(source)
    made = DepthProcessor(plain, depth_source, columns=settings.columns)
    if (Path(source) / ADAPTER_CONFIG).is_file():
        model = from_pretrained(source, is_trainable=True, dtype="auto")
    else:
        model = _whole_model(source)
        if getattr(model.config, CONFIG_KEY, None) is None:
            add_depth(model, made.config(hidden=settings.hidden))
        model = add_lora(model, settings.lora_rank, settings.lora_alpha, adapted_layers(model))
    return model, DepthProcessor.for_model(model, plain, depth_source)


def load_for_answers(source: str, depth_source: Any = None, base: str | None = None) -> tuple[Any, DepthProcessor]:
    """Load a model with depth, and its processor.

    ``base`` says where the base model of an adapter is now. Raises CheckpointError for a model without depth, or an
    adapter of another base model.
    """
    model = from_pretrained(source, base=base, dtype="auto")
    return model.to(_device()), DepthProcessor.for_model(model, load_processor(source), depth_source)


def train(
    model: Any,
    processor: DepthProcessor,
    conversations: Sequence[Conversation],
    output_dir: str | Path,
    settings: TrainingSettings,
    report: Reporter,
) -> TrainingResult:
    """Train ``model`` on conversations, and write the folder that :func:`load_for_answers` takes when it is done.

    An interrupted run leaves its state in the folder, and the same call goes on from it.
    """
    output_dir = Path(output_dir)
    examples = ConversationExamples(conversations, processor, DepthCollator.of(processor))
    result = VlmTraining(model, examples, settings, output_dir).run(report)
    if not result.interrupted:
        save_pretrained(model, output_dir)
        processor.processor.save_pretrained(output_dir)
    return result


def adapted_layers(model: nn.Module) -> list[str]:
    """Names of :data:`ADAPTED_LAYERS` that the model's language model has.

    Raises CheckpointError if it has none of them.
    """
    modules = model.get_submodule(language_model_path(model)).named_modules()
    there = {name.rpartition(".")[2] for name, module in modules if isinstance(module, nn.Linear)}
    found = [name for name in ADAPTED_LAYERS if name in there]
    if not found:
        raise CheckpointError(
            f"the language model of {type(model).__name__} has none of the layers {', '.join(ADAPTED_LAYERS)}; add an "
            "adapter with mvde.vlm.add_lora and train with mvde.vlm.training.VlmTraining"
        )
    return found


def load_processor(source: str) -> Any:
    """Load a model's own processor. Raises CheckpointError if the folder has none."""
    transformers = _transformers()
    try:
        return transformers.AutoProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} has no processor of transformers ({_first_line(error)}); copy it from the base model's folder"
        ) from error


def _whole_model(source: str) -> Any:
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} is no model of transformers ({_first_line(error)}); give a folder with config.json, or a name "
            "on the hub"
        ) from error
    if getattr(config, CONFIG_KEY, None) is not None:
        return from_pretrained(source, dtype="auto")
    name = str(Path(source).resolve()) if Path(source).is_dir() else source  # an adapter states where its base is
    try:
        return transformers.AutoModelForImageTextToText.from_pretrained(name, dtype="auto", use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} cannot be loaded as a vision-language model of transformers: {_first_line(error)}"
        ) from error


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError.for_extra("transformers", "vlm", "vision-language models") from error
    return transformers


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
