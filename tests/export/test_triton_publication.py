"""A Triton repository whose models are replaced: killed before any step, each of them is the old one or the new one."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mvde import publish
from mvde.artifact import GraphArtifact
from mvde.export.triton import write_repository

Writer = Callable[..., GraphArtifact]
MODELS = {"tiny-depth", "tiny-stats", "tiny"}
_STEPS = ("replace", "rename", "unlink", "rmdir")


@pytest.fixture(params=["exchange", "no exchange"])
def has_exchange(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether folders can be exchanged; skips where the disk of the tests cannot and should."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    if request.param == "no exchange":
        monkeypatch.setattr(publish, "exchange", lambda one, other: False)
    elif not publish.exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot exchange two folders")
    return request.param == "exchange"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def models(root: Path) -> dict[str, dict[str, bytes]]:
    """Content of each model that the server would see."""
    return {path.name: content(path) for path in root.iterdir() if not path.name.startswith(".")}


def write_killed_before(step: int, source: GraphArtifact, root: Path) -> bool:
    """Whether a child process wrote the repository to the end instead of being killed before that step."""
    if (child := os.fork()) == 0:
        steps = itertools.count(1)

        def counted(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        for name in _STEPS:
            setattr(os, name, partial(counted, getattr(os, name)))
        publish.exchange = partial(counted, publish.exchange)  # type: ignore[assignment]
        try:
            write_repository(source, root)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status == 0


def test_a_kill_before_any_step_leaves_whole_models(write_graph: Writer, tmp_path: Path, has_exchange: bool) -> None:
    old = write_graph(tmp_path / "old", resolution=(32, 48))
    new = write_graph(tmp_path / "new", resolution=(48, 64))
    write_repository(old, tmp_path / "before")
    write_repository(new, tmp_path / "after")
    before, after = models(tmp_path / "before"), models(tmp_path / "after")
    root = tmp_path / "models"
    num_missing = 0
    for step in itertools.count(1):
        shutil.rmtree(root, ignore_errors=True)
        write_repository(old, root)
        is_done = write_killed_before(step, new, root)
        seen = models(root)
        for name, files in seen.items():
            assert files in (before[name], after[name]), (step, name)
        num_missing += len(MODELS - seen.keys())
        if is_done:
            break
        write_repository(new, root)  # what the dead left behind is swept
        assert models(root) == after
        assert {path.name for path in root.iterdir()} == MODELS
    assert step > 10
    assert seen == after
    assert num_missing == (0 if has_exchange else 3)  # for a moment each


def test_an_exchange_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(OSError, match="other") as raised:
        publish.exchange(tmp_path / "one", tmp_path / "other")
    assert raised.value.errno == errno.ENOENT
