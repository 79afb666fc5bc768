"""Publication is atomic: a kill at any point leaves the old or the new artefact complete, and leftovers are removed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde import files
from mvde.artifact import GraphArtifact, list_graphs, load_artifact, manifest_path, write_manifest
from mvde.errors import OutputError
from mvde.export.precision.lowering_options import LowerOptions
from mvde.export.precision.typed_graph import write_typed
from mvde.files import atomic_write, file_record, scratch_folder, temporary_path
from mvde.precision import Precision
from mvde.publish import publish, staged_write
from tests.signals import accept_sigint

Writer = Callable[..., GraphArtifact]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def stage(graph: GraphArtifact, staging: Path, content: bytes, companion: bytes = b"") -> None:
    """Write a graph with the given content, and optionally a companion file, to ``staging``."""
    path = staging / graph.path.name
    path.write_bytes(content)
    companions = ()
    if companion:
        (staging / f"{path.stem}.notes.txt").write_bytes(companion)
        companions = (file_record(staging / f"{path.stem}.notes.txt"),)
    write_manifest(dataclasses.replace(graph.manifest, file=file_record(path), companions=companions), path)


@pytest.fixture
def graph(write_graph: Writer, tmp_path: Path) -> GraphArtifact:
    return write_graph(tmp_path / "export")


def test_a_kill_before_any_step_leaves_the_old_or_the_new_artefact(graph, kill_when_publishing):
    folder = graph.path.parent
    with staged_write(folder, "tiny") as staging:
        stage(graph, staging, b"old", b"old notes")
    found = []

    def check(folder: Path) -> None:
        artifact = load_artifact(graph.path)  # by the user's path and by the manifest's
        assert load_artifact(manifest_path(graph.path)) == artifact
        assert [one.path for one in list_graphs(folder)] == [artifact.path]
        found.append((artifact.path.read_bytes(), artifact.companions[0].read_bytes()))

    killed = kill_when_publishing(check)
    with staged_write(folder, "tiny") as staging:
        stage(graph, staging, b"new", b"new notes")
    assert len(killed) >= 6
    assert set(found) == {(b"old", b"old notes"), (b"new", b"new notes")}
    assert found == sorted(found, reverse=True)  # never back to the old one
    assert load_artifact(graph.path).path.read_bytes() == b"new"
    assert names(folder) == ["tiny-32x48.json", "tiny-32x48.notes.txt", "tiny-32x48.onnx"]


def test_what_a_kill_left_is_gone_after_the_next_publication(graph, kill_when_publishing, monkeypatch):
    folder = graph.path.parent
    left: list[list[str]] = []
    kill_when_publishing(lambda folder: left.append(names(folder)))
    with staged_write(folder, "tiny") as staging:
        stage(graph, staging, b"new")
    assert any(len(files) > 2 for files in left)
    for step in range(1, len(left) + 1):
        for path in folder.iterdir():
            path.unlink()
        write_manifest(graph.manifest, graph.path)
        for name in left[step - 1]:
            if not (folder / name).exists():
                (folder / name).write_bytes(b"left behind")
        monkeypatch.undo()
        with staged_write(folder, "tiny") as staging:
            stage(graph, staging, b"newer")
        assert names(folder) == ["tiny-32x48.json", "tiny-32x48.onnx"], left[step - 1]


def test_other_artefacts_of_the_folder_are_left_alone(graph, write_graph):
    folder = graph.path.parent
    others = [
        write_graph(folder, "tiny", (64, 64)).path,
        folder / "tiny-32x48.int8.onnx",
        folder / "tiny-32x48.abc.onnx",
    ]
    for other in others[1:]:
        other.write_bytes(b"another")
    with staged_write(folder, "tiny") as staging:
        stage(graph, staging, b"new")
    assert all(other.is_file() for other in others)


def test_a_full_disk_leaves_the_old_artefact_and_no_more(graph, monkeypatch):
    folder, before = graph.path.parent, graph.path.read_bytes()

    def refuse(path: Path, *arguments: object, **options: object) -> int:
        raise OSError(28, os.strerror(28))

    with pytest.raises(OutputError, match="No space left"), staged_write(folder, "tiny") as staging:  # noqa: PT012
        stage(graph, staging, b"new")
        monkeypatch.setattr(Path, "write_text", refuse)
    assert load_artifact(graph.path).path.read_bytes() == before
    assert names(folder) == ["tiny-32x48.json", "tiny-32x48.onnx"]
    assert [path for path in folder.iterdir() if path.is_dir()] == []


def test_a_file_system_without_links_gets_copies(graph, monkeypatch):
    def refuse(source: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with staged_write(graph.path.parent, "tiny") as staging:
        stage(graph, staging, b"new")
    assert load_artifact(graph.path).path.read_bytes() == b"new"
    assert names(graph.path.parent) == ["tiny-32x48.json", "tiny-32x48.onnx"]


def test_a_build_killed_anywhere_leaves_the_old_or_the_new_engine(build_tiny, make_old, kill_when_publishing, tmp_path):
    pytest.importorskip("openvino")
    blob = build_tiny(tmp_path) / "engine.blob"
    make_old(blob)
    found = []
    kill_when_publishing(lambda folder: found.append(load_artifact(folder / "engine.json").manifest.created))
    build_tiny(tmp_path)
    assert found[0] == "long ago"
    assert found[-1] != "long ago"
    assert names(blob.parent) == ["engine.blob", "engine.json"]


def test_a_lowering_killed_anywhere_leaves_the_old_or_the_new_graph(graph, make_old, kill_when_publishing):
    options = LowerOptions()
    typed = write_typed(graph, Precision.FP16, options).path
    make_old(typed)
    found = []
    kill_when_publishing(lambda folder: found.append(load_artifact(typed).manifest.created))
    write_typed(graph, Precision.FP16, options)
    assert found[0] == "long ago"
    assert found[-1] != "long ago"
    assert load_artifact(graph.path) == graph


def dead_owner() -> int:
    """Id of a process that has exited."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


def test_temporaries_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path, monkeypatch):
    living = temporary_path(tmp_path / "a.onnx")
    mine = f"-{os.getpid()}-"
    assert mine in living.name
    dead = [tmp_path / living.name.replace(mine, f"-{dead_owner()}-"), tmp_path / ".engine.tmp"]
    reused = tmp_path / living.name.replace(mine, f"-{os.getpid()}-1")  # the same id, reused by another process
    elsewhere = [temporary_path(tmp_path / name) for name in ("new.txt", "old.txt")]
    host = files._host()
    elsewhere = [path.with_name(path.name.replace(host, "0123abcd")) for path in elsewhere]
    for path in (living, reused, *dead, *elsewhere):
        path.write_text("half")
    folder = temporary_path(tmp_path / "engine")
    folder = folder.with_name(folder.name.replace(mine, f"-{dead_owner()}-"))
    (folder / "deep").mkdir(parents=True)
    os.utime(elsewhere[1], (0, 0))
    with scratch_folder(tmp_path, "engine"):
        pass
    assert names(tmp_path) == sorted([".engine.tmp", living.name, elsewhere[0].name])
    assert not folder.exists()


def test_a_folder_is_swept_by_the_first_file_that_a_process_writes_there(tmp_path):
    stale = temporary_path(tmp_path / "a.npy")
    stale = stale.with_name(stale.name.replace(f"-{os.getpid()}-", f"-{dead_owner()}-"))
    stale.write_text("half")
    with atomic_write(tmp_path / "b.npy") as path:
        path.write_text("whole")
    assert names(tmp_path) == ["b.npy"]


def test_the_name_of_a_temporary_is_one_that_a_file_may_have(tmp_path):
    with atomic_write(tmp_path / ("ä" * 120 + ".npy")) as path:
        path.write_text("whole")
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_line_without_leaving_temporaries(tmp_path, number, status):
    script = tmp_path / "wait.py"
    script.write_text(f"""
import time
from pathlib import Path
from mvde import cli
from mvde.files import atomic_write, scratch_folder

def wait(arguments, debug=False):
    folder = Path({str(tmp_path / "out")!r})
    with scratch_folder(folder, "engine") as scratch, atomic_write(folder / "a.txt") as path:
        path.write_text("half")
        (scratch / "b").write_text("half")
        time.sleep(60)

cli.command_line = lambda: type("Command", (), {{"main": staticmethod(lambda *a, **k: wait(a))}})
cli.main(["run"])
""")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=accept_sigint,
    )
    while not list((tmp_path / "out").glob(".a.*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert err.endswith("no partial file was left\n")
    assert err.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_publishing_holds_signals_back(graph, monkeypatch):
    masks = []
    rename = os.replace

    def look(*arguments: object) -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        rename(*arguments)

    monkeypatch.setattr(os, "replace", look)
    with scratch_folder(graph.path.parent, "tiny") as staging:
        stage(graph, staging, b"new")
        masks.clear()
        publish(staging, graph.path.parent)
    assert all({signal.SIGINT, signal.SIGTERM} <= mask for mask in masks)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_another_thread_takes_waits_for_the_end(graph, monkeypatch, number):
    rename, steps = os.replace, []

    def interrupted(*arguments: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # as long as the other thread's share of the processor takes
        rename(*arguments)
        steps.append(arguments)

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    idle = threading.Event()
    worker = threading.Thread(target=idle.wait)
    worker.start()
    try:
        with scratch_folder(graph.path.parent, "tiny") as staging:
            stage(graph, staging, b"new", b"new notes")
            monkeypatch.setattr(os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                publish(staging, graph.path.parent)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
        idle.set()
        worker.join()
    assert len(steps) >= 4
    assert load_artifact(graph.path).path.read_bytes() == b"new"
    assert names(graph.path.parent) == ["tiny-32x48.json", "tiny-32x48.notes.txt", "tiny-32x48.onnx"]
