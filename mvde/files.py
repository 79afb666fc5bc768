"""Files: content hashes, and writing that is never half done.

What is being written lies under a hidden name that carries its owner: the process and when that started. A process that
was killed leaves it behind; the next one that writes to the same folder removes what belongs to nobody alive.
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
_MAX_LABEL_BYTES = 100  # of a file's own name in its temporary's, which may have 255 in all
_FOREIGN_SECONDS = 24 * 3600.0  # after which what another machine or container was writing counts as left behind

_swept: set[Path] = set()


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


def read_small(path: Path, max_bytes: int) -> bytes:
    """Content of a regular file, or of one that a link leads to. Raises :class:`OSError`, and never waits for a writer.

    That holds for a FIFO, a device, a folder and what is larger than ``max_bytes``, too.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:  # noqa: PTH123 - of a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"it has more than {max_bytes} bytes")
    return content


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, renamed to it when the block ends without an error.

    On any error, Ctrl-C included, the temporary file is removed and what stood at ``path`` is untouched. Raises
    :class:`OutputError` where the block or the rename fails to write (:class:`OSError`).
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:  # once: a run may write ten thousand files to a folder
            sweep(path.parent)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a parent that is a file has been reported above
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(folder: Path, label: str) -> Iterator[Path]:
    """A temporary folder inside ``folder``, removed at the end: for what is to be published elsewhere.

    Raises :class:`OutputError` where the block fails to write (:class:`OSError`).
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
    """A free hidden path beside ``path``, with the suffix that it has, whose name says that this process owns it."""
    host, pid = _host(), os.getpid()
    label = path.stem.encode("utf-8", "surrogateescape")[:_MAX_LABEL_BYTES].decode("utf-8", "ignore")
    owner = f"{host}-{pid}-{_start_of(pid) or 0}"
    return path.with_name(f".{label}.{owner}-{secrets.token_hex(4)}.tmp{path.suffix}")


def sweep(folder: Path) -> None:
    """Remove what processes that have ended were writing in ``folder``."""
    _swept.add(folder)
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if (found := _TEMPORARY.fullmatch(path.name)) is not None and _is_left_behind(path, found):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file (or a folder's entries) to the disk, so that a rename never outlives the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_left_behind(path: Path, name: re.Match[str]) -> bool:
    """Whether the owner of a temporary has ended; of another machine's process nothing is known but the file's age."""
    if name["host"] != _host():
        return time.time() - path.lstat().st_mtime > _FOREIGN_SECONDS
    return _start_of(os.getpid()) is not None and _start_of(int(name["pid"])) != int(name["start"])


def _start_of(pid: int) -> int | None:
    """When a process started, in the kernel's ticks; None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


@lru_cache(maxsize=1)
def _host() -> str:
    """Eight digits for whoever can see the same processes: this boot of this machine, and this container."""
    try:
        space = bytes(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        space, boot = b"", b""
    return hashlib.sha256(space + boot).hexdigest()[:8]


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; nothing was left half written and what stood there before is "
        "untouched"
    )
