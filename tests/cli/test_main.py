"""The command line: exit codes, one-line errors, tracebacks on request only, and start-up time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import mvde
import mvde.native  # before a test unloads the package
from mvde import cli
from mvde.cli.verbs import VERBS, Verb
from mvde.errors import ConfigError, ImageError, MvdeError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> object:
    """Make the only verb of the application raise a given error."""

    def install(error: BaseException) -> None:
        app = typer.Typer()
        app.callback()(lambda: None)

        @app.command()
        def verb() -> None:
            raise error

        monkeypatch.setattr(cli, "command_line", lambda: typer.main.get_command(app))

    return install


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ImageError("the image\nis grey"), 1, "mvde: error: the image is grey"),
        (ConfigError("unknown key"), 2, "mvde: error: unknown key"),
        (MvdeError("failed"), 1, "mvde: error: failed"),
        (OSError(errno.ENOSPC, "No space left on device", "out.png"), 1, "out.png: No space left on device"),
        (MemoryError(), 1, "not enough memory"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops; run it again with --debug"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (typer.BadParameter("nope"), 2, "nope"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    failing: object, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, text: str
) -> None:
    failing(error)  # type: ignore[operator]
    assert cli.execute(["verb"]) == status
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == (1 if text else 0)
    assert "Traceback" not in captured.err


def test_debug_shows_the_traceback(failing: object, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ImageError("grey"))  # type: ignore[operator]
    for arguments in (["--debug", "verb"], ["verb", "--debug"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 1
        captured = capsys.readouterr()
        assert "Traceback (most recent call last)" in captured.err
        assert captured.err.endswith("mvde: error: grey\n")


@pytest.mark.parametrize(
    "arguments", [["fly"], ["run"], ["run", "--no-such-option", "x"], ["bench", "--frames", "many"]]
)
def test_wrong_usage_is_one_line_and_two(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.execute(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("mvde: error: ")
    assert captured.err.count("\n") == 1
    assert "--help" in captured.err


@pytest.mark.parametrize("is_there", [True, False])
def test_the_cmake_package_is_named(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lib/cmake/mvde"
    monkeypatch.setattr(mvde, "__path__", [str(tmp_path)])
    if is_there:
        folder.mkdir(parents=True)
        (folder / "mvdeConfig.cmake").touch()
    assert cli.execute(["--cmake-dir"]) == (0 if is_there else 1)
    shown = capsys.readouterr()
    assert shown.out == (f"{folder}\n" if is_there else "")
    assert is_there or "install a wheel" in shown.err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["--version"]) == 0
    assert capsys.readouterr().out == f"mvde {mvde.__version__}\n"


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_what_each_says_of_itself(verb: str) -> None:
    assert Verb(verb).load().help.split("\n\n")[0].replace("\n", " ") == VERBS[verb]


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mvde", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_help_and_import_are_fast(tmp_path: Path) -> None:
    """Targets are 0.3 s and 0.1 s; since machines vary by more, the limit is relative to importing typer.

    Best of five CPU times, of compiled modules: `mvde --help` took 1.0 to 1.5 times as long as importing typer (0.11 s
    on a loaded AMD EPYC), and up to 3.1 times when it imported the modules of all verbs.
    """
    bare, typer_s, help_s, import_s = (
        min(_cpu_seconds(*arguments, cache=tmp_path) for _ in range(5))
        for arguments in (("-c", "pass"), ("-c", "import typer.main"), ("-m", "mvde", "--help"), ("-c", "import mvde"))
    )
    assert help_s - bare < 2.0 * (typer_s - bare)
    assert import_s - bare < typer_s - bare


def _cpu_seconds(*arguments: str, cache: Path) -> float:
    """CPU seconds of Python, whose compiled modules are kept in ``cache`` whatever the environment says."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)  # to the microsecond, where os.times counts ticks of 10 ms
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime
