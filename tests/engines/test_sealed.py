"""Sealed content: read once, hashed, and shared between processes."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from mvde.engines.sealed import SealedFile
from mvde.errors import ArtifactError

CONTENT = bytes(range(256)) * 9000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "engine.blob").write_bytes(CONTENT)
    return tmp_path / "engine.blob"


@pytest.fixture(params=["sealed", "private"])
def sealed(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SealedFile:
    if request.param == "private":
        monkeypatch.delattr(os, "memfd_create")
    return SealedFile(path)


def test_content_is_what_the_file_was_when_it_was_opened(sealed: SealedFile, path: Path) -> None:
    path.write_bytes(b"other" * 1000)
    os.truncate(path, 3)
    assert sealed.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert sealed.size_bytes == len(CONTENT)
    assert sealed.array.tobytes() == bytes(sealed.view()) == CONTENT


def test_nobody_can_write_what_was_hashed(path: Path) -> None:
    sealed = SealedFile(path)
    assert sealed.fd is not None
    for change in (
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 1),
        lambda fd: os.ftruncate(fd, 9**9),
    ):
        with pytest.raises(PermissionError):
            change(sealed.fd)
    with pytest.raises(PermissionError):
        fcntl.fcntl(sealed.fd, fcntl.F_ADD_SEALS, 0)
    mine = sealed.array
    mine[:] = 0  # mappings are private (copy-on-write)
    assert sealed.array.tobytes() == CONTENT


def test_maps_outlive_the_descriptor(path: Path) -> None:
    sealed = SealedFile(path)
    array = sealed.array
    sealed.close()
    sealed.close()
    assert sealed.fd is None
    assert array.tobytes() == CONTENT


def test_an_empty_file_has_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    sealed = SealedFile(tmp_path / "empty")
    assert sealed.array.shape == (0,)
    assert sealed.array.dtype == np.uint8
    assert sealed.sha256 == hashlib.sha256().hexdigest()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    signal.alarm(5)
    for path, words in ((tmp_path / "pipe", "not a regular file"), (tmp_path / "none", "No such file")):
        with pytest.raises(ArtifactError, match=words):
            SealedFile(path)
    with pytest.raises(ArtifactError, match="not a regular file"):
        SealedFile(Path("/dev/zero"))
    signal.alarm(0)


def _identify(received: SealedFile, answers: multiprocessing.SimpleQueue) -> None:
    inode = None if received.fd is None else os.fstat(received.fd).st_ino
    answers.put((inode, received.sha256, hashlib.sha256(received.view()).hexdigest()))


def test_a_spawned_process_shares_the_memory(sealed: SealedFile, path: Path) -> None:
    path.unlink()
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    worker = context.Process(target=_identify, args=(sealed, answers))
    worker.start()
    inode, sha256, actual = answers.get()
    worker.join()
    assert inode == (None if sealed.fd is None else os.fstat(sealed.fd).st_ino)
    assert sha256 == actual == sealed.sha256


def test_a_descriptor_that_can_be_written_is_not_taken(path: Path) -> None:
    from mvde.engines.sealed import _received

    class Sent:
        def detach(self) -> int:
            return os.memfd_create("open", os.MFD_ALLOW_SEALING)

    with pytest.raises(ArtifactError, match="is not sealed"):
        _received(Sent(), "0" * 64)
