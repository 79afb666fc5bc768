"""Does depth reach a vision-language model and is it used? Two questions, with a tiny model on rendered frames.

Unrelated colours: the RGB is that of another frame, so that it cannot help; depth (`true`), none of it (`none`) and
that of a shuffled batch (`shuffled`). Own colours: the frame's own RGB, with none, the renderer's or a depth model's
predicted depth, counted apart for questions that height in the picture answers (consistent) and those that it answers
wrongly (counter).

    python benchmarks/vlm.py --frames build/vlm/frames --test-frames build/vlm/test-frames --seeds 3 > vlm.jsonl
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mvde.datasets.synthetic import SyntheticFrames
from mvde.stats import depth_to_patch_stats
from mvde.vlm.questions import COLOURS, METRIC_WORDS, RELATIVE_WORDS, Rounding, distance_text
from mvde.vlm.tiny import GRID, NUM_PATCHES, PATCH, SIZE, TinyWords, learn_to_look, outline, tiny_model
from mvde.vlm.training import Draw, TrainingSettings, VlmTraining

LEAST_RATIO = 1.15


@dataclass(frozen=True)
class World:
    """Frames as the model sees them: ``pixels`` (F, 3, H, W) in [-1, 1], and ``depth_m`` (F, H, W), 0 where unknown.

    ``known_m`` is the true depth, which answers are about; ``depth_m`` is what the model is given.
    """

    pixels: Tensor
    depth_m: Tensor
    known_m: Tensor


@dataclass(frozen=True)
class Batch:
    """Marked pictures, rows of statistics (B, N, S), places (B, 2) and distances (B, 2) of the red and blue mark."""

    pixels: Tensor
    stats: Tensor
    places: Tensor
    distance_m: Tensor

    @property
    def lower_is_nearer(self) -> Tensor:
        """+1 where the lower mark is the nearer one, -1 where it is the farther one, 0 at equal heights."""
        rows = self.places // GRID
        return (rows[:, 0] - rows[:, 1]).sign() * (self.distance_m[:, 1] - self.distance_m[:, 0]).sign()


def own_colours(world: World, number: int, generator: torch.Generator) -> Batch:
    """Draw a batch of frames with their own RGB."""
    frames = torch.randint(len(world.pixels), (number,), generator=generator)
    return _marked(world.pixels[frames], world.depth_m[frames], world.known_m[frames], generator)


def unrelated_colours(world: World, number: int, generator: torch.Generator) -> Batch:
    """Draw a batch with the RGB of other frames, and depth scaled and turned, so that heights do not tell either."""
    count = len(world.pixels)
    frames = torch.randint(count, (number,), generator=generator)
    others = (frames + torch.randint(8, count - 8, (number,), generator=generator)) % count
    depth = world.depth_m[others] * torch.exp(0.3 * torch.randn(number, 1, 1, generator=generator))
    for turn in (lambda d: d.flip(-1), lambda d: d.flip(-2), lambda d: d.transpose(1, 2)):
        which = torch.rand(number, generator=generator) < 0.5
        depth = torch.where(which[:, None, None], turn(depth), depth)
    return _marked(world.pixels[frames], depth, depth, generator)


def _marked(pixels: Tensor, given_m: Tensor, known_m: Tensor, generator: torch.Generator) -> Batch:
    """Mark two patches that differ clearly in every frame that has such; the others are left out."""
    mean = depth_to_patch_stats(known_m, PATCH)[..., 0]
    ratio = (mean[:, :, None].clamp(min=1e-6) / mean[:, None, :].clamp(min=1e-6)).log().abs()
    known = (mean > 0)[:, :, None] & (mean > 0)[:, None, :]
    good = ((ratio > math.log(LEAST_RATIO)) & known).flatten(1)
    kept = good.any(dim=1)
    picked = torch.multinomial(good[kept].float(), 1, generator=generator)[:, 0]
    places = torch.stack([picked // NUM_PATCHES, picked % NUM_PATCHES], dim=1)
    stats = depth_to_patch_stats(given_m[kept], PATCH)
    return Batch(outline(pixels[kept], places, PATCH), stats, places, mean[kept].gather(1, places))


class DrawnExamples:
    """Examples that are drawn anew each time: half ask which mark is nearer, half how far one is.

    ``source`` draws a batch; ``shuffled`` gives each picture the statistics of another one. The first of a batch's
    draws seeds the batch.
    """

    def __init__(self, draw_batch: Any, world: World, words: TinyWords, depth: str) -> None:
        self.draw_batch, self.world, self.words, self.depth = draw_batch, world, words, depth

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, draw: Draw) -> Draw:
        return draw

    def collate(self, draws: list[Draw]) -> dict[str, Tensor]:
        """Return the model's arguments for a batch."""
        generator = torch.Generator().manual_seed(draws[0].index)
        batch = self.draw_batch(self.world, len(draws), generator)
        asked = torch.randint(4, (len(batch.pixels),), generator=generator).tolist()
        told = self.words.encode(*zip(*[_asked(batch, at, kind) for at, kind in enumerate(asked)], strict=True))
        shown = torch.tensor([draw.has_depth for draw in draws[: len(batch.pixels)]])
        stats = _given(batch, self.depth, generator) * shown[:, None, None]
        return {**told, "pixel_values": batch.pixels, "depth_stats": stats}


def _asked(batch: Batch, at: int, kind: int) -> tuple[str, str]:
    """Question and answer number ``kind`` of a picture: 0 and 1 the distance of a mark, 2 and 3 which is nearer."""
    red_m, blue_m = batch.distance_m[at].tolist()
    if kind > 1:
        return RELATIVE_WORDS, "red" if red_m < blue_m else "blue"
    text = METRIC_WORDS.format(colour=COLOURS[kind])
    return text, f"{distance_text((red_m, blue_m)[kind], Rounding.PREFERRED)} m"


def _given(batch: Batch, depth: str, generator: torch.Generator) -> Tensor:
    """Statistics that the model is given: all 0 for ``none``, those of other pictures for ``shuffled``."""
    if depth == "none":
        return torch.zeros_like(batch.stats)
    if depth == "shuffled":
        return batch.stats[torch.randperm(len(batch.stats), generator=generator)]
    return batch.stats


@torch.no_grad()
def first_answers(model: Any, words: TinyWords, batch: Batch, kind: int, stats: Tensor) -> Tensor:
    """Whether the first token of each answer is right, (B,) bool."""
    asked = [_asked(batch, at, kind) for at in range(len(batch.pixels))]
    told = words.encode(*zip(*asked, strict=True))
    labels = told.pop("labels")
    at = (labels != -100).int().argmax(dim=1)
    logits = model(**told, pixel_values=batch.pixels, depth_stats=stats).logits
    given = logits.gather(1, (at - 1)[:, None, None].expand(-1, 1, logits.shape[-1]))[:, 0].argmax(dim=-1)
    return given == labels.gather(1, at[:, None])[:, 0]


def measure(model: Any, words: TinyWords, draw_batch: Any, world: World, depth: str) -> dict[str, float]:
    """Accuracies on held-out frames: relative (also by cue and with the depth removed or shuffled) and metric."""
    found: dict[str, list[Tensor]] = {}

    def add(name: str, values: Tensor) -> None:
        found.setdefault(name, []).append(values.float())

    for number in range(8):
        generator = torch.Generator().manual_seed(10_000 + number)
        batch = draw_batch(world, 256, generator)
        stats = _given(batch, depth, generator)
        right = first_answers(model, words, batch, 2, stats)
        add("relative", right)
        add("consistent", right[batch.lower_is_nearer > 0])
        add("counter", right[batch.lower_is_nearer < 0])
        add("metric", first_answers(model, words, batch, 0, stats))
        add("removed", first_answers(model, words, batch, 2, torch.zeros_like(stats)))
        other = stats[torch.randperm(len(stats), generator=generator)]
        add("shuffled", first_answers(model, words, batch, 2, other))
    return {name: round(float(torch.cat(values).mean()), 4) for name, values in found.items()}


def train(base: Any, examples: DrawnExamples, steps: int, seed: int, folder: Path) -> Any:
    """Give a copy of the base model depth and an adapter, and train both."""
    from peft import LoraConfig, get_peft_model

    from mvde.vlm import DepthConfig, add_depth

    model = add_depth(copy.deepcopy(base), DepthConfig(hidden=64))
    torch.manual_seed(seed)
    layers = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=rf".*language_model.*\.({layers})",
        modules_to_save=["depth_embedder"]))
    settings = TrainingSettings(embedder_steps=0, steps=steps, batch_size=64, lr=4e-3, warmup_steps=30,
        drop_depth=DROPPED, seed=seed, save_every=steps, log_every=100)
    VlmTraining(adapted, examples, settings, folder).run(
        lambda step, num_steps, values: print(f"# {step} {values['loss']:.3f} cpu {time.process_time():.0f}", flush=True))
    return adapted.eval()
DROPPED = 0.15
if __name__ == "__main__":
    import sys
    torch.set_num_threads(1)
    from transformers import LlavaForConditionalGeneration
    base = LlavaForConditionalGeneration.from_pretrained("/tmp/vl_base")
    def world(root, pixels):
        f = SyntheticFrames(root); d = torch.stack([torch.from_numpy(f.frame(i)[1]) for i in range(len(f))])
        d = F.avg_pool2d(d[:, None], 192 // SIZE)[:, 0]
        return World(pixels, d, d)
    z = np.load("/tmp/vl_px.npz")
    tr, te = world("/tmp/vl_synth/train", torch.from_numpy(z["X"])), world("/tmp/vl_synth/test", torch.from_numpy(z["Y"]))
    words = TinyWords()
    mode, steps = sys.argv[1], int(sys.argv[2])
    DROPPED = float(sys.argv[3])
    c = time.process_time()
    with tempfile.TemporaryDirectory() as t:
        m = train(base, DrawnExamples(unrelated_colours, tr, words, mode), steps, 0, Path(t))
    print(time.process_time() - c, measure(m, words, unrelated_colours, te, mode))
