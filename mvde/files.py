"""Files: content hashes, and writing that is never half done."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from mvde.errors import ArtifactError, OutputError
from mvde.manifest import FileRecord

_CHUNK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits. Raises :class:`ArtifactError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def file_record(path: Path) -> FileRecord:
    """Name, SHA-256 and size in bytes of a file, as its manifest states them."""
    return FileRecord(name=path.name, sha256=sha256_file(path), size_bytes=path.stat().st_size)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, renamed to it when the block ends without an error.

    On any error, Ctrl-C included, the temporary file is removed and what stood at ``path`` is untouched. Raises
    :class:`OutputError` where the block or the rename fails to write (:class:`OSError`).
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a parent that is a file has been reported above
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_write(folder: Path, label: str = "artefact") -> Iterator[Path]:
    """A temporary folder inside ``folder``; its files are moved out together when the block ends without an error.

    For artefacts of several files: they carry their final names from the start (an ONNX file names its external data)
    and can be checked before anybody sees them. Raises :class:`OutputError` as :func:`atomic_write` does.
    """
    with scratch_folder(folder, label) as staging:
        yield staging
        publish(staging, folder)


@contextlib.contextmanager
def scratch_folder(folder: Path, label: str) -> Iterator[Path]:
    """A temporary folder inside ``folder``, removed at the end: for what :func:`publish` is to move elsewhere.

    Raises :class:`OutputError` where the block fails to write (:class:`OSError`).
    """
    scratch = folder / f".{label}.{secrets.token_hex(4)}.tmp"
    try:
        scratch.mkdir(parents=True)
        yield scratch
    except OSError as error:
        raise _output_error(folder / label, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish(staging: Path, folder: Path) -> None:
    """Move every file of ``staging`` into ``folder``, which is made where it is not there and on the same disk.

    Manifests move last, so that a crash between two renames leaves a file that its manifest refuses. Ctrl-C is held
    back until all are in place.
    """
    files = sorted(staging.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
    for path in files:
        _sync(path)
    folder.mkdir(parents=True, exist_ok=True)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for path in files:
            path.replace(folder / path.name)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    _sync(folder)


def _sync(path: Path) -> None:
    """Force a file (or a folder's entries) to the disk, so that a rename never outlives the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; nothing was left half written and what stood there before is "
        "untouched"
    )
