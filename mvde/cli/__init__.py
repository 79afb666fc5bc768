"""Command line: one module per verb; errors become one line on stderr and an exit code (2 usage, 1 failure)."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.cli.terminal import say
from mvde.cli.verbs import VERBS, Verb, application
from mvde.errors import BackendError, MvdeError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT or SIGTERM, as shells expect

_received: list[int] = []
"""Termination signals received by this process."""


def command_line() -> Any:
    """Create the command ``mvde`` with all verbs."""
    app = application(verbs=())
    app.callback()(_root)
    group = typer.main.get_group(app)
    for name in VERBS:
        group.add_command(Verb(name))
    return group


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. ``arguments`` default to ``sys.argv[1:]``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug, given = _take_debug(given)
    _end_on_sigterm()
    sys.exit(execute(given, debug=debug))


def execute(arguments: Sequence[str], debug: bool = False) -> int:
    """Run a command line and return its exit status; errors print one line on stderr, after a traceback if debug."""
    try:
        status = command_line().main(list(arguments), prog_name="mvde", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except Exception as error:  # noqa: BLE001 - every error is reported as one line
        if debug:
            traceback.print_exc()
        return _report(error, debug)
    if status == INTERRUPTED:  # newer versions of typer convert Ctrl-C to this status
        return _interrupted()
    return status if isinstance(status, int) else 0


def _report(error: Exception, debug: bool) -> int:
    """Print an error as one line on stderr and return the exit status."""
    if isinstance(error, MvdeError):
        message, status = str(error), error.exit_code
    elif hasattr(error, "format_message"):  # click's exceptions, which newer versions of typer vendor
        context = getattr(error, "ctx", None)
        message, status = f"{error.format_message()} See `{context.command_path if context else 'mvde'} --help`.", 2
        if type(error).__name__ == "NoArgsIsHelpError":
            say(error.format_message(), file=sys.stderr)
            return status
    elif isinstance(error, OSError):
        message, status = f"{error.filename or 'input or output'}: {error.strerror or error}", 1
    elif isinstance(error, MemoryError):
        message, status = "not enough memory; use a smaller resolution or batch", 1
    else:
        hint = "" if debug else "; run it again with --debug for the traceback"
        message, status = f"unexpected {type(error).__name__}: {error}{hint}", 1
    say(f"mvde: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _end_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, so that partial files are removed.

    Forked children keep the default action.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        return
    leader = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != leader:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        _received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


def _interrupted() -> int:
    is_terminated = signal.SIGTERM in _received
    what = "terminated" if is_terminated else "interrupted"
    print(f"mvde: {what}; no partial file was left", file=sys.stderr)
    return TERMINATED if is_terminated else INTERRUPTED


def _take_debug(arguments: list[str]) -> tuple[bool, list[str]]:
    """Remove ``--debug`` anywhere before ``--``, also after the verb; return whether it was given, and the rest."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return len(kept) < end, kept + arguments[end:]


def _print_version(value: bool) -> None:
    if value:
        from mvde import __version__

        print(f"mvde {__version__}")
        raise typer.Exit


def _print_cmake_dir(value: bool) -> None:
    if value:
        from mvde.native import cmake_dir

        folder = cmake_dir()
        if folder is None:
            raise BackendError(
                "this installation has no CMake package: install a wheel, or run `cmake --install` instead"
            )
        print(folder)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    cmake_dir: Annotated[
        bool,
        typer.Option(
            "--cmake-dir",
            callback=_print_cmake_dir,
            is_eager=True,
            help="Print the value for CMake's mvde_DIR and exit.",
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print tracebacks of errors; also accepted after the verb.")
    ] = False,
) -> None:
    """Estimate metric depth and per-patch depth statistics from a single camera."""
