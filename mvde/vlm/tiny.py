"""A tiny LLaVA with a SigLIP tower, for tests and a demonstration: no pretrained weights are needed, and none are good.

Some 160,000 parameters, pictures of 32×32 pixels in 4×4 patches, a vocabulary of the questions of
:mod:`mvde.vlm.questions` and the words of their answers. It is a folder as any other model of transformers. What it
learns in a minute shows that depth reaches the language model, aligned with the picture, and is used; it says nothing
about a real model's skill.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvde.errors import UsageError
from mvde.files import scratch_folder
from mvde.vlm.choices import Rounding
from mvde.vlm.conversations import IMAGE_TOKEN
from mvde.vlm.conversations_prompts import IGNORED
from mvde.vlm.questions import CHOICE_WORDS, COLOURS, METRIC_WORDS, RELATIVE_WORDS, distance_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE, PATCH = 32, 8
GRID = SIZE // PATCH
NUM_PATCHES = GRID * GRID
WIDTH, TOWER_WIDTH = 64, 48
PRETRAINING_STEPS = 1200
"""Which box is further left takes 1,000 of them; a model that knows it learns the nearer one from depth in 500 more."""

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", IMAGE_TOKEN)
_LEFT_WORDS = "Which box is further left, red or blue?"
_LEFT_CHOICE_WORDS = CHOICE_WORDS.replace("closer to the camera", "further left")
_WHERE_WORDS = "Where is the {colour} box?"
_NEXT_WORDS = "What comes after {number} m?"
_PLACES = tuple(f"place{number}" for number in range(NUM_PATCHES))
_VARIED = ("colour", "first", "second", "number")
"""What templates of questions leave open. The text between is one token: sequences are as short as they can be."""
_CHAT = (
    "<s>{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
)
Turns: TypeAlias = Sequence[tuple[str, str]]
"""Questions about one picture, each with its answer."""
_TURNS = 3
_RGB_OF = np.array([(0.9, -0.9, -0.9), (-0.9, -0.9, 0.9)], dtype=np.float32)


def tiny_tokenizer() -> Any:
    """Tokenizer with a token for each fixed part of a question, each colour and each preferred distance to 40 m."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Replace
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(_vocabulary())}
    parts = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True) if " " in word)
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = Split(Regex(rf"{parts}|\S+"), "removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[IMAGE_TOKEN],
        padding_side="right",
    )


def tiny_processor() -> Any:
    """Processor of the tiny model: 32×32 pixels, and 16 image tokens a picture."""
    from transformers import LlavaProcessor, SiglipImageProcessor

    return LlavaProcessor(
        image_processor=SiglipImageProcessor(size={"height": SIZE, "width": SIZE}),
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=_CHAT,
        image_token=IMAGE_TOKEN,
    )


def tiny_model(seed: int = 0) -> Any:
    """Return the model with random weights: one layer of SigLIP, three of Llama."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    words = _vocabulary()
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=TOWER_WIDTH, intermediate_size=2 * TOWER_WIDTH, num_hidden_layers=1, num_attention_heads=2,
            image_size=SIZE, patch_size=PATCH, vision_use_head=False,
        ),
        text_config=LlamaConfig(
            hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=len(words), max_position_embeddings=128,
            pad_token_id=words.index("<pad>"), bos_token_id=words.index("<s>"), eos_token_id=words.index("</s>"),
        ),
        image_token_id=words.index(IMAGE_TOKEN),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=NUM_PATCHES,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    spread_positions(model)
    return model


def tiny_merging_model(seed: int = 0) -> Any:
    """Return an Idefics3 with random weights for pictures of 64×64 pixels: 8×8 patches, merged by 2×2 to 16 tokens."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig

    words = _vocabulary()
    config = Idefics3Config(
        vision_config={
            "hidden_size": TOWER_WIDTH, "intermediate_size": 2 * TOWER_WIDTH, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 2 * SIZE, "patch_size": PATCH,
        },
        text_config=LlamaConfig(
            hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=len(words), max_position_embeddings=128,
            pad_token_id=words.index("<pad>"), bos_token_id=words.index("<s>"), eos_token_id=words.index("</s>"),
        ),
        image_token_id=words.index(IMAGE_TOKEN),
        scale_factor=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(config)
    spread_positions(model)
    return model


def picture_arguments(model: Any, pixels: Tensor) -> dict[str, Tensor]:
    """Arguments of a tiny model for pictures (B, 3, H, W): Idefics3 takes tiles (B, 1, 3, H, W)."""
    return {"pixel_values": pixels[:, None] if model.config.model_type == "idefics3" else pixels}


def spread_positions(model: nn.Module) -> None:
    """Draw the tower's position embeddings with a deviation of 0.3: with SigLIP's own, a patch is found late."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position_embedding" in name:
                parameter.normal_(0, 0.3)


@dataclass(frozen=True)
class Marks:
    """Pictures with two marked patches: ``pixels`` (B, 3, H, W) in [-1, 1], ``places`` (B, 2) of red and blue."""

    pixels: Tensor
    places: Tensor


def mark_patches(pixels: Tensor, generator: torch.Generator) -> Marks:
    """Mark two different cells of the 4×4 in every picture (B, 3, H, W), one red and one blue."""
    places = torch.rand(len(pixels), GRID * GRID, generator=generator).argsort(dim=1)[:, :2]
    return Marks(outline(pixels, places, pixels.shape[-1] // GRID), places)


def outline(pixels: Tensor, places: Tensor, side: int) -> Tensor:
    """Draw the outlines of square cells ``places`` (B, 2) of ``side`` pixels; red first, then blue."""
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in pixels.shape[-2:]), indexing="ij")
    cells = rows // side * (pixels.shape[-1] // side) + columns // side
    line = max(1, round(0.15 * side))
    edge = ((rows % side).minimum(side - 1 - rows % side) < line) | (
        (columns % side).minimum(side - 1 - columns % side) < line
    )
    for which, colour in enumerate(torch.from_numpy(_RGB_OF)):
        is_line = (cells == places[:, which, None, None]) & edge
        pixels = torch.where(is_line[:, None], colour[None, :, None, None], pixels)
    return pixels


class TinyWords:
    """Token ids of conversations about a picture of ``num_images`` image tokens, kept for the next time."""

    def __init__(self, num_images: int = NUM_PATCHES) -> None:
        self._tokenizer = tiny_tokenizer()
        self._kept: dict[str, list[int]] = {}
        self._start = self._ids("<s>" + IMAGE_TOKEN * num_images)

    def encode(self, conversations: Sequence[Turns]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and ``labels`` (B, L): only answers and their ends are learned."""
        told = [self._told(turns) for turns in conversations]
        length = max(len(ids) for ids, _ in told)
        input_ids = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in told])
        labels = torch.tensor([learned + [IGNORED] * (length - len(learned)) for _, learned in told])
        return {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), "labels": labels}

    def _told(self, turns: Turns) -> tuple[list[int], list[int]]:
        """Ids of a conversation, and its labels."""
        ids, labels = list(self._start), [IGNORED] * len(self._start)
        for question, answer in turns:
            asked, answered = self._ids(question), self._ids(f"{answer} </s>")
            ids += asked + answered
            labels += [IGNORED] * len(asked) + answered
        return ids, labels

    def _ids(self, text: str) -> list[int]:
        if text not in self._kept:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            if self._tokenizer.unk_token_id in ids:
                raise UsageError(f"the tiny model has no word for a part of {text!r}")
            self._kept[text] = ids
        return self._kept[text]


def learn_to_look(
    model: Any,
    pixels: Tensor,
    steps: int = PRETRAINING_STEPS,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train the whole model to say where the boxes are, on pictures (N, 3, H, W) in [-1, 1] without any depth.

    It stands for the pretraining of a real model, which sees boxes and not distances. ``progress`` receives the step
    and its loss.
    """
    generator = torch.Generator().manual_seed(seed)
    words = TinyWords()
    place_of = nn.Linear(WIDTH, 3 + NUM_PATCHES)
    seen: list[Tensor] = []
    projector = getattr(model.model, "multi_modal_projector", None) or model.model.connector
    hook = projector.register_forward_hook(lambda module, inputs, output: seen.append(output))
    parameters = [*model.parameters(), *place_of.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.0, fused=True)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 30) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        marks = mark_patches(pixels[torch.randint(len(pixels), (64,), generator=generator)], generator)
        loss = model(**words.encode(_looking(marks, generator)), **picture_arguments(model, marks.pixels)).loss
        loss = loss + _auxiliary_loss(place_of(seen.pop().reshape(-1, NUM_PATCHES, WIDTH)), marks.places)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        progress(step + 1, float(loss.detach()))
    hook.remove()
    model.eval()


def write_tiny(
    folder: Path, frames: Iterator[NDArray[np.uint8]], steps: int = PRETRAINING_STEPS, seed: int = 0
) -> None:
    """Write a tiny model that was trained on ``frames``, RGB (H, W, 3) uint8, to a new folder, with its processor.

    Raises UsageError if the folder exists or there is no frame.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists; the tiny model is written to a new folder")
    processor = tiny_processor()
    pictures = list(frames)
    if not pictures:
        raise UsageError("the tiny model learns to look at frames, but none were given")
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    model = tiny_model(seed)
    learn_to_look(model, pixels, steps, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent, folder.name) as scratch:
        model.save_pretrained(scratch)
        processor.save_pretrained(scratch)
        scratch.rename(folder)


@lru_cache(maxsize=1)
def _distances() -> list[str]:
    """Preferred distances from 0.1 to 40 m, in order."""
    return sorted({distance_text(value, Rounding.PREFERRED) for value in np.geomspace(0.1, 40, 400)}, key=float)


def _vocabulary() -> list[str]:
    """All words in a fixed order; their index is their token."""
    texts = (RELATIVE_WORDS, METRIC_WORDS, CHOICE_WORDS, _LEFT_WORDS, _LEFT_CHOICE_WORDS, _WHERE_WORDS, _NEXT_WORDS)
    gaps = "|".join(f"{{{name}}}" for name in _VARIED)
    parts = {" ".join(part.split()) for text in texts for part in re.split(gaps, text)}
    return [*_SPECIAL, *COLOURS, "(A)", "(B)", "m", *sorted(parts - {""}), *_distances(), *_PLACES]


def _looking(marks: Marks, generator: torch.Generator) -> list[Turns]:
    """Questions that need no depth, and their answers: where a box is, which is further left, and the next number.

    Every word that an answer about depth has is an answer here too: an output that was never trained stays improbable,
    whatever an adapter of the layers below it learns.
    """
    shape = len(marks.places), _TURNS
    kinds = torch.randint(6, shape, generator=generator).tolist()
    values = torch.randint(len(_distances()) - 1, shape, generator=generator).tolist()
    return [
        [_look(kind, red, blue, value) for kind, value in zip(*turns, strict=True)]
        for (red, blue), *turns in zip(marks.places.tolist(), kinds, values, strict=True)
    ]


def _look(kind: int, red: int, blue: int, value: int) -> tuple[str, str]:
    """One of these questions about boxes at the places ``red`` and ``blue``, or about the number ``value``."""
    if kind == 0:
        number, following = _distances()[value : value + 2]
        return _NEXT_WORDS.format(number=number), f"{following} m"
    left = "red" if red % GRID < blue % GRID else "blue"
    if red % GRID != blue % GRID and kind == 1:
        return _LEFT_WORDS, left
    if red % GRID != blue % GRID and kind == 2:
        first = COLOURS[value % 2]
        question = _LEFT_CHOICE_WORDS.format(first=first, second=COLOURS[1 - value % 2])
        return question, "(A)" if first == left else "(B)"
    return _WHERE_WORDS.format(colour=COLOURS[kind % 2]), _PLACES[(red, blue)[kind % 2]]


def _auxiliary_loss(logits: Tensor, places: Tensor) -> Tensor:
    """Cross-entropies of each image token's own mark and place, which shorten the search for both by ten times."""
    marked = torch.zeros(logits.shape[:2], dtype=torch.long).scatter_(1, places[:, :1], 1).scatter_(1, places[:, 1:], 2)
    weights = torch.tensor([1.0, 5.0, 5.0])
    where = torch.arange(logits.shape[1]).repeat(len(logits))
    mark_loss = F.cross_entropy(logits[..., :3].reshape(-1, 3), marked.reshape(-1), weight=weights)
    return mark_loss + F.cross_entropy(logits[..., 3:].reshape(len(where), -1), where)
