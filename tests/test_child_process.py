"""Errors propagated from child processes, and messages for a child that exited."""

from __future__ import annotations

import pickle
import signal

from mvde.child_process import ChildTraceback, how_it_ended, portable_error
from mvde.errors import ArtifactError


def test_a_child_that_ends_without_an_answer_is_explained() -> None:
    killed = how_it_ended("builds the engine", -signal.SIGKILL, "use a smaller batch")
    assert killed == (
        "the process that builds the engine was killed, as the system does when memory runs out; use a smaller batch"
    )
    assert "exit code 3" in how_it_ended("builds the engine", 3, "use a smaller batch")


def test_an_error_that_can_travel_stays_what_it_is() -> None:
    error = portable_error(ArtifactError("no engine"))
    assert isinstance(error, ArtifactError)
    assert str(pickle.loads(pickle.dumps(error))) == "no engine"


def test_an_error_that_cannot_travel_arrives_as_its_text() -> None:
    class LocalError(Exception):
        pass

    assert str(portable_error(LocalError("gone"))) == "LocalError: gone"


def test_a_traceback_says_which_process_it_is_of() -> None:
    assert str(ChildTraceback("traces the model", "Traceback ...")).startswith("in the process that traces the model:")
