"""Untrusted text from manifests, files and libraries: control sequences are escaped on the terminal."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from mvde.artifact import load_engine_artifact, write_manifest
from mvde.cli import execute
from mvde.cli.terminal import console, printable, say
from mvde.engines.store import find

HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\u202e"
SHOWN = r"\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\u202e"


def test_control_characters_are_shown_in_their_escaped_form() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("half \udc80, lines\n\tstay, Höhe in m² stays") == "half \\udc80, lines\n\tstay, Höhe in m² stays"


@pytest.mark.parametrize("verb", ["info", "run"])
def test_a_path_with_escape_sequences_is_one_printable_error(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert execute([verb, f"/nowhere/{HOSTILE}.json"]) != 0
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert r"\x1b[31mred" in told


def test_a_manifest_with_escape_sequences_is_a_printable_table(
    engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    folder = tmp_path / "engine"
    shutil.copytree(engine_folder, folder)
    artifact = load_engine_artifact(find(folder).path)
    record = dataclasses.replace(artifact.manifest.engine, device="A CPU" + HOSTILE)
    write_manifest(dataclasses.replace(artifact.manifest, engine=record), artifact.path)
    assert execute(["info", str(folder)]) == 0
    told = capsys.readouterr().out
    assert r"A CPU\x1b[31mred" in told
    assert not set(told) & set("\x1b\x07\x9b\x7f\u202e")


def test_lines_and_consoles_print_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    console().print(HOSTILE, markup=False, soft_wrap=True)
    assert capsys.readouterr().out == f"{SHOWN}\n{SHOWN}\n"
