"""Training of a depth model: stages, freezing, schedules, weight averaging, validation, checkpoints, resume."""

from __future__ import annotations

import bisect
import contextlib
import errno
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mvde.alignment import Alignment
from mvde.config import Config, StageConfig, load_config
from mvde.datasets.formats import open_dataset
from mvde.datasets.sample import DepthDataset
from mvde.errors import CheckpointError, ConfigError, DatasetError, MissingDependencyError, OutputError, UsageError
from mvde.losses import depth_loss, valid_mask
from mvde.model import DepthModel
from mvde.pipelines.augment import Transform, transform_sample
from mvde.pipelines.batches import Share, StepBatches, batches_from
from mvde.pipelines.eval_depth import default_protocol, evaluate, torch_predictor
from mvde.pipelines.initialization import initialize_structured
from mvde.pipelines.optim import MovingAverage, build_optimizers, set_rates
from mvde.pipelines.state import STATE_FILE, TrainProgress, load_state, save_state
from mvde.pipelines.token_head import TokenSupervised, depth_at_cells
from mvde.pipelines.watch import TrainingWatch
from mvde.resolution import parse_resolution

if TYPE_CHECKING:
    from omegaconf import DictConfig

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
        with _report_full_disk(output_dir):
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
        """Set up data, optimisers and processes; then restore the saved state, if any."""
        data = self.config.data  # opened first: a missing data set must not leave a folder with logs
        opened = {path: self._dataset(path) for path in {stage.data or data.train for stage in self._stages}}
        self._validation = self._dataset(data.val) if data.val else None
        self._accelerator = _accelerator(self.config, output_dir)
        share = Share(self._accelerator.process_index, self._accelerator.num_processes)
        datasets = [opened[stage.data or data.train] for stage in self._stages]
        self._batches = StepBatches(self._train, datasets, share, self.config.decoder.canonical_focal)
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
        if state.exists():
            self.progress, before = load_state(state, self._trained, self._average, self._optimizers)
            self._watch.saved(self.progress.step)
            self._print(f"resuming {output_dir} after step {self.progress.step}{_changed_keys(before, self.config)}")
        elif self._train.start == "structured":
            self._initialize_structured(opened[self._stages[0].data or data.train])
        # oneDNN's convolutions are up to three times faster with channels-last weights; results are unaffected.
        self.model.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._wrapped = self._accelerator.prepare_model(self._trained)

    def _initialize_structured(self, dataset: DepthDataset) -> None:
        size = parse_resolution(self._stages[0].res[0])
        frames = range(0, len(dataset), max(len(dataset) // NUM_START_FRAMES, 1))
        images = torch.stack([transform_sample(dataset[frame], size, Transform())[0] for frame in frames])
        initialize_structured(self.model.backbone, self.model.normalize(images))

    def _dataset(self, path: str) -> DepthDataset:
        return open_dataset(self.config.data.format, path, self.config.data.depth_scale)

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
            validates = self._validation is not None and self._is_due(self._train.validate_every)
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
        loss, parts, valid = self._loss(self._wrapped, images, depth_m, step)
        self._accelerator.backward(loss)
        norm = self._accelerator.clip_grad_norm_(self._wrapped.parameters(), self._train.clip_grad_norm)
        self._watch.check_step(step, loss, norm, valid, depth_m, self._data_of(step))
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average.update(self._trained, step)
        self.progress.step += 1
        return {"loss": loss.detach(), **parts, "grad_norm": norm}

    def _loss(
        self, model: torch.nn.Module, images: Tensor, depth_m: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
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
            loss, _, _ = self._loss(self._trained, images, depth_m, step - 1)
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
        """Metrics of the averaged weights, at the resolution of the current stage."""
        metrics: dict[str, float] = {}
        if self._accelerator.is_main_process and self._validation is not None:
            number, stage = self._stage(self.progress.step - 1)
            size = parse_resolution(stage.res[0])
            head = self._head if stage.supervise == "tokens" else None
            predictor = torch_predictor(head or self.model, size, self.model.describe())
            predict = self._watch.finite(predictor, self.progress.step)
            self._average.swap(self._trained)
            try:
                protocol = default_protocol(self._validation)
                totals = evaluate(predict, self._validation, protocol)
                if not totals[Alignment.NONE].per_image:
                    raise DatasetError(
                        f"{self.config.data.val} (data.val, format {self.config.data.format}) holds no frame with "
                        f"depth of {protocol.range_m[0]:g} to {protocol.range_m[1]:g} m to validate on; check "
                        "data.depth_scale"
                    )
                metrics = totals[Alignment.NONE].overall()
                better = (-number, metrics["abs_rel"]) < (-self.progress.best_stage, self.progress.best)
                if better and head is None:  # the decoder does not match a tower trained without it
                    self.progress.best, self.progress.best_stage = metrics["abs_rel"], number
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


@contextlib.contextmanager
def _report_full_disk(output_dir: Path) -> Iterator[None]:
    """Raise :class:`OutputError` if the disk is full, also for the tracker.

    TensorBoard writes in its own thread, which would print a traceback, and raises the error again in ours.
    """
    before = threading.excepthook

    def show_others(arguments: threading.ExceptHookArgs) -> None:
        if not _is_disk_full(arguments.exc_value):
            before(arguments)

    threading.excepthook = show_others
    try:
        yield
    except OSError as error:
        if not _is_disk_full(error):
            raise
        raise OutputError(
            f"cannot write to {output_dir}: {error.strerror}; free disk space; the same command then resumes from "
            "the last saved state"
        ) from error
    finally:
        threading.excepthook = before


def _is_disk_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _accelerator(config: Config, output_dir: Path) -> Any:
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise MissingDependencyError.for_extra("accelerate", "train", "training") from error
    train = config.train
    tracker = None if train.tracker == "none" else train.tracker
    # The backbone is unused during its frozen steps, and the decoder in some stages, which DDP must know.
    unused = train.freeze_backbone_steps > 0 or any(stage.supervise == "tokens" for stage in train.stages)
    ddp = DistributedDataParallelKwargs(find_unused_parameters=unused)
    try:
        accelerator = Accelerator(log_with=tracker, project_dir=str(output_dir), kwargs_handlers=[ddp])
    except (ImportError, ValueError) as error:
        raise UsageError(f"accelerate cannot set up the run (train.tracker={train.tracker}): {error}") from error
    if tracker is not None:
        accelerator.init_trackers("logs", config=_flattened(config.to_dict()))
    return accelerator


def _flattened(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, in types that TensorBoard stores as hyper-parameters."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat


def _changed_keys(before: Mapping[str, Any], now: Config) -> str:
    """Message suffix naming the keys whose values differ between the saved run and this one; empty if none."""
    old, new = _flattened(before), _flattened(now.to_dict())
    keys = [key for key in new if old.get(key) != new[key]]
    return f", with other values of {', '.join(keys)}" if keys else ""
