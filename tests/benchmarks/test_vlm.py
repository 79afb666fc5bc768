"""The benchmark of depth in a tiny vision-language model: what it draws, trains and counts, in a few steps."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

from mvde.vlm.tiny import GRID, TinyWords, learn_to_look, tiny_merging_model, tiny_model  # noqa: E402


@pytest.fixture(scope="module")
def script() -> Any:
    """Names of the script, as attributes."""
    torch.set_num_threads(1)
    path = Path(__file__).parents[2] / "benchmarks/vlm.py"
    return type("Script", (), {name: staticmethod(value) if callable(value) and not isinstance(value, type) else value
                               for name, value in runpy.run_path(str(path)).items()})  # fmt: skip


def world(script: Any, size: int) -> Any:
    """Frames of 4x4 cells at random distances, and noise as RGB."""
    generator = torch.Generator().manual_seed(0)
    depth_m = torch.rand(20, GRID, GRID, generator=generator) * 4 + 0.5
    depth_m = depth_m.repeat_interleave(size // GRID, 1).repeat_interleave(size // GRID, 2)
    return script.World(torch.rand(20, 3, size, size, generator=generator) * 2 - 1, depth_m, depth_m)


def test_marks_differ_clearly_and_state_the_distance_of_their_cells(script: Any) -> None:
    frames = world(script, 32)
    batch = script.own_colours(frames, 64, torch.Generator().manual_seed(1))
    ratio = (batch.distance_m[:, 0] / batch.distance_m[:, 1]).log().abs()
    assert float(ratio.min()) > math.log(1.15)
    torch.testing.assert_close(batch.stats[..., 0].gather(1, batch.places), batch.distance_m)
    lower = torch.where(batch.places[:, 0] // GRID > batch.places[:, 1] // GRID, 0, 1)
    nearer = batch.distance_m.argmin(dim=1)
    level = batch.places[:, 0] // GRID == batch.places[:, 1] // GRID
    assert torch.equal(batch.cue == 1, (lower == nearer) & ~level)
    assert torch.equal(batch.cue == 0, level)


def test_unrelated_colours_tell_nothing_of_the_depth(script: Any) -> None:
    """The cell of a frame's RGB that is brightest is nearer as often as not."""
    frames = world(script, 32)
    frames = script.World(-frames.known_m[:, None].expand(-1, 3, -1, -1) / 5, frames.known_m, frames.known_m)
    right = []
    for seed in range(20):
        batch = script.unrelated_colours(frames, 64, torch.Generator().manual_seed(seed))
        middle = batch.pixels.mean(1).unfold(1, 8, 8).unfold(2, 8, 8)[..., 4, 4].flatten(1)  # within the outlines
        right.append(middle.gather(1, batch.places).argmax(1) == batch.distance_m.argmin(1))
    assert 0.4 < float(torch.cat(right).float().mean()) < 0.6


def test_places_tell_nothing_of_unrelated_depth(script: Any) -> None:
    """In rooms whose middle is farther than their border, a mark at the border is nearer as often as not."""
    border = torch.tensor([[1.0, 1, 1, 1], [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1]])
    depth_m = border.repeat_interleave(8, 0).repeat_interleave(8, 1).expand(20, -1, -1)
    frames = script.World(torch.zeros(20, 3, 32, 32), depth_m, depth_m)
    right = []
    for seed in range(20):
        batch = script.unrelated_colours(frames, 64, torch.Generator().manual_seed(seed))
        is_border = (border == 1).flatten()[batch.places]
        told = is_border[:, 0] != is_border[:, 1]
        right.append((is_border[:, 0] == (batch.distance_m[:, 0] < batch.distance_m[:, 1]))[told])
    assert len(torch.cat(right)) > 400
    assert 0.43 < float(torch.cat(right).float().mean()) < 0.57


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "size"), [(tiny_model, 32), pytest.param(tiny_merging_model, 64, marks=pytest.mark.extended)]
)
def test_both_models_train_and_are_measured(script: Any, make: Any, size: int) -> None:
    frames, model = world(script, size), make()
    learn_to_look(model, frames.pixels, steps=2)
    examples = script.DrawnExamples(model, script.unrelated_colours, frames, TinyWords(), "true")
    trained = script.train(model, examples, 2, 0)
    found = script.measure(trained, examples, frames)
    assert set(found) == {"nearer", "consistent", "counter", "distance", "depth_removed", "depth_of_others"}
    assert all(0 <= value <= 1 for value in found.values())
    nothing = script.given(script.own_colours(frames, 4, torch.Generator().manual_seed(0)), "none", None)
    assert not nothing.any()
