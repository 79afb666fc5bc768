"""Does depth reach a vision-language model, and is it used? A tiny model on rendered frames, in minutes on a CPU.

`unrelated`: the RGB is that of another frame, so that it cannot help. The model is trained with the true depth, with
none, and with that of shuffled pictures. `merging` is the same through a tower whose patches are merged by 2×2. `own`:
the frame's own RGB, with none and with the depth that the shipped model predicts, counted apart for questions that
height in the picture answers (consistent) and that it answers wrongly (counter).

    mvde data synth --count 512 --size 192x192 --seed 5 --out build/vlm/train
    mvde data synth --count 128 --size 192x192 --seed 5 --split test --out build/vlm/test
    python benchmarks/vlm.py --frames build/vlm/train --test-frames build/vlm/test --seeds 3

One JSON line for each training: accuracies on held-out frames, of which 2,048 are drawn, and CPU seconds.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mvde.assets import shipped_checkpoint
from mvde.camera import Camera
from mvde.datasets.synthetic import SyntheticDataset
from mvde.pipelines.eval_depth import open_source
from mvde.stats import depth_to_patch_stats
from mvde.vlm import DepthConfig, add_depth, add_lora
from mvde.vlm.choices import Rounding
from mvde.vlm.questions import COLOURS, METRIC_WORDS, RELATIVE_WORDS, distance_text
from mvde.vlm.tiny import (
    GRID,
    NUM_PATCHES,
    PATCH,
    PRETRAINING_STEPS,
    SIZE,
    TinyWords,
    learn_to_look,
    outline,
    picture_arguments,
    tiny_merging_model,
    tiny_model,
)
from mvde.vlm.training import IGNORED, Draw, TrainingSettings, VlmTraining
from mvde.vlm.training_setup import adapted_layers

LEAST_RATIO = 1.15
NUM_BATCHES, BATCH = 8, 256
NUM_KINDS = 3


@dataclass(frozen=True)
class World:
    """Frames as a model sees them: ``pixels`` (F, 3, H, W) in [-1, 1], and depth (F, H, W) in metres, 0 where unknown.

    ``known_m`` is the true depth, which answers are about; ``given_m`` is what the model is given.
    """

    pixels: Tensor
    given_m: Tensor
    known_m: Tensor


@dataclass(frozen=True)
class Batch:
    """Marked pictures, rows of statistics (B, N, S), places (B, 2) and distances (B, 2) of the red and blue mark."""

    pixels: Tensor
    stats: Tensor
    places: Tensor
    distance_m: Tensor

    @property
    def cue(self) -> Tensor:
        """+1 where the lower mark is the nearer one (consistent), -1 where it is not (counter), 0 at equal heights."""
        rows = self.places // GRID
        return (rows[:, 0] - rows[:, 1]).sign() * (self.distance_m[:, 1] - self.distance_m[:, 0]).sign()


DrawBatch = Callable[[World, int, torch.Generator], Batch]


def own_colours(world: World, number: int, generator: torch.Generator) -> Batch:
    """Draw a batch of frames with their own RGB."""
    frames = torch.randint(len(world.pixels), (number,), generator=generator)
    return marked(world.pixels[frames], world.given_m[frames], world.known_m[frames], generator)


def unrelated_colours(world: World, number: int, generator: torch.Generator) -> Batch:
    """Draw a batch with the RGB of other frames, and depth scaled, turned and shifted, so that no place tells.

    The middle of a room is farther than its walls: turned alone, the places of two marks tell the nearer one in 64 %.
    """
    count = len(world.pixels)
    frames = torch.randint(count, (number,), generator=generator)
    others = (frames + torch.randint(8, count - 8, (number,), generator=generator)) % count
    depth_m = world.known_m[others] * torch.exp(0.3 * torch.randn(number, 1, 1, generator=generator))
    for turned in (depth_m.flip(-1), depth_m.flip(-2), depth_m.transpose(1, 2)):
        which = torch.rand(number, generator=generator) < 0.5
        depth_m = torch.where(which[:, None, None], turned, depth_m)
    depth_m = shifted(depth_m, generator)
    return marked(world.pixels[frames], depth_m, depth_m, generator)


def shifted(depth_m: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each map (B, H, W) by whole cells; what leaves it on one side enters on the other."""
    for axis, size in ((1, depth_m.shape[1]), (2, depth_m.shape[2])):
        by = torch.randint(GRID, (len(depth_m), 1), generator=generator) * (size // GRID)
        source = (torch.arange(size) + by) % size
        depth_m = depth_m.gather(axis, source.unsqueeze(3 - axis).expand_as(depth_m))
    return depth_m


def marked(pixels: Tensor, given_m: Tensor, known_m: Tensor, generator: torch.Generator) -> Batch:
    """Mark two cells that differ clearly in every frame that has such; the others are left out."""
    side = pixels.shape[-1] // GRID
    mean = depth_to_patch_stats(known_m, side)[..., 0]
    ratio = (mean[:, :, None].clamp(min=1e-6) / mean[:, None, :].clamp(min=1e-6)).log().abs()
    known = (mean > 0)[:, :, None] & (mean > 0)[:, None, :]
    good = ((ratio > math.log(LEAST_RATIO)) & known).flatten(1)
    kept = good.any(dim=1)
    picked = torch.multinomial(good[kept].float(), 1, generator=generator)[:, 0]
    places = torch.stack([picked // NUM_PATCHES, picked % NUM_PATCHES], dim=1)
    stats = depth_to_patch_stats(given_m[kept], PATCH)
    return Batch(outline(pixels[kept], places, side), stats, places, mean[kept].gather(1, places))


@dataclass(frozen=True)
class DrawnExamples:
    """Conversations that are drawn anew each time: how far either mark is and which is nearer, in any order.

    ``depth`` is ``true``, ``none`` or ``shuffled``. The first of a batch's draws seeds the batch.
    """

    model: Any
    draw_batch: DrawBatch
    world: World
    words: TinyWords
    depth: str

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, draw: Draw) -> Draw:
        return draw

    def collate(self, draws: list[Draw]) -> dict[str, Tensor]:
        """Return the model's arguments for a batch."""
        generator = torch.Generator().manual_seed(draws[0].index)
        batch = self.draw_batch(self.world, len(draws), generator)
        orders = torch.rand(len(batch.pixels), NUM_KINDS, generator=generator).argsort(dim=1).tolist()
        told = self.words.encode([[asked(batch, at, kind) for kind in order] for at, order in enumerate(orders)])
        shown = torch.tensor([draw.has_depth for draw in draws[: len(batch.pixels)]])
        stats = given(batch, self.depth, generator) * shown[:, None, None]
        return told | arguments(self.model, batch, stats)


def arguments(model: Any, batch: Batch, stats: Tensor) -> dict[str, Tensor]:
    """Arguments of a model for pictures and their statistics."""
    pictures = picture_arguments(model, batch.pixels)
    return pictures | {"depth_stats": stats[:, None] if pictures["pixel_values"].ndim == 5 else stats}


def asked(batch: Batch, at: int, kind: int) -> tuple[str, str]:
    """Question and answer of a picture: kinds 0 and 1 are the distance of a mark, 2 is which one is nearer."""
    distances_m = batch.distance_m[at].tolist()
    if kind > 1:
        return RELATIVE_WORDS, COLOURS[int(np.argmin(distances_m))]
    text = METRIC_WORDS.format(colour=COLOURS[kind])
    return text, f"{distance_text(distances_m[kind], Rounding.PREFERRED)} m"


def given(batch: Batch, depth: str, generator: torch.Generator) -> Tensor:
    """Statistics that the model is given: all 0 for ``none``, those of other pictures for ``shuffled``."""
    if depth == "none":
        return torch.zeros_like(batch.stats)
    if depth == "shuffled":
        return batch.stats[torch.randperm(len(batch.stats), generator=generator)]
    return batch.stats


@torch.no_grad()
def right_answers(model: Any, words: TinyWords, batch: Batch, kind: int, stats: Tensor) -> Tensor:
    """Whether the most probable first token of each answer is the right one, (B,) bool."""
    told = words.encode([[asked(batch, at, kind)] for at in range(len(batch.pixels))])
    labels = told.pop("labels")
    at = (labels != IGNORED).int().argmax(dim=1)
    logits = model(**told, **arguments(model, batch, stats)).logits
    chosen = logits[torch.arange(len(at)), at - 1].argmax(dim=-1)
    right: Tensor = chosen == labels[torch.arange(len(at)), at]
    return right


def measure(model: Any, examples: DrawnExamples, world: World) -> dict[str, float]:
    """Accuracies on held-out frames: which is nearer (also by cue, depth removed and shuffled), and the distance."""
    found: dict[str, list[Tensor]] = {}
    for number in range(NUM_BATCHES):
        generator = torch.Generator().manual_seed(10_000 + number)
        batch = examples.draw_batch(world, BATCH, generator)
        stats = given(batch, examples.depth, generator)
        others = stats[torch.randperm(len(stats), generator=generator)]
        right = right_answers(model, examples.words, batch, 2, stats)
        parts = {
            "nearer": right,
            "consistent": right[batch.cue > 0],
            "counter": right[batch.cue < 0],
            "distance": right_answers(model, examples.words, batch, 0, stats),
            "depth_removed": right_answers(model, examples.words, batch, 2, torch.zeros_like(stats)),
            "depth_of_others": right_answers(model, examples.words, batch, 2, others),
        }
        for name, values in parts.items():
            found.setdefault(name, []).append(values.float())
    return {name: round(float(torch.cat(values).mean()), 4) for name, values in found.items()}


def train(base: Any, examples: DrawnExamples, steps: int, seed: int) -> Any:
    """Give a copy of the base model depth and an adapter, and train both; return it."""
    torch.manual_seed(seed)
    model = add_depth(copy.deepcopy(base), DepthConfig(hidden=64))
    adapted = add_lora(model, 8, 16.0, adapted_layers(model))
    settings = TrainingSettings(
        embedder_steps=0, steps=steps, batch_size=BATCH_SIZE, lr=4e-3, warmup_steps=30, seed=seed, save_every=steps,
        log_every=100,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        VlmTraining(adapted, examples, settings, Path(folder)).run(lambda step, num_steps, values: None)
    return adapted.eval()


def read_world(folder: Path, size: int, predicted: bool) -> World:
    """Frames of a synthetic folder at ``size`` pixels, given the true depth or that of the shipped model."""
    frames = SyntheticDataset(folder)
    samples = [frames[number] for number in range(len(frames))]
    factor = samples[0].rgb.shape[0] // size
    rgb = torch.stack([torch.from_numpy(one.rgb) for one in samples]).permute(0, 3, 1, 2).float()
    known = _smaller(torch.stack([torch.from_numpy(one.depth_m) for one in samples]), factor)
    depth = known
    if predicted:
        predict = open_source(str(shipped_checkpoint()), None, None).predict
        cameras: list[Camera | None] = [one.camera for one in samples]
        maps = [predict([one.rgb], [camera])[0] for one, camera in zip(samples, cameras, strict=True)]
        depth = _smaller(torch.stack([torch.from_numpy(one) for one in maps]), factor)
    return World(F.avg_pool2d(rgb, factor) / 127.5 - 1, depth, known)


def _smaller(depth_m: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(depth_m[:, None], factor)[:, 0]


DEPTHS = ("true", "none", "shuffled")
STEPS, BATCH_SIZE = 1000, 32


@dataclass(frozen=True)
class Part:
    """What is trained: how batches are drawn, with which depth, and a model that sees pictures of ``size`` pixels."""

    draw_batch: DrawBatch
    depths: tuple[str, ...]
    make_model: Callable[[], Any]
    size: int
    is_predicted: bool


PARTS = {
    "unrelated": Part(unrelated_colours, DEPTHS, tiny_model, SIZE, is_predicted=False),
    "merging": Part(unrelated_colours, ("true",), tiny_merging_model, 2 * SIZE, is_predicted=False),
    "own": Part(own_colours, ("none", "true"), tiny_model, SIZE, is_predicted=True),
}


class Trainings:
    """Trainings on the frames of one folder, measured on those of another; worlds and base models are made once."""

    def __init__(self, frames: Path, test_frames: Path, pretraining: int = PRETRAINING_STEPS) -> None:
        self._folders, self._pretraining = (frames, test_frames), pretraining
        self._worlds: dict[tuple[int, bool], tuple[World, World]] = {}
        self._bases: dict[Callable[[], Any], Any] = {}

    def figures(self, name: str, depth: str, seed: int, steps: int = STEPS) -> dict[str, float]:
        """Train a model of a part with a depth, and measure it; ``cpu_s`` is the training's."""
        part = PARTS[name]
        seen, held_out = self.worlds(part.size, part.is_predicted)
        base = self.base(part.make_model, seen)
        examples = DrawnExamples(base, part.draw_batch, seen, TinyWords(), depth)
        started = time.process_time()
        model = train(base, examples, steps, seed)
        cpu_s = round(time.process_time() - started, 1)
        return {"cpu_s": cpu_s, **measure(model, examples, held_out)}

    def worlds(self, size: int, is_predicted: bool) -> tuple[World, World]:
        """Frames to train and to test on, at ``size`` pixels."""
        key = size, is_predicted
        if key not in self._worlds:
            seen, held_out = (read_world(folder, size, is_predicted) for folder in self._folders)
            self._worlds[key] = seen, held_out
        return self._worlds[key]

    def base(self, make_model: Callable[[], Any], seen: World) -> Any:
        """Return the model that has learned to see the marks, and nothing of depth."""
        if make_model not in self._bases:
            model = make_model()
            learn_to_look(model, seen.pixels, self._pretraining)
            self._bases[make_model] = model
        return self._bases[make_model]


def main() -> None:
    """Train and measure; print one JSON line for each training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, required=True, help="Synthetic frames to train on, 192x192.")
    parser.add_argument("--test-frames", type=Path, required=True, help="Synthetic frames of other scenes.")
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of each kind.")
    parser.add_argument("--steps", type=int, default=STEPS, help="Steps of a training.")
    parser.add_argument("--pretraining", type=int, default=PRETRAINING_STEPS, help="Steps of learning to see marks.")
    parser.add_argument("--part", choices=tuple(PARTS), action="append", help="Part to run. Default: all.")
    parser.add_argument("--depth", choices=DEPTHS, action="append", help="Depth to train with. Default: all of a part.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trainings = Trainings(options.frames, options.test_frames, options.pretraining)
    for name in options.part or tuple(PARTS):
        for depth in [depth for depth in PARTS[name].depths if depth in (options.depth or DEPTHS)]:
            named = "predicted" if PARTS[name].is_predicted and depth == "true" else depth
            for seed in range(options.seeds):
                found = trainings.figures(name, depth, seed, options.steps)
                print(json.dumps({"part": name, "depth": named, "seed": seed, **found}), flush=True)


if __name__ == "__main__":
    main()
