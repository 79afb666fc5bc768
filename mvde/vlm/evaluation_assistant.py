"""A vision-language model with depth that answers questions about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import torch

from mvde.errors import UsageError
from mvde.vlm.conversations_prompts import prompt_format

MOST_NEW_TOKENS = 32
"""An option, a distance or a short sentence."""


class Condition(str, Enum):
    """What depth a model is given in an evaluation."""

    DEPTH = "depth"
    REMOVED = "depth removed"
    SHUFFLED = "depth of another picture"

    def __str__(self) -> str:
        return self.value


class Assistant:
    """``model`` with depth, and its :class:`mvde.vlm.DepthProcessor`; answers are the most probable tokens."""

    def __init__(self, model: Any, processor: Any, max_new_tokens: int = MOST_NEW_TOKENS) -> None:
        if max_new_tokens < 1:
            raise UsageError(f"an answer has at least 1 token, but max_new_tokens is {max_new_tokens}")
        self.model, self.processor = model.eval(), processor
        self._format, self._max_new_tokens = prompt_format(processor), max_new_tokens

    @torch.inference_mode()
    def answer(
        self,
        images: Sequence[Any],
        questions: Sequence[str],
        depths: Sequence[Any] | None = None,
        cameras: Sequence[Any] | None = None,
    ) -> list[str]:
        """Answer one question about each of the ``images`` (files, or RGB (H, W, 3) uint8).

        ``depths`` are maps (H, W) or files, ``None`` for a picture without; default: no depth at all. ``cameras`` are
        those of the pictures, where known. Raises UsageError where depth and picture differ in size.
        """
        if not len(images) == len(questions) == len(depths if depths is not None else images):
            raise UsageError(f"{len(images)} pictures, {len(questions)} questions and their depth must be equally many")
        texts = [self._format.prompt([], question) for question in questions]
        options = {"padding": True, "padding_side": "left", "return_tensors": "pt", **self._format.options(texts[0])}
        if depths is None:
            inputs = self.processor.processor(images=_plain(images), text=texts, **options)
        else:
            inputs = self.processor(
                images=list(images), text=texts, depth=list(depths), camera=cameras or [None] * len(images), **options
            )
        arguments = {name: self._placed(value) for name, value in inputs.items()}
        tokens = self.model.generate(**arguments, max_new_tokens=self._max_new_tokens, do_sample=False)
        new = tokens[:, arguments["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def _placed(self, value: Any) -> Any:
        """Tensor on the model's device; pictures in the model's precision, statistics in fp32."""
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(self.model.device)


def _plain(images: Sequence[Any]) -> list[Any]:
    """Pictures for a processor that reads no files."""
    from mvde.image import read_image

    return [image if hasattr(image, "shape") else read_image(image) for image in images]
