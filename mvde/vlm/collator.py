"""Batches of outputs of a :class:`DepthProcessor`: texts of different lengths, different numbers of tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvde.errors import UsageError
from mvde.vlm.batch import DEPTH_STATS

IGNORED_LABEL = -100
"""Label of a token that the loss leaves out, as in transformers."""

_TOKENS = "input_ids"
_PIXELS = "pixel_values"
_PADDED = (_PIXELS, DEPTH_STATS, "pixel_attention_mask")
_PADDING_SIDES = ("left", "right")


class DepthCollator:
    """Joins examples to a batch of a model's arguments; ``data_collator`` of transformers' ``Trainer``.

    An example is the output of a :class:`DepthProcessor` for one text, or a few, with ``return_tensors="pt"``; it may
    have ``labels`` of the shape of ``input_ids``. Whatever has that shape is padded to the longest text on
    ``padding_side``: tokens with ``pad_token_id``, labels with -100, all else with 0. Tiles (images, tiles, 3, H, W)
    and padded patches are filled up with zeros to the largest number, and so are their rows of ``depth_stats``; tiles
    and patches that stand in one row are put one after the other.
    """

    def __init__(self, pad_token_id: int, padding_side: str = "right") -> None:
        if padding_side not in _PADDING_SIDES:
            raise UsageError(f"padding_side is {padding_side!r}, but expected one of {', '.join(_PADDING_SIDES)}")
        self._fill = {_TOKENS: pad_token_id, "labels": IGNORED_LABEL}
        self._is_left = padding_side == "left"

    @classmethod
    def of(cls, processor: Any) -> DepthCollator:
        """Make the collator of a processor, with the padding of its tokenizer.

        Raises :class:`UsageError` for a tokenizer without a padding token.
        """
        tokenizer = processor.tokenizer
        if tokenizer.pad_token_id is None:
            raise UsageError(
                f"the {type(tokenizer).__name__} has no padding token; set tokenizer.pad_token, for instance to its "
                "eos_token"
            )
        return cls(tokenizer.pad_token_id, tokenizer.padding_side)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the arguments of a batch.

        Raises :class:`UsageError` naming the example that lacks what others have, that has pictures without
        ``depth_stats``, or whose arrays do not fit the others'.
        """
        batch = [_tensors(example) for example in examples]
        if not batch:
            raise UsageError("a batch needs at least one example, but got none")
        _check_examples(batch)
        names = list(dict.fromkeys(name for example in batch for name in example))
        return {name: self._joined(name, batch) for name in names}

    def _joined(self, name: str, batch: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """One argument of all examples that have it."""
        values = [example[name] for example in batch if name in example]
        if all(example[name].shape == example[_TOKENS].shape for example in batch if name in example):
            return torch.cat(self._padded_texts(values, self._fill.get(name, 0)))
        ranks = {value.ndim for value in values}
        if name in _PADDED and len(ranks) == 1 and _has_places(name, values[0], batch):
            values = _filled(values, 1)
        if name == _PIXELS and len(ranks) == 1 and values[0].ndim == 4 and _rows_are_flat(batch):
            values = _filled(_filled(values, 2), 3)  # Pixtral's pictures, of which the tower sees image_sizes
        shapes = {tuple(value.shape[1:]) for value in values}
        if len(shapes) != 1:
            raise UsageError(
                f"{name} of the examples are {', '.join(str(tuple(value.shape)) for value in values)}, which do not "
                "form a batch; process these texts and pictures in one call"
            )
        return torch.cat(values)

    def _padded_texts(self, values: Sequence[Tensor], fill: int) -> list[Tensor]:
        longest = max(value.shape[1] for value in values)
        missing = [longest - value.shape[1] for value in values]
        sides = [(number, 0) if self._is_left else (0, number) for number in missing]
        return [F.pad(value, side, value=fill) for value, side in zip(values, sides, strict=True)]


def _tensors(example: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of an example; a text without a batch axis gets one."""
    tensors = {name: torch.as_tensor(value) for name, value in example.items() if value is not None}
    if _TOKENS not in tensors:
        raise UsageError(f"an example needs {_TOKENS}, but got {', '.join(tensors)}; make it with a DepthProcessor")
    shape = tensors[_TOKENS].shape
    if len(shape) == 1:
        tensors = {name: value[None] if value.shape == shape else value for name, value in tensors.items()}
    return tensors


def _check_examples(batch: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise :class:`UsageError` for an example that lacks depth, or what the other examples have."""
    with_pictures = [(index, example) for index, example in enumerate(batch) if _PIXELS in example]
    without = [index for index, example in with_pictures if DEPTH_STATS not in example]
    if without and len(without) < len(with_pictures):
        raise UsageError(
            f"example {without[0]} has {_PIXELS}, but no {DEPTH_STATS}, and others have; give its pictures depth=None, "
            "which makes rows of zeros"
        )
    columns = {int(example[DEPTH_STATS].shape[-1]) for _, example in with_pictures if DEPTH_STATS in example}
    if len(columns) > 1:
        raise UsageError(f"{DEPTH_STATS} of the examples have {sorted(columns)} columns; use one DepthProcessor")
    for group, members in (("texts", list(enumerate(batch))), ("pictures", with_pictures)):
        names = set().union(*(_names(example, group) for _, example in members)) if members else set()
        for index, example in members:
            if missing := names - set(example):
                raise UsageError(f"example {index} lacks {', '.join(sorted(missing))}, which others have")


def _names(example: Mapping[str, Tensor], group: str) -> set[str]:
    """Names of the arguments of an example that belong to its texts or to its pictures."""
    of_texts = {name for name, value in example.items() if value.shape == example[_TOKENS].shape}
    return of_texts if group == "texts" else set(example) - of_texts


def _has_places(name: str, value: Tensor, batch: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether the second axis of an argument counts tiles or patches of which there may be fewer."""
    pixels = next(example[_PIXELS] for example in batch if _PIXELS in example)
    return pixels.ndim in (3, 5) and (name != DEPTH_STATS or value.ndim == (4 if pixels.ndim == 5 else 3))


def _rows_are_flat(batch: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether the rows of all pictures stand in one row."""
    return all(example[DEPTH_STATS].ndim == 2 for example in batch if DEPTH_STATS in example)


def _filled(values: Sequence[Tensor], axis: int) -> list[Tensor]:
    """Values with zeros at the end of an axis, up to the largest."""
    largest = max(value.shape[axis] for value in values)
    return [F.pad(value, (*(0, 0) * (value.ndim - axis - 1), 0, largest - value.shape[axis])) for value in values]
