"""Diverging training stops with an actionable error and keeps the last good state."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from mvde.errors import DatasetError, TrainingError  # noqa: E402
from mvde.losses import depth_loss  # noqa: E402
from mvde.pipelines import watch  # noqa: E402
from mvde.pipelines.train_depth import DepthTrainingPipeline  # noqa: E402

Maker = Callable[..., dict[str, Any]]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def break_step(monkeypatch: pytest.MonkeyPatch, step: int, what: str) -> None:
    """Make the loss of one step NaN, or one of its gradients infinite."""
    pipeline = DepthTrainingPipeline
    update = pipeline._update
    now = [0]

    def loss(*arguments: Any) -> Any:
        total, parts = depth_loss(*arguments)
        if now[0] != step:
            return total, parts
        return (total * float("nan"), parts) if what == "loss" else (_with_infinite_gradient(total), parts)

    def counting(self: DepthTrainingPipeline, *batch: Any) -> Any:
        now[0] = self.progress.step
        return update(self, *batch)

    monkeypatch.setattr("mvde.pipelines.train_depth.depth_loss", loss)
    monkeypatch.setattr(pipeline, "_update", counting)


def _with_infinite_gradient(total: Any) -> Any:
    total.register_hook(lambda gradient: gradient * float("inf"))
    return total


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    tiny_config: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    DepthTrainingPipeline(tiny_config(steps=2)).train(tmp_path)
    before = files(tmp_path)
    with monkeypatch.context() as patched:
        break_step(patched, 3, what)
        pipeline = DepthTrainingPipeline(tiny_config(steps=6))
        with pytest.raises(TrainingError, match=rf"step 4, .*{what}.*after step 2.*train\.lr"):
            pipeline.train(tmp_path)
    assert files(tmp_path) == before
    assert all(torch.isfinite(p).all() for p in pipeline.model.parameters())  # the bad step was not applied
    assert DepthTrainingPipeline(tiny_config(steps=6)).train(tmp_path).step == 6  # resumes from the last good state


@pytest.mark.parametrize("steps", [1, 6])
def test_a_rate_far_too_high_writes_nothing(tiny_config: Maker, tmp_path: Path, steps: int) -> None:
    config = tiny_config(lr=1e30, steps=steps, warmup_steps=0, schedule="constant", checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"not finite.*no state was saved; lower train\.lr") as caught:
        DepthTrainingPipeline(config).train(tmp_path)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == {}


def wrong_scale(tiny_config: Maker, **train: Any) -> dict[str, Any]:
    config = tiny_config(**train)
    config["data"]["depth_scale"] = 1.0  # millimetres read as metres
    return config


@pytest.mark.parametrize("train", [{"steps": 2}, {"steps": 500, "res": [16, 16]}])
def test_data_without_valid_depth_is_refused_by_name(
    tiny_config: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any]
) -> None:
    assert watch.MOST_STEPS_WITHOUT_DEPTH <= 100
    monkeypatch.setattr(watch, "MOST_STEPS_WITHOUT_DEPTH", 5)
    config = wrong_scale(tiny_config, **train)
    del config["data"]["val"]
    with pytest.raises(DatasetError) as caught:
        DepthTrainingPipeline(config).train(tmp_path)
    message = str(caught.value)
    assert config["data"]["train"] in message
    assert "depth_scale" in message
    assert "0.1 to 10 m" in message
    assert re.search(r"hold depth of \d{3,4}[.\d]* to \d{4}[.\d]* m", message)  # the range found
    assert files(tmp_path) == {}
    assert f"{min(train['steps'], 5)} steps in a row" in message


def test_validation_data_without_valid_depth_is_named(tiny_config: Maker, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for kind, array in (("rgb", np.zeros((32, 32, 3), np.uint8)), ("depth", np.zeros((32, 32), np.uint16))):
        (tmp_path / "blank" / kind).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "blank" / kind / "0.png")
    config = tiny_config(steps=2)
    config["data"]["val"] = str(tmp_path / "blank")
    with pytest.raises(DatasetError, match=r"blank.*no frame"):
        DepthTrainingPipeline(config).train(tmp_path / "run")
