"""Tracing in a child process: same graph, propagated errors, and termination.

The child imports this file, so module-level imports are light.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mvde.artifact import load_graph
from mvde.errors import BackendError, CheckpointError, UsageError
from mvde.export import subprocess_exporter
from mvde.export.onnx import export_onnx
from mvde.export.subprocess_exporter import SubprocessExporter

if TYPE_CHECKING:
    from mvde.model import DepthModel

RESOLUTION = (32, 48)


def load(path: Path) -> DepthModel:
    from mvde.model import DepthModel

    return DepthModel.load(path)


class TwoArguments(Exception):  # noqa: N818
    """Error that pickles but cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail(error: Exception) -> Any:
    raise error


def fail_unportably() -> Any:
    raise TwoArguments(1, 2)


def die() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep() -> Any:
    time.sleep(600)


def sleep_deaf() -> Any:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def num_children() -> int:
    return len(multiprocessing.active_children())


def test_a_child_writes_the_graph_that_this_process_writes(tiny_model: DepthModel, tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    tiny_model.save(checkpoint)
    told: list[str] = []
    exporter = SubprocessExporter(partial(load, checkpoint), checkpoint)
    (remote,) = export_onnx(exporter, [RESOLUTION], tmp_path / "remote", progress=told.append)
    assert num_children() == 0
    (local,) = export_onnx(tiny_model, [RESOLUTION], tmp_path / "local", checkpoint=checkpoint)
    here, there = (load_graph(path).manifest for path in (local, remote))
    assert there.file == here.file  # same checksum
    assert (there.source, there.num_flops, there.parity.photos) == (here.source, here.num_flops, here.parity.photos)
    assert [message.split(": ")[1] for message in told] == [
        "computing depth in PyTorch",
        "tracing",
        "writing",
        "computing depth in ONNX Runtime",
    ]


@pytest.mark.parametrize(
    "error", [CheckpointError("no such file"), UsageError("twice"), MemoryError(), ValueError("x")]
)
def test_an_error_of_the_child_is_raised_here(error: Exception) -> None:
    exporter = SubprocessExporter(partial(fail, error))
    with pytest.raises(type(error)) as caught:
        exporter.facts()
    assert str(caught.value) == str(error)
    assert "in fail" in str(caught.value.__cause__)
    exporter.close()
    assert num_children() == 0


def test_an_error_that_cannot_be_pickled_is_named() -> None:
    exporter = SubprocessExporter(fail_unportably)
    with pytest.raises(RuntimeError, match="TwoArguments: 1 and 2"):
        exporter.facts()
    exporter.close()


def test_a_child_that_is_killed_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="was killed, as the system does when memory runs out"):
        export_onnx(SubprocessExporter(die), [RESOLUTION], tmp_path / "export")
    assert not (tmp_path / "export").exists()
    assert num_children() == 0


@pytest.mark.parametrize("load", [sleep, sleep_deaf])
def test_closing_ends_a_child_at_work(load: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess_exporter, "_SECONDS_TO_END", 0.5)

    def interrupted(self: Any, request: Any, progress: Any) -> Any:
        self._is_at_work = True
        self._line.send(request)
        time.sleep(3.0)  # until the child sleeps
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess_exporter._Child, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(SubprocessExporter(load), [RESOLUTION], tmp_path / "export")
    assert num_children() == 0
