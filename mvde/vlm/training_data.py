"""Training examples from conversations: a model's own tokens and pixels, with the depth of its patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from mvde.errors import DatasetError, UsageError
from mvde.vlm.conversations import Conversation
from mvde.vlm.conversations_prompts import prompt_format
from mvde.vlm.sources import GivenDepth
from mvde.vlm.training import Draw

CACHE_BYTES = 1 << 29
"""Examples that are kept after their first use: all of a small data set, next to none of a large one."""


class ConversationExamples:
    """Conversations about pictures, as a model's arguments.

    ``processor`` is a :class:`mvde.vlm.DepthProcessor`, ``collate`` joins outputs of it. Depth is that of the
    conversation's file; without one, that of the processor's source, if it has any. Raises DatasetError naming the
    conversation whose picture and depth do not fit together.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        processor: Any,
        collate: Callable[[list[Any]], dict[str, Tensor]],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._conversations, self._processor, self._collate = conversations, processor, collate
        self._format = prompt_format(processor)
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._room_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self._conversations)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Return the arguments of one example; ``depth_stats`` are 0 where its depth is not shown."""
        example = self._kept.get(draw.index)
        if example is None:
            example = self._read(self._conversations[draw.index])
            self._keep(draw.index, example)
        if draw.has_depth:
            return dict(example)
        return {**example, "depth_stats": example["depth_stats"].new_zeros(example["depth_stats"].shape)}

    def collate(self, examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the model's arguments for a batch."""
        return self._collate(examples)

    def _read(self, conversation: Conversation) -> dict[str, Tensor]:
        has_own = conversation.depth is not None or isinstance(self._processor.source, GivenDepth)
        depth = {"depth": [conversation.depth]} if has_own else {}
        try:
            output = self._format.encode(
                self._processor,
                conversation.turns,
                images=[conversation.image],
                camera=[camera_of(conversation)],
                return_tensors="pt",
                **depth,
            )
        except UsageError as error:
            raise DatasetError(f"conversation {conversation.name}: {error}") from error
        return {name: value for name, value in output.items() if isinstance(value, Tensor)}

    def _keep(self, index: int, example: dict[str, Tensor]) -> None:
        size = sum(value.nbytes for value in example.values())
        if size <= self._room_bytes:
            self._room_bytes -= size
            self._kept[index] = example


class HasCamera(Protocol):
    """A conversation, or a question about a picture."""

    @property
    def camera(self) -> tuple[float, float, float, float] | None:
        """Intrinsics (fx, fy, cx, cy) in pixels of the picture, where known."""
        ...


def camera_of(conversation: HasCamera) -> Any:
    """Function from the size (H, W) of a conversation's picture to its camera; ``None`` if unknown."""
    from mvde.camera import Camera

    if conversation.camera is None:
        return None
    numbers = conversation.camera
    return lambda size: Camera(*numbers, size=size)
