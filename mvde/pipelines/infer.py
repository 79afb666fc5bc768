"""Answers of a vision-language model with depth about many pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mvde.errors import UsageError
from mvde.image import read_image
from mvde.vlm.evaluation_assistant import MOST_NEW_TOKENS, Assistant
from mvde.vlm.training_setup import load_for_answers


def infer_images(
    model: str | Path,
    images: Iterable[str | Path],
    question: str,
    depth_source: Any,
    batch_size: int = 8,
    max_new_tokens: int = MOST_NEW_TOKENS,
) -> list[str]:
    """Ask ``question`` about every image; return the answers, in order.

    ``model`` is a folder that `mvde vlm train` wrote. ``depth_source`` gives the depth of the pictures: a DepthRuntime,
    or a folder of depth files. Raises CheckpointError for a model without depth, ImageError or DatasetError for a
    picture or a depth file that cannot be read.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, but got {batch_size}")
    paths = [Path(image) for image in images]
    loaded, processor = load_for_answers(str(model), depth_source)
    assistant = Assistant(loaded, processor, max_new_tokens)
    answers: list[str] = []
    for batch in _batched(paths, batch_size):
        answers += assistant.answer(batch, [question] * len(batch), [_depth(processor, path) for path in batch])
    return answers


def _depth(processor: Any, path: Path) -> Any:
    """Depth map (H, W) of a picture from the processor's source, ``None`` where it has none."""
    from mvde.vlm.sources import Picture

    found = processor.source.depth_of(Picture(read_image(path), path), None)
    return None if found is None else found.depth


def _batched(paths: list[Path], size: int) -> Iterator[list[Path]]:
    remaining = iter(paths)
    while batch := list(islice(remaining, size)):
        yield batch
