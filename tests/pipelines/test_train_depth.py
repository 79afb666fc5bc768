"""End-to-end training of a tiny model: convergence, freezing, bit-identical resume, and clean stop."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from mvde.errors import CheckpointError, ConfigError, DatasetError, OutputError, UsageError  # noqa: E402
from mvde.model import DepthModel  # noqa: E402
from mvde.pipelines import train_depth  # noqa: E402
from mvde.pipelines.train_depth import DepthTrainingPipeline  # noqa: E402

Maker = Callable[..., dict[str, Any]]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def assert_same_files(first: Path, second: Path) -> None:
    for name in ("last.safetensors", "state.safetensors"):
        ours, theirs = weights(first / name), weights(second / name)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send SIGINT to this process during update number ``step``."""
    update = DepthTrainingPipeline._update

    def interrupting(self: DepthTrainingPipeline, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, *batch)

    monkeypatch.setattr(DepthTrainingPipeline, "_update", interrupting)


def test_training_lowers_the_error_and_writes_loadable_weights(tiny_config: Maker, tmp_path: Path) -> None:
    config = tiny_config(steps=60, validate_every=1, lr=5e-3, backbone_lr_scale=1.0)
    start = DepthTrainingPipeline({**config, "train": {**config["train"], "steps": 1}}).train(tmp_path / "start")
    result = DepthTrainingPipeline({**config, "train": {**config["train"], "validate_every": 20}}).train(
        tmp_path / "run"
    )
    assert result.step == result.num_steps == 60
    assert not result.interrupted
    assert result.metrics["abs_rel"] < 0.75 * start.metrics["abs_rel"]
    for name in ("best.safetensors", "last.safetensors"):
        model = DepthModel.load(tmp_path / "run" / name)
        assert model.config.name == "tiny"
        assert torch.isfinite(model.predict_depth(torch.rand(1, 3, 32, 48))).all()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_resumes_with_identical_results(
    tiny_config: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    stages = [{"steps": 4, "res": [32], "batch_size": 4}, {"steps": 4, "res": ["32x48", "48"], "batch_size": 3}]
    config = tiny_config(optimizer=optimizer, stages=stages, freeze_backbone_steps=2, validate_every=3)
    DepthTrainingPipeline(config).train(tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        stopped = DepthTrainingPipeline(config).train(tmp_path / "parts")
    assert (stopped.step, stopped.interrupted) == (5, True)
    resumed = DepthTrainingPipeline(config).train(tmp_path / "parts")
    assert (resumed.step, resumed.interrupted) == (8, False)
    assert_same_files(tmp_path / "whole", tmp_path / "parts")


def test_a_second_ctrl_c_stops_at_once_and_the_handler_is_given_back(
    tiny_config: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(self: DepthTrainingPipeline, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal must interrupt")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(DepthTrainingPipeline, "_update", twice)
    with pytest.raises(KeyboardInterrupt):
        DepthTrainingPipeline(tiny_config()).train(tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_backbone_does_not_move_while_it_is_frozen(tiny_config: Maker, tmp_path: Path) -> None:
    pipeline = DepthTrainingPipeline(tiny_config(steps=3, freeze_backbone_steps=3))
    before = {name: p.detach().clone() for name, p in pipeline.model.named_parameters()}
    pipeline.train(tmp_path / "frozen")
    moved = {name for name, p in pipeline.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)
    pipeline = DepthTrainingPipeline(tiny_config(steps=3, freeze_backbone_steps=2))
    pipeline.train(tmp_path / "unfrozen")
    assert any(
        name.startswith("backbone.") and not torch.equal(p, before[name])
        for name, p in pipeline.model.named_parameters()
    )


def test_a_finished_run_is_left_as_it_is(tiny_config: Maker, tmp_path: Path) -> None:
    config = tiny_config(steps=2)
    DepthTrainingPipeline(config).train(tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    assert DepthTrainingPipeline(config).train(tmp_path).step == 2
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_longer_configuration_goes_on_and_says_what_changed(
    tiny_config: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DepthTrainingPipeline(tiny_config(steps=2)).train(tmp_path)
    assert DepthTrainingPipeline(tiny_config(steps=3)).train(tmp_path).step == 3
    assert "after step 2, with other values of train.steps" in capsys.readouterr().out


def test_a_state_of_another_architecture_or_optimiser_is_refused(tiny_config: Maker, tmp_path: Path) -> None:
    DepthTrainingPipeline(tiny_config(steps=1)).train(tmp_path)
    other = tiny_config(steps=2)
    other["decoder"] = {"c_dec": 24}
    with pytest.raises(CheckpointError, match=r"state\.safetensors was written by a run with another model"):
        DepthTrainingPipeline(other).train(tmp_path)
    with pytest.raises(CheckpointError, match="optimiser"):
        DepthTrainingPipeline(tiny_config(steps=2, optimizer="muon")).train(tmp_path)
    state = tmp_path / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a readable training state: .* it was damaged"):
        DepthTrainingPipeline(tiny_config(steps=2)).train(tmp_path)
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable training state"):
        DepthTrainingPipeline(tiny_config(steps=2)).train(tmp_path)


def test_a_run_may_start_from_a_checkpoint_of_its_architecture(tiny_config: Maker, tmp_path: Path) -> None:
    DepthTrainingPipeline(tiny_config(steps=2)).train(tmp_path / "first")
    start = tmp_path / "first" / "last.safetensors"
    pipeline = DepthTrainingPipeline(tiny_config(init_checkpoint=str(start)))
    assert pipeline.model.config.train.init_checkpoint == str(start)
    given = weights(start)
    assert all(torch.equal(p, given[name]) for name, p in pipeline.model.named_parameters())
    other = tiny_config(init_checkpoint=str(start))
    other["decoder"] = {"c_dec": 24}
    with pytest.raises(CheckpointError, match=r"decoder\.c_dec = 16"):
        DepthTrainingPipeline(other)


def test_the_state_holds_data_only_and_the_configuration(tiny_config: Maker, tmp_path: Path) -> None:
    DepthTrainingPipeline(tiny_config(steps=1)).train(tmp_path)
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        header = json.loads(file.metadata()["mvde"])
    assert header["progress"]["step"] == 1
    assert header["config"]["train"]["lr"] == 2e-3


def test_tensorboard_gets_losses_and_metrics(tiny_config: Maker, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    DepthTrainingPipeline(tiny_config(steps=2, tracker="tensorboard", validate_every=1)).train(tmp_path)
    events = accumulator.EventAccumulator(str(next((tmp_path / "logs").rglob("events.*")).parent)).Reload()
    assert {"train/loss", "train/silog", "train/lr", "val/abs_rel", "val/delta1"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]


def test_wrong_configurations_and_empty_data_are_errors_before_the_first_step(
    tiny_config: Maker, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        DepthTrainingPipeline(tiny_config(learning_rate=1))
    config = tiny_config(tracker="tensorboard")
    config["data"] = {"format": "folder", "train": str(tmp_path / "none")}
    with pytest.raises(DatasetError, match="none"):
        DepthTrainingPipeline(config).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()  # no tracker logs either


def test_a_disk_that_fills_under_the_trackers_log_is_one_error(
    tiny_config: Maker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write to .*run: File too large; free disk space"):
            DepthTrainingPipeline(tiny_config(steps=2, tracker="tensorboard")).train(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_one_error_and_leaves_the_older_state(tiny_config: Maker, tmp_path: Path) -> None:
    def train(steps: int) -> None:
        config = tiny_config(steps=steps)
        del config["data"]["val"]  # so that the weights are the first file written
        DepthTrainingPipeline(config).train(tmp_path)

    train(steps=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # writes beyond that fail, as on a full disk
    try:
        with pytest.raises(OutputError, match=r"cannot write .*last\.safetensors.*no partial file was left"):
            train(steps=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_accumulated_gradients_are_those_of_the_whole_batch(tiny_config: Maker, tmp_path: Path) -> None:
    for accumulation in (1, 4):
        config = tiny_config(steps=3, accumulation=accumulation)
        DepthTrainingPipeline(config).train(tmp_path / str(accumulation))
    whole, pieces = (weights(tmp_path / name / "last.safetensors") for name in ("1", "4"))
    for name, value in whole.items():
        # Adam normalises gradients, so rounding of a tiny one can become a fraction of a step (2e-3).
        torch.testing.assert_close(pieces[name], value, rtol=0, atol=2e-3)
    gradients = [weights(tmp_path / name / "state.safetensors") for name in ("1", "4")]
    averages = [key for key in gradients[0] if key.endswith("exp_avg")]
    assert len(averages) > 10
    for key in averages:  # means of gradients; keys' biases have none but rounding, 1e-12
        error = torch.linalg.norm(gradients[1][key] - gradients[0][key])
        assert error <= 0.02 * torch.linalg.norm(gradients[0][key]) + 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulation": 0}, "accumulation must be positive, but got 0"),
        ({"accumulation": 3}, r"gives each of 1 processes 4 frames.*3 equal pieces.*multiple of 3"),
    ],
)
def test_an_accumulation_that_does_not_divide_the_batch_is_refused(
    tiny_config: Maker, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        DepthTrainingPipeline(tiny_config(**changes)).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_relative_depth_is_trained_without_scale_or_refused(tiny_config: Maker, tmp_path: Path) -> None:
    config = tiny_config(steps=1)
    config["decoder"] = {"c_dec": 16, "scale_invariant": True}
    with pytest.raises(ConfigError, match="silog_lambda to 1"):
        DepthTrainingPipeline(config)
    config["train"]["loss"] = {"silog_lambda": 1.0}
    assert DepthTrainingPipeline(config).train(tmp_path).metrics["abs_rel"] < 1


def test_bf16_autocast_trains_in_bf16_and_keeps_float32_weights(
    tiny_config: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = train_depth.DepthModel.forward

    def spying(self: DepthModel, images: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"))
        return forward(self, images)

    monkeypatch.setattr(train_depth.DepthModel, "forward", spying)
    DepthTrainingPipeline(tiny_config(steps=1, autocast="bf16")).train(tmp_path)
    assert seen[0] == torch.bfloat16  # validation follows, in float32
    assert {t.dtype for t in weights(tmp_path / "last.safetensors").values()} == {torch.float32}


TOKEN_STAGES = [
    {"steps": 40, "res": [32], "batch_size": 4, "supervise": "tokens"},
    {"steps": 4, "res": [32], "batch_size": 4},
]


def test_a_stage_on_tokens_trains_the_tower_and_leaves_the_decoder(
    tiny_config: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(stages=TOKEN_STAGES, validate_every=1, lr=5e-3, backbone_lr_scale=1.0)
    pipeline = DepthTrainingPipeline({**config, "train": {**config["train"], "stages": TOKEN_STAGES[:1]}})
    before = {name: p.detach().clone() for name, p in pipeline.model.named_parameters()}
    pipeline.train(tmp_path / "tokens")
    errors = [float(line.split()[6]) for line in capsys.readouterr().out.splitlines() if "validation" in line]
    assert errors[-1] < 0.75 * errors[0]
    moved = {name for name, p in pipeline.model.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("backbone.layers.3") for name in moved)
    assert not any(name.startswith("decoder.") for name in moved)
    # Its decoder does not match, so no model of this stage may become the best one.
    assert not (tmp_path / "tokens" / "best.safetensors").exists()
    DepthTrainingPipeline(config).train(tmp_path / "both")
    for name in ("best.safetensors", "last.safetensors"):
        assert DepthModel.load(tmp_path / "both" / name).decoder


def test_a_run_with_a_stage_on_tokens_resumes_with_identical_results(
    tiny_config: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [{"steps": 4, "res": [32], "supervise": "tokens"}, {"steps": 4, "res": ["32x48"]}]
    config = tiny_config(stages=stages, validate_every=3)
    DepthTrainingPipeline(config).train(tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        DepthTrainingPipeline(config).train(tmp_path / "parts")
    DepthTrainingPipeline(config).train(tmp_path / "parts")
    assert_same_files(tmp_path / "whole", tmp_path / "parts")


def test_a_stage_on_something_else_is_refused(tiny_config: Maker) -> None:
    with pytest.raises(ConfigError, match=r"train\.stages\[0\]\.supervise must be one of depth, tokens.*'token'"):
        DepthTrainingPipeline(tiny_config(stages=[{"steps": 4, "res": [32], "supervise": "token"}]))
