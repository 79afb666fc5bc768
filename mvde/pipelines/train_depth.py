"""Training of a depth model: stages, freezing, schedules, weight averaging, validation, checkpoints, resume."""

from __future__ import annotations

import bisect
import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mvde.config import Config, StageConfig, load_config
from mvde.errors import CheckpointError, ConfigError
from mvde.losses import depth_loss, valid_mask
from mvde.model import DepthModel
from mvde.pipelines.augment import Transform, transform_sample
from mvde.pipelines.batches import Share, StepBatches, batches_from
from mvde.pipelines.eval_depth import default_protocol, torch_predictor
from mvde.pipelines.full_disk import report_full_disk
from mvde.pipelines.initialization import initialize_structured
from mvde.pipelines.optim import MovingAverage, build_optimizers, set_rates
from mvde.pipelines.processes import make_accelerator, start_tracker, together
from mvde.pipelines.state import STATE_FILE, TrainProgress, changed_keys, flattened, restore_state, save_state
from mvde.pipelines.token_head import TokenSupervised, depth_at_cells
from mvde.pipelines.training_data import open_data, start_frames
from mvde.pipelines.validation import no_depth_to_validate, validate
from mvde.pipelines.watch import TrainingWatch
from mvde.resolution import parse_resolution

if TYPE_CHECKING:
    from omegaconf import DictConfig

_Loss = tuple[Tensor, dict[str, Tensor], Tensor]
"""Loss of a batch, its terms by name, and the mask (B, H, W) of the pixels (or cells) that count."""
BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"
NUM_START_FRAMES = 256
# Settings that must match between a run and the checkpoint it is initialised from.
_ARCHITECTURE = (
    ("vit", "name"), ("vit", "tap_layers"), ("decoder", "c_dec"), ("decoder", "blocks"),
    ("decoder", "scale_invariant"), ("decoder", "min_depth"), ("decoder", "max_depth"),
)  # fmt: skip


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a run: ``step`` of ``num_steps`` updates are done; ``metrics`` are of the last validation, if any."""

    step: int
    num_steps: int
    interrupted: bool
    metrics: dict[str, float]
    output_dir: Path


class DepthTrainingPipeline:
    """Trainer for the model of a configuration; every process of a distributed run creates one.

    ``config`` is anything that :func:`mvde.config.load_config` accepts. ``model`` supplies existing weights instead of
    building the model. Raises ConfigError, DatasetError or CheckpointError before the first step.
    """

    def __init__(
        self, config: Config | DictConfig | Mapping[str, Any] | str | Path, model: DepthModel | None = None
    ) -> None:
        self.config = load_config(config)
        self._train = self.config.train
        _check_losses(self.config)
        self._stages = self._train.all_stages()
        self._ends = list(accumulate(stage.steps for stage in self._stages))
        self.num_steps = self._ends[-1]
        torch.manual_seed(self._train.seed)
        self.model = model or self._initial_model()
        self._head = TokenSupervised(self.model) if any(s.supervise == "tokens" for s in self._stages) else None
        self._trained: torch.nn.Module = self.model if self._head is None else self._head
        self._stop_requested = False

    def train(self, output_dir: str | Path) -> TrainResult:
        """Train into ``output_dir``, resuming from the state there, if any, as if never interrupted.

        Writes ``last.safetensors`` and ``best.safetensors`` (averaged weights with the configuration inside),
        ``state.safetensors`` (for a resume) and the tracker's logs. On SIGINT or SIGTERM the current step is finished,
        the state is written, and the result is marked ``interrupted``; a second signal stops immediately. Raises
        :class:`OutputError` if the disk is full, :class:`TrainingError` for a loss, gradient or weight that is not
        finite, and :class:`DatasetError` if the data has no usable depth; the last saved state stays intact.
        """
        output_dir = Path(output_dir)
        with report_full_disk(output_dir):
            self._prepare(output_dir)
            handlers = self._catch_signals()
            try:
                metrics = self._run_steps(output_dir)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                self._accelerator.end_training()
        return TrainResult(self.progress.step, self.num_steps, self._stop_requested, metrics, output_dir)

    def _initial_model(self) -> DepthModel:
        if self._train.init_checkpoint is None:
            return DepthModel(self.config)
        model = DepthModel.load(self._train.init_checkpoint)
        ours, theirs = self.config.to_dict(), load_config(model.config).to_dict()
        for section, key in _ARCHITECTURE:
            if ours[section][key] != theirs[section][key]:
                raise CheckpointError(
                    f"{self._train.init_checkpoint} has {section}.{key} = {theirs[section][key]}, but the "
                    f"configuration has {ours[section][key]}; make them equal or leave train.init_checkpoint out"
                )
        model.config = self.config  # recorded in its checkpoints as the training configuration
        return model

    def _prepare(self, output_dir: Path) -> None:
        """Set up processes, data and optimisers; then restore the saved state, if any."""
        self._accelerator = make_accelerator(self.config, output_dir)
        self._share = Share(self._accelerator.process_index, self._accelerator.num_processes, self._train.accumulation)
        # Before the tracker: a missing data set must not leave a folder with logs.
        self._data = open_data(self.config, self._accelerator, self._share)
        datasets = [dataset for _, dataset in self._data.stages]
        focal = self.config.decoder.canonical_focal
        self._batches = StepBatches(self._train, datasets, self._share, focal, self.config.data)
        start_tracker(self._accelerator, self.config, flattened(self.config.to_dict()))
        # Before the optimisers and the average are created, which stay on the weights' device; train() also selects the
        # fastest attention for that device.
        self._trained.to(self._accelerator.device).train()
        backbone = self.model.backbone
        inside = {id(p) for p in backbone.parameters()}
        rest = [p for p in self._trained.parameters() if id(p) not in inside]
        self._optimizers = build_optimizers(backbone, rest, self._train)
        self._average = MovingAverage(self._trained, self._train.ema_decay)
        self.progress = TrainProgress()
        self._watch = TrainingWatch(self.config, self._accelerator, output_dir)
        state = output_dir / STATE_FILE
        restored = restore_state(self._accelerator, state, self._trained, self._average, self._optimizers)
        if restored is not None:
            self.progress, before = restored
            self._watch.saved(self.progress.step)
            self._print(f"resuming {output_dir} after step {self.progress.step}{changed_keys(before, self.config)}")
        elif self._train.start == "structured":
            together(self._accelerator, self._initialize_structured)
        # oneDNN's convolutions are up to three times faster with channels-last weights; results are unaffected.
        self.model.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._wrapped = self._accelerator.prepare_model(self._trained)

    def _initialize_structured(self) -> None:
        """Initialise the tower from frames of the first stage; other processes get the first one's weights."""
        if not self._accelerator.is_main_process:
            return
        stage, (_, dataset) = self._stages[0], self._data.stages[0]
        size = parse_resolution(stage.res[0])
        frames = start_frames(self.config, dataset, stage.batch_size, self._share, NUM_START_FRAMES)
        images = torch.stack([transform_sample(dataset[frame], size, Transform())[0] for frame in frames])
        initialize_structured(self.model.backbone, self.model.normalize(images))

    def _run_steps(self, output_dir: Path) -> dict[str, float]:
        metrics: dict[str, float] = {}
        since_log: list[dict[str, Tensor]] = []
        first, started = self.progress.step, time.perf_counter()
        for images, depth in batches_from(self._batches, first, self._train.num_workers):
            since_log.append(self._update(images, depth))
            done = self.progress.step
            if done % self._train.log_every == 0 or done == self.num_steps:
                self._log(since_log, done, (time.perf_counter() - started) / (done - first))
                since_log = []
            validates = self._data.validation is not None and self._is_due(self._train.validate_every)
            stop = self._should_stop()
            saves = stop or self._is_due(self._train.checkpoint_every)
            if validates or saves:
                self._check_weights(images, depth)
            if validates:
                metrics = self._validate(output_dir)
            if saves:
                self._save(output_dir)
            if stop:
                break
        return metrics

    def _update(self, images: Tensor, depth_m: Tensor) -> dict[str, Tensor]:
        """Run one step; return losses by name, averaged over processes."""
        step = self.progress.step
        self._freeze_or_unfreeze(step)
        set_rates(self._optimizers, step, self.num_steps, self._train)
        losses, parts, valid = zip(*self._gradients(images, depth_m, step), strict=True)
        loss = torch.stack(losses).mean()
        norm = self._accelerator.clip_grad_norm_(self._wrapped.parameters(), self._train.clip_grad_norm)
        self._watch.check_step(step, loss, norm, torch.cat(valid), depth_m, self._data_of(step))
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average.update(self._trained, step)
        self.progress.step += 1
        means = {name: torch.stack([one[name] for one in parts]).mean() for name in parts[0]}
        return {"loss": loss, **means, "grad_norm": norm}

    def _gradients(self, images: Tensor, depth_m: Tensor, step: int) -> Iterator[_Loss]:
        """Add up the gradients of the pieces of a batch, and yield the loss of each.

        Losses are means over images and pieces are equal in size, so the mean of their gradients is the batch's.
        """
        pieces = self._pieces(images, depth_m)
        for number, piece in enumerate(pieces, 1):
            is_last = number == len(pieces)
            # Gradients are averaged over processes once, with those of the last piece.
            waits = contextlib.nullcontext() if is_last else self._accelerator.no_sync(self._wrapped)
            with waits:
                loss, parts, valid = self._loss(self._wrapped, *piece, step)
                self._accelerator.backward(loss / len(pieces))
            yield loss.detach(), parts, valid

    def _pieces(self, images: Tensor, depth_m: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Equal parts of a batch, which are computed one after the other."""
        count = self._train.accumulation
        return list(zip(images.chunk(count), depth_m.chunk(count), strict=True))

    def _loss(self, model: torch.nn.Module, images: Tensor, depth_m: Tensor, step: int) -> _Loss:
        """Loss of a batch, its terms by name, and the mask (B, H, W) of the pixels (or cells) that count."""
        device, decoder = self._accelerator.device, self.config.decoder
        images, depth_m = images.to(device), depth_m.to(device)
        # Accelerate's own autocast is a process-wide setting: a second run with another one would fail.
        with torch.autocast(device.type, torch.bfloat16, enabled=self._train.autocast == "bf16"):
            if self._head is None:
                pred = model(images)
            else:
                pred = model(images, self._stage(step)[1].supervise)
                depth_m = depth_at_cells(depth_m, (int(pred.shape[1]), int(pred.shape[2])))
        valid = valid_mask(depth_m, decoder.min_depth, decoder.max_depth)
        return *depth_loss(pred.float(), depth_m, valid, self._train.loss), valid

    def _check_weights(self, images: Tensor, depth_m: Tensor) -> None:
        """Raise :class:`TrainingError` or DatasetError if the weights must not be saved, judged on the last batch."""
        step = self.progress.step
        with torch.no_grad():
            losses = [self._loss(self._trained, *piece, step - 1)[0] for piece in self._pieces(images, depth_m)]
        loss = torch.stack(losses).mean()
        self._watch.check_before_saving(step, loss, self._trained.parameters(), depth_m, self._data_of(step - 1))

    def _freeze_or_unfreeze(self, step: int) -> None:
        trainable = step >= self._train.freeze_backbone_steps
        if any(p.requires_grad != trainable for p in self.model.backbone.parameters()):
            self.model.backbone.requires_grad_(trainable)

    def _stage(self, step: int) -> tuple[int, StageConfig]:
        """Index and configuration of the stage of update ``step``."""
        number = bisect.bisect_right(self._ends, step)
        return number, self._stages[number]

    def _data_of(self, step: int) -> str:
        return self._stage(step)[1].data or self.config.data.train

    def _is_due(self, every: int) -> bool:
        done = self.progress.step
        return done == self.num_steps or done in self._ends or (every > 0 and done % every == 0)

    def _should_stop(self) -> bool:
        """Whether any process was asked to stop; all must leave the loop at the same step."""
        if self._accelerator.num_processes > 1:
            flag = torch.tensor([float(self._stop_requested)], device=self._accelerator.device)
            self._stop_requested = bool(self._accelerator.reduce(flag, reduction="sum").item() > 0)
        return self._stop_requested

    def _log(self, losses: list[dict[str, Tensor]], done: int, seconds_per_step: float) -> None:
        """Print and log the means of ``losses``, one mapping per step since the last call."""
        names = list(losses[0])
        means = torch.stack([torch.stack([step[name] for name in names]) for step in losses]).mean(dim=0)
        values = self._accelerator.reduce(means, reduction="mean").tolist()
        logged = dict(zip(names, values, strict=True))
        rate = self._optimizers[0].param_groups[-1]["lr"]
        self._accelerator.log({f"train/{k}": v for k, v in logged.items()} | {"train/lr": rate}, step=done)
        text = " ".join(f"{name} {value:.4f}" for name, value in logged.items())
        self._print(f"step {done}/{self.num_steps} {text} lr {rate:.2e} {seconds_per_step:.3f} s/step")

    def _validate(self, output_dir: Path) -> dict[str, float]:
        """Metrics of the averaged weights, at the resolution of the current stage; equal in every process."""
        assert self._data.validation is not None
        path, dataset = self._data.validation
        number, stage = self._stage(self.progress.step - 1)
        size = parse_resolution(stage.res[0])
        head = self._head if stage.supervise == "tokens" else None
        predict = self._watch.finite(
            torch_predictor(head or self.model, size, self.model.describe()), self.progress.step
        )
        self._average.swap(self._trained)
        try:
            totals = validate(self._accelerator, predict, dataset, default_protocol(dataset), self._share)
            if not totals.per_image:
                raise no_depth_to_validate(path, self.config.data.format, dataset)
            metrics = totals.overall()
            better = (-number, metrics["abs_rel"]) < (-self.progress.best_stage, self.progress.best)
            if better and head is None:  # the decoder does not match a tower trained without it
                self.progress.best, self.progress.best_stage = metrics["abs_rel"], number
                if self._accelerator.is_main_process:
                    self.model.save(output_dir / BEST_FILE)
        finally:
            self._average.swap(self._trained)
        self._accelerator.log({f"val/{k}": v for k, v in metrics.items()}, step=self.progress.step)
        text = " ".join(f"{name} {metrics[name]:.4f}" for name in ("abs_rel", "rmse", "silog", "delta1", "delta2"))
        self._print(f"validation at step {self.progress.step}, {size[0]}x{size[1]}: {text}")
        self._accelerator.wait_for_everyone()
        return metrics

    def _save(self, output_dir: Path) -> None:
        if self._accelerator.is_main_process:
            # The state comes last: once it says that all steps are done, nothing would write the weights again.
            self._average.swap(self._trained)
            try:
                self.model.save(output_dir / LAST_FILE)
            finally:
                self._average.swap(self._trained)
            state = output_dir / STATE_FILE
            save_state(state, self._trained, self._average, self._optimizers, self.progress, self.config.to_dict())
        self._watch.saved(self.progress.step)
        self._accelerator.wait_for_everyone()

    def _catch_signals(self) -> dict[int, Any]:
        """Install the stop handlers; return those replaced, by signal (none outside the main thread)."""

        def request_stop(number: int, frame: object) -> None:
            if self._stop_requested:
                raise KeyboardInterrupt
            self._stop_requested = True

        try:
            return {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            return {}

    def _print(self, line: str) -> None:
        if self._accelerator.is_main_process:
            print(line, flush=True)


def _check_losses(config: Config) -> None:
    """Raise :class:`ConfigError` if a loss needs metres and the model predicts relative depth."""
    loss = config.train.loss
    if config.decoder.scale_invariant and (loss.silog_lambda != 1 or loss.log_l1 or loss.l1 or loss.berhu):
        raise ConfigError(
            "decoder.scale_invariant selects relative depth, but the losses require metres; "
            "set train.loss.silog_lambda to 1, and log_l1, l1 and berhu to 0"
        )
