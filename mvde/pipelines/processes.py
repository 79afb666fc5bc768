"""Processes of a distributed run: their set-up, errors that end all of them, and values that must be the same."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mvde.config import Config
from mvde.errors import MissingDependencyError, MvdeError, UsageError

T = TypeVar("T")


def make_accelerator(config: Config, output_dir: Path) -> Any:
    """Accelerator of this process, which joins the others. Raises UsageError if accelerate refuses the set-up."""
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise MissingDependencyError.for_extra("accelerate", "train", "training") from error
    train = config.train
    # The backbone is unused during its frozen steps, and the decoder in some stages, which DDP must know.
    unused = train.freeze_backbone_steps > 0 or any(stage.supervise == "tokens" for stage in train.stages)
    ddp = DistributedDataParallelKwargs(find_unused_parameters=unused)
    with _tracker_errors(config):
        return Accelerator(log_with=_tracker(config), project_dir=str(output_dir), kwargs_handlers=[ddp])


def start_tracker(accelerator: Any, config: Config, settings: dict[str, Any]) -> None:
    """Create the tracker's logs, with ``settings`` as hyper-parameters. Raises UsageError if it cannot be used."""
    if _tracker(config) is not None:
        with _tracker_errors(config):
            accelerator.init_trackers("logs", config=settings)


def _tracker(config: Config) -> str | None:
    return None if config.train.tracker == "none" else config.train.tracker


@contextlib.contextmanager
def _tracker_errors(config: Config) -> Any:
    try:
        yield
    except (ImportError, ValueError) as error:
        raise UsageError(f"accelerate cannot set up the run (train.tracker={config.train.tracker}): {error}") from error


def together(accelerator: Any, action: Callable[[], T]) -> T:
    """Result of ``action``, done by every process; an error of one is raised by all, which would wait for it forever.

    The error says which process on which machine it is of. Every process must call this at the same point.
    """
    if accelerator.num_processes == 1:
        return action()
    result, failure = None, None
    try:
        result = action()
    except MvdeError as error:
        failure = error
    found = gathered(accelerator, None if failure is None else (type(failure), str(failure), socket.gethostname()))
    for rank, one in enumerate(found):
        if one is not None:
            kind, text, host = one
            raise kind(f"{text} (process {rank} of {accelerator.num_processes}, on {host})") from failure
    return result  # type: ignore[return-value]  # there was no failure


def gathered(accelerator: Any, value: T) -> list[T]:
    """Values of all processes, by rank. Every process must call this at the same point."""
    if accelerator.num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    values: list[T] = gather_object([value])
    return values
