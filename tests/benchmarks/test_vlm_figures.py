"""What the tiny model must reach with depth, by training it on rendered rooms: a minute for each training.

Chance is a half for which of two marks is nearer, since their places are balanced and RGB is another frame's; the
commonest distance is right in one of eight.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("accelerate")
pytest.importorskip("moderngl")

pytestmark = pytest.mark.extended

Figures = Callable[[str, str, int], dict[str, float]]

SEEDS = (0, 1, 2)
NUM_FRAMES = {"train": 512, "test": 128}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Figures]:
    """Return the figures of a part, a depth and a seed; each training runs once."""
    from mvde.datasets.synth.renderer import create_context
    from mvde.datasets.synthetic import generate
    from mvde.errors import BackendError

    try:
        create_context().release()
    except BackendError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("rendered")
    for split, count in NUM_FRAMES.items():
        generate(root / split, count, size=(192, 192), seed=5, split=split)
    script: Any = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/vlm.py"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainings = script["Trainings"](root / "train", root / "test")
    yield cache(trainings.figures)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_that_colours_cannot_tell_is_read(figures: Figures, seed: int) -> None:
    assert figures("unrelated", "true", seed)["nearer"] >= 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_without_the_depth_of_the_picture_answers_are_chance(figures: Figures, seed: int) -> None:
    found = figures("unrelated", "true", seed)
    assert found["depth_removed"] <= 0.55
    assert found["depth_of_others"] <= 0.60


@pytest.mark.parametrize("seed", SEEDS)
def test_distances_are_told_in_metres(figures: Figures, seed: int) -> None:
    assert figures("unrelated", "true", seed)["distance"] >= 0.60


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", ["none", "shuffled"])
def test_nothing_is_learned_without_depth_of_the_picture(figures: Figures, depth: str, seed: int) -> None:
    assert figures("unrelated", depth, seed)["nearer"] <= 0.60


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_is_aligned_through_a_tower_that_merges_patches(figures: Figures, seed: int) -> None:
    assert figures("merging", "true", seed)["nearer"] >= 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_predicted_depth_answers_what_height_in_the_picture_does_not(figures: Figures, seed: int) -> None:
    """RGB is the frame's own, so that lower is mostly nearer: a model that looks no further fails on the counter."""
    found = figures("own", "true", seed)
    assert found["nearer"] >= 0.93
    assert found["counter"] >= 0.85
    assert abs(found["consistent"] - found["counter"]) <= 0.10
