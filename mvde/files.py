"""Files: content hashes, bounded reads and atomic writes.

Temporary files have hidden names that identify their owner by process id and start time. If a process is killed, the
next one to write to the same folder removes its leftovers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from mvde.errors import ArtifactError, OutputError
from mvde.manifest import FileRecord

_CHUNK_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.tmp(\..*)?")
_MAX_LABEL_BYTES = 100  # of the target's name within the temporary name, which is limited to 255 bytes
_FOREIGN_SECONDS = 24 * 3600.0  # age at which temporaries of other machines and containers count as abandoned

_swept: set[Path] = set()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits. Raises :class:`ArtifactError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def file_record(path: Path) -> FileRecord:
    """Manifest record of a file: name, SHA-256 and size in bytes."""
    return FileRecord(name=path.name, sha256=sha256_file(path), size_bytes=path.stat().st_size)


def read_small(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes``, following links, without ever blocking.

    Raises :class:`OSError`, also for a FIFO, a device, a directory or a larger file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:  # noqa: PTH123 - a file descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"it has more than {max_bytes} bytes")
    return content


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, atomically renamed to it if the block succeeds.

    On any error, Ctrl-C included, the temporary file is removed and an existing ``path`` is untouched. An
    :class:`OSError` in the block or the rename is raised as :class:`OutputError`.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:  # only once: a run may write ten thousand files to a folder
            sweep(path.parent)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a parent that is not a directory was reported above
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(folder: Path, label: str) -> Iterator[Path]:
    """Yield a temporary directory inside ``folder``, removed on exit.

    An :class:`OSError` in the block is raised as :class:`OutputError`.
    """
    scratch = temporary_path(folder / label)
    try:
        scratch.mkdir(parents=True)
        sweep(folder)
        yield scratch
    except OSError as error:
        raise _output_error(folder / label, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def temporary_path(path: Path) -> Path:
    """Unused hidden path beside ``path``, with the same suffix and this process as its owner."""
    host, pid = _host(), os.getpid()
    label = path.stem.encode("utf-8", "surrogateescape")[:_MAX_LABEL_BYTES].decode("utf-8", "ignore")
    owner = f"{host}-{pid}-{_start_of(pid) or 0}"
    return path.with_name(f".{label}.{owner}-{secrets.token_hex(4)}.tmp{path.suffix}")


def sweep(folder: Path) -> None:
    """Remove temporaries in ``folder`` whose owners have exited."""
    _swept.add(folder)
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if (found := _TEMPORARY.fullmatch(path.name)) is not None and _is_left_behind(path, found):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Fsync a file or directory, so that a rename is never durable before the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_left_behind(path: Path, name: re.Match[str]) -> bool:
    """Whether a temporary's owner has exited; decided by the file's age for other machines and containers."""
    if name["host"] != _host():
        return time.time() - path.lstat().st_mtime > _FOREIGN_SECONDS
    return _start_of(os.getpid()) is not None and _start_of(int(name["pid"])) != int(name["start"])


def _start_of(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if there is none, or a zombie, which writes no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


@lru_cache(maxsize=1)
def _host() -> str:
    """Eight hexadecimal digits that identify the boot and the PID namespace."""
    try:
        space = bytes(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        space, boot = b"", b""
    return hashlib.sha256(space + boot).hexdigest()[:8]


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; no partial file was left and any existing file is unchanged"
    )
