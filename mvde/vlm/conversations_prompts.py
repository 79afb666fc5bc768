"""Conversations in the words and tokens that a model was trained on: its own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mvde.errors import UsageError
from mvde.vlm.conversations import IMAGE_TOKEN, Turn

IGNORED = -100
"""Label of tokens that are not learned, by the convention of transformers."""
_MOST_MERGED = 4
"""Tokens at the end of a prompt that may merge with the answer's first ones, such as a space."""


@dataclass(frozen=True)
class Told:
    """A whole conversation as text, and for each answer where its tokens lie: (start, end), counted from the end."""

    text: str
    spans: tuple[tuple[int, int], ...]


class PromptFormat(Protocol):
    """How one model's processor is asked about a picture."""

    def prompt(self, turns: Sequence[Turn], question: str) -> str:
        """Return the text up to the answer, after earlier ``turns``."""
        ...

    def encode(self, processor: Any, turns: Sequence[Turn], **options: Any) -> Any:
        """Return the processor's output for a whole conversation with its picture, and ``labels`` of the answers."""
        ...

    def options(self, text: str) -> dict[str, Any]:
        """Options of the processor's call for a text of :meth:`prompt`."""
        ...


def prompt_format(processor: Any) -> PromptFormat:
    """Return the format of a processor: its chat template, or PaliGemma's prefix and suffix.

    Raises UsageError for a processor with neither.
    """
    if getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None):
        return ChatFormat(processor)
    if type(getattr(processor, "processor", processor)).__name__.startswith(("PaliGemma", "ColPali")):
        return SuffixFormat()
    raise UsageError(
        f"the {type(processor).__name__} has no chat template, so it is not known how the model is asked; add the one "
        "that its authors trained it with to its folder, as chat_template.jinja"
    )


class ChatFormat:
    """The chat template of a processor or of its tokenizer."""

    def __init__(self, processor: Any) -> None:
        own = getattr(processor, "chat_template", None)
        self._template = processor.apply_chat_template if own else processor.tokenizer.apply_chat_template
        self._tokenizer = processor.tokenizer

    def prompt(self, turns: Sequence[Turn], question: str) -> str:
        """Return the text up to the answer, after earlier ``turns``."""
        text: str = self._template(
            _messages([*turns, Turn(question, "")])[:-1], add_generation_prompt=True, tokenize=False
        )
        return text

    def encode(self, processor: Any, turns: Sequence[Turn], **options: Any) -> Any:
        """Return the processor's output for a whole conversation with its picture, and ``labels`` of the answers."""
        told = self.told(turns)
        output = processor(text=[told.text], **options, **self.options(told.text))
        labels = output["input_ids"].new_full(output["input_ids"].shape, IGNORED)
        length = labels.shape[-1]
        for start, end in told.spans:
            labels[:, length - start : length - end] = output["input_ids"][:, length - start : length - end]
        output["labels"] = labels
        return output

    def told(self, turns: Sequence[Turn]) -> Told:
        """Tell a whole conversation. Positions are counted from the end: the picture's tokens come before them.

        Raises UsageError for a template that changes earlier turns when later ones follow.
        """
        messages = _messages(turns)
        text: str = self._template(messages, tokenize=False)
        ids, spans = self._ids(text), []
        for number, turn in enumerate(turns):
            before = self._ids(self.prompt(turns[:number], turn.question))
            until = self._ids(self._template(messages[: 2 * number + 2], tokenize=False))
            start, end = _common(before, ids), _common(until, ids)
            if start < len(before) - _MOST_MERGED or end < len(until) - _MOST_MERGED or end <= start:
                raise UsageError(
                    f"the chat template tells the turn {turn.question!r} differently once it is answered, so that its "
                    "answer cannot be found; use conversations of one turn, or another template"
                )
            spans.append((len(ids) - start, len(ids) - end))
        return Told(text, tuple(spans))

    def options(self, text: str) -> dict[str, Any]:
        """Options of the processor's call for a text of :meth:`prompt`: special tokens are in a template already."""
        start = self._tokenizer.bos_token
        return {"add_special_tokens": False} if start is not None and text.startswith(start) else {}

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


class SuffixFormat:
    """PaliGemma's format: the question as prefix, and one answer as suffix, which its processor labels itself."""

    def prompt(self, turns: Sequence[Turn], question: str) -> str:
        """Return the text up to the answer. Raises UsageError if there are earlier turns."""
        if turns:
            raise UsageError("this model answers one question about a picture, but got a conversation of several turns")
        return f"{IMAGE_TOKEN}{question}"

    def encode(self, processor: Any, turns: Sequence[Turn], **options: Any) -> Any:
        """Return the processor's output for a question and its answer, with the processor's ``labels``."""
        return processor(text=[self.prompt(turns[:-1], turns[-1].question)], suffix=[turns[-1].answer], **options)

    def options(self, text: str) -> dict[str, Any]:
        """Options of the processor's call: none."""
        return {}


def _messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Messages of transformers' chat templates; the picture is in the first one."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        picture = [{"type": "image"}] if number == 0 else []
        messages.append({"role": "user", "content": [*picture, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages


def _common(start: list[int], whole: list[int]) -> int:
    """Number of tokens at which both begin alike."""
    pairs = zip(start, whole, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(start), len(whole)))
