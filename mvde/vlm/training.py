"""Training of a vision-language model with depth: the embedder first, then it and the language model's adapter.

At first only the embedder learns, so that the language model does not adapt to noise; then its adapter (LoRA) learns
too. In a share of the examples depth is left out, so that the model still answers from RGB alone.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mvde.errors import MissingDependencyError, TrainingError, UsageError
from mvde.vlm.attach import EMBEDDER, embedder_of
from mvde.vlm.config import evidence_column
from mvde.vlm.training_state import STATE_FILE, TrainingState, load_state, save_state, trained_parameters

IGNORED = -100
"""Label of tokens that are not learned, by the convention of transformers."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    ``embedder_steps`` updates of the embedder alone, then ``steps`` of both. An update sees ``batch_size`` examples in
    ``accumulate`` parts, in each process. ``lr`` is the peak rate, reached after ``warmup_steps`` of either part and
    followed by a cosine to a tenth. ``drop_depth`` is the share of examples whose depth is left out.
    """

    embedder_steps: int = 200
    steps: int = 2000
    batch_size: int = 16
    accumulate: int = 1
    lr: float = 2e-4
    warmup_steps: int = 50
    drop_depth: float = 0.15
    clip_norm: float = 1.0
    save_every: int = 500
    log_every: int = 50
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"steps": 0, "embedder_steps": 0, "batch_size": 1, "accumulate": 1, "warmup_steps": 0, "log_every": 1}
        counts |= {"save_every": 1, "num_workers": 0, "seed": 0}
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, but got {getattr(self, name)}")
        if self.num_steps < 1:
            raise UsageError("steps and embedder_steps are both 0: there is nothing to train")
        if self.batch_size % self.accumulate:
            raise UsageError(f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}")
        if not 0 < self.lr < math.inf or not 0 <= self.drop_depth < 1:
            raise UsageError(
                f"lr must be positive and drop_depth from 0 to below 1, but got {self.lr:g} and {self.drop_depth:g}"
            )

    @property
    def num_steps(self) -> int:
        """Updates in all."""
        return self.embedder_steps + self.steps

    def rate(self, step: int) -> float:
        """Learning rate of the update ``step``, counted from 0: warm-up at the start of both parts, and a cosine."""
        since = step if step < self.embedder_steps else step - self.embedder_steps
        warm = min(1.0, (since + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.lr * warm * (0.55 + 0.45 * math.cos(math.pi * step / self.num_steps))


@dataclass(frozen=True)
class Draw:
    """An example of a batch, and whether its depth is shown."""

    index: int
    has_depth: bool


class Examples(Protocol):
    """Training examples. An example without depth has rows of 0 in ``depth_stats``."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, draw: Draw) -> Any:
        """Return one example, as :meth:`collate` takes it."""
        ...

    def collate(self, examples: list[Any]) -> dict[str, Tensor]:
        """Return the model's arguments for a batch: ``input_ids``, ``labels``, ``pixel_values``, ``depth_stats`` ..."""
        ...


class Reporter(Protocol):
    """Receiver of the progress of a training."""

    def __call__(self, step: int, num_steps: int, values: dict[str, float]) -> None:
        """Take the means of ``values`` (``loss``, ``lr``, ``seconds_per_step``) since the last call."""
        ...


@dataclass(frozen=True)
class TrainingResult:
    """Outcome: ``step`` of ``num_steps`` updates are done; ``loss`` is the mean of the last ones logged."""

    step: int
    num_steps: int
    interrupted: bool
    loss: float


class VlmTraining:
    """One run in one folder; every process of a distributed run creates one.

    ``model`` has depth and an adapter of peft on its language model; all its parameters that require a gradient are
    trained. Raises UsageError for a model without an embedder to train.
    """

    def __init__(self, model: nn.Module, examples: Examples, settings: TrainingSettings, output_dir: Path) -> None:
        if len(examples) < 1:
            raise UsageError("there are no examples to train on; give at least one conversation")
        self.model, self.examples, self.settings = model, examples, settings
        self._state_path = output_dir / STATE_FILE
        self._parameters = trained_parameters(model)
        self._adapter = [value for name, value in self._parameters.items() if EMBEDDER not in name]
        if len(self._adapter) == len(self._parameters):
            raise UsageError("the model has no depth embedder to train; give it one with mvde.vlm.add_depth")
        self._stop_requested = False
        self._accelerator = _accelerator(output_dir, settings)

    def run(self, report: Reporter) -> TrainingResult:
        """Train, resuming from the state in the folder, if any, as if never interrupted.

        On SIGINT or SIGTERM the current step is finished and the state written. Raises TrainingError for a loss that is
        not finite, OutputError if the disk is full; the last saved state stays intact.
        """
        handlers = self._catch_signals()
        try:
            return self._run(report)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._accelerator.end_training()

    def _run(self, report: Reporter) -> TrainingResult:
        torch.manual_seed(self.settings.seed)
        self.model.to(self._accelerator.device).train()
        embedder = embedder_of(self.model)
        buffers = dict(embedder.named_buffers())
        optimizer = torch.optim.AdamW(self._parameters.values(), lr=self.settings.lr, weight_decay=0.0)
        step = 0
        if self._state_path.exists():
            step = load_state(self._state_path, self._parameters, buffers, optimizer).step
        else:
            stats = self._typical_stats()
            if bool((stats[..., evidence_column(embedder.columns)] > 0).any()):  # else there is no depth to learn from
                embedder.fit(stats)
        wrapped = self._accelerator.prepare_model(self.model)
        loss, losses, started, first = math.nan, [], time.perf_counter(), step
        for parts in self._updates(step):
            losses.append(self._update(wrapped, optimizer, parts, step))
            step += 1
            is_last = step == self.settings.num_steps
            if step % self.settings.log_every == 0 or is_last:
                loss = self._log(losses, step, (time.perf_counter() - started) / (step - first), report)
                losses = []
            stop = self._should_stop()
            if stop or is_last or step % self.settings.save_every == 0:
                self._save(buffers, optimizer, step)
            if stop:
                break
        return TrainingResult(step, self.settings.num_steps, step < self.settings.num_steps, loss)

    def _update(
        self, wrapped: nn.Module, optimizer: torch.optim.Optimizer, parts: Sequence[dict[str, Tensor]], step: int
    ) -> float:
        """Run one update; return its loss, the mean over all answer tokens of its parts."""
        for parameter in self._adapter:
            parameter.requires_grad_(step >= self.settings.embedder_steps)
        for group in optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        counts = [int((part["labels"] != IGNORED).sum()) for part in parts]
        total = 0.0
        for part, count in zip(parts, counts, strict=True):
            arguments = {name: value.to(self._accelerator.device) for name, value in part.items()}
            # A mean of the parts' means would give tokens of short answers more weight than those of long ones.
            loss = wrapped(**arguments).loss * (count / max(sum(counts), 1))
            self._accelerator.backward(loss)
            total += float(loss.detach())
        norm = float(self._accelerator.clip_grad_norm_(list(self._parameters.values()), self.settings.clip_norm))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise TrainingError(
                f"training diverged at step {step + 1}: the loss is {total:g} and the gradient's norm {norm:g}; lower "
                f"the learning rate ({self.settings.lr:g}) and run the same command, which goes on from the last state"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    def _updates(self, first: int) -> Iterator[list[dict[str, Tensor]]]:
        """Batches of every update from ``first`` on, each in its parts; they depend on the step alone."""
        share = _Share(self._accelerator.process_index, self._accelerator.num_processes)
        sampler = _Parts(len(self.examples), self.settings, first, share)
        loader: Iterable[dict[str, Tensor]] = torch.utils.data.DataLoader(
            self.examples,  # type: ignore[arg-type]  # indexed by the sampler's draws
            batch_sampler=sampler,  # draws instead of numbers
            collate_fn=self.examples.collate,
            num_workers=self.settings.num_workers,
        )
        parts: list[dict[str, Tensor]] = []
        for part in loader:
            parts.append(part)
            if len(parts) == self.settings.accumulate:
                yield parts
                parts = []

    def _typical_stats(self, most: int = 256) -> Tensor:
        """Rows (M, S) of evenly spaced examples, for the moments of the statistics."""
        number, size = min(most, len(self.examples)), self.settings.batch_size // self.settings.accumulate
        draws = [Draw(at * len(self.examples) // number, True) for at in range(number)]
        rows = []
        for start in range(0, number, size):
            examples = [self.examples[draw] for draw in draws[start : start + size]]
            stats = self.examples.collate(examples)["depth_stats"]
            rows.append(stats.reshape(-1, stats.shape[-1]))
        return torch.cat(rows).to(self._accelerator.device)

    def _log(self, losses: list[float], step: int, seconds: float, report: Reporter) -> float:
        mean = torch.tensor(sum(losses) / len(losses), device=self._accelerator.device)
        loss = float(self._accelerator.reduce(mean, reduction="mean"))
        values = {"loss": loss, "lr": self.settings.rate(step - 1), "seconds_per_step": seconds}
        self._accelerator.log({f"train/{name}": value for name, value in values.items()}, step=step)
        if self._accelerator.is_main_process:
            report(step, self.settings.num_steps, values)
        return loss

    def _save(self, buffers: dict[str, Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
        if self._accelerator.is_main_process:
            state = TrainingState(step, asdict(self.settings))
            save_state(self._state_path, self._parameters, buffers, optimizer, state)
        self._accelerator.wait_for_everyone()

    def _should_stop(self) -> bool:
        """Whether any process was asked to stop; all must leave the loop at the same step."""
        if self._accelerator.num_processes > 1:
            flag = torch.tensor([float(self._stop_requested)], device=self._accelerator.device)
            self._stop_requested = bool(self._accelerator.reduce(flag, reduction="sum").item() > 0)
        return self._stop_requested

    def _catch_signals(self) -> dict[int, Any]:
        def request_stop(number: int, frame: object) -> None:
            if self._stop_requested:
                raise KeyboardInterrupt
            self._stop_requested = True

        try:
            return {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread
            return {}


class _Share(NamedTuple):
    """A process's number and the number of processes."""

    rank: int
    world: int


class _Parts(torch.utils.data.Sampler[list[Draw]]):
    """Draws of every part of every update from ``first`` on; each epoch is a permutation that depends on the seed."""

    def __init__(self, num_examples: int, settings: TrainingSettings, first: int, share: _Share) -> None:
        self._num_examples, self._settings, self._first, self._share = num_examples, settings, first, share

    def __len__(self) -> int:
        return (self._settings.num_steps - self._first) * self._settings.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        settings, share = self._settings, self._share
        size = settings.batch_size // settings.accumulate
        order, epoch = torch.empty(0, dtype=torch.long), -1
        for step in range(self._first, settings.num_steps):
            generator = torch.Generator().manual_seed(_mixed(settings.seed, step, 1))
            shown = torch.rand(settings.batch_size * share.world, generator=generator) >= settings.drop_depth
            for part in range(settings.accumulate):
                draws = []
                for at in range(size):
                    place = (share.rank * settings.accumulate + part) * size + at
                    number = step * settings.batch_size * share.world + place
                    if number // self._num_examples != epoch:
                        epoch = number // self._num_examples
                        shuffled = torch.Generator().manual_seed(_mixed(settings.seed, epoch, 2))
                        order = torch.randperm(self._num_examples, generator=shuffled)
                    draws.append(Draw(int(order[number % self._num_examples]), bool(shown[place])))
                yield draws


def _mixed(seed: int, number: int, purpose: int) -> int:
    """Seed of one random stream of many."""
    return (seed * 1_000_003 + number) * 4 + purpose


def _accelerator(output_dir: Path, settings: TrainingSettings) -> Any:
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "accelerate", "vlm", "training") from error
    # The adapter is unused at first, and the embedder in a batch without any depth.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        accelerator = Accelerator(log_with="tensorboard", project_dir=str(output_dir), kwargs_handlers=[unused])
        accelerator.init_trackers("logs", config=asdict(settings))
    except (ImportError, ValueError) as error:
        raise MissingDependencyError.for_extra("tensorboard", "vlm", "logging of a training") from error
    return accelerator
