"""Files on disk or behind an fsspec URL (``s3://``, ``memory://``), by one set of functions."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mvde.errors import DatasetError, MissingDependencyError, MvdeError

ABSENT = -1
"""Size of a file that is not there."""


def is_url(location: str) -> bool:
    """Whether a location is an fsspec URL and no path."""
    return "://" in location


def joined(root: str, path: str) -> str:
    """Location of ``path`` under ``root``, which may be empty; an absolute path or URL stays as it is."""
    if not root or is_url(path) or path.startswith("/"):
        return path
    return f"{root.rstrip('/')}/{path}"


def is_folder(location: str) -> bool:
    """Whether there is a folder at the location."""
    if not is_url(location):
        return Path(location).is_dir()
    with _reaching(location):
        system, path = _system(location)
        return bool(system.isdir(path))


def size_of(location: str) -> int:
    """Size of a regular file in bytes, or ``ABSENT``."""
    if is_url(location):
        with _reaching(location):
            system, path = _system(location)
            try:
                return int(system.info(path)["size"])
            except OSError:
                return ABSENT
    try:
        found = Path(location).stat()
    except OSError:
        return ABSENT
    return found.st_size if stat.S_ISREG(found.st_mode) else ABSENT


def open_file(location: str) -> IO[bytes]:
    """Open a regular file for reading. Raises :class:`OSError`, :class:`DatasetError` for a URL out of reach."""
    if is_url(location):
        with _reaching(location):
            system, path = _system(location)
            opened: IO[bytes] = system.open(path, "rb")
            return opened
    if not stat.S_ISREG(Path(location).stat().st_mode):  # opening a FIFO would block
        raise OSError("it is not a regular file")
    return Path(location).open("rb")


def read_file(location: str, max_bytes: int) -> bytes:
    """The first ``max_bytes`` of a regular file. Raises as :func:`open_file` does."""
    if not is_url(location):
        with open_file(location) as stream:
            return stream.read(max_bytes)
    with _reaching(location), open_file(location) as stream:
        return stream.read(max_bytes)


def matches(pattern: str) -> list[str]:
    """Locations that a path, URL or glob pattern names, sorted; empty if there is none."""
    if not glob.has_magic(pattern):
        return [pattern] if is_folder(pattern) or size_of(pattern) != ABSENT else []
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - patterns may be absolute
    with _reaching(pattern):
        system, path = _system(pattern)
        return sorted(str(system.unstrip_protocol(found)) for found in system.glob(path))


def walk(folder: str) -> Iterator[str]:
    """Paths of all files under a folder, relative to it with ``/``; each directory in order of name, lazily."""
    if is_url(folder):
        with _reaching(folder):
            system, root = _system(folder)
            prefix = root.rstrip("/") + "/"
            yield from (found.removeprefix(prefix) for found in _walk_system(system, root))
    else:
        yield from _walk_disk(folder, "")


def _walk_disk(folder: str, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise DatasetError(f"cannot list {folder}: {error.strerror or error}") from error
    for name, is_directory in found:
        if is_directory:
            yield from _walk_disk(f"{folder}/{name}", f"{prefix}{name}/")
        else:
            yield prefix + name


def _walk_system(system: Any, folder: str) -> Iterator[str]:
    for entry in sorted(system.ls(folder, detail=True), key=lambda entry: str(entry["name"])):
        if entry["type"] == "directory":
            yield from _walk_system(system, entry["name"])
        else:
            yield str(entry["name"])


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Raise :class:`DatasetError` for errors that are no OSErrors: each file system has its own, as for credentials."""
    try:
        yield
    except (OSError, MvdeError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DatasetError(f"cannot reach {url}: {reason}; check the address and the credentials") from error


def _system(url: str) -> tuple[Any, str]:
    """File system of a URL, and its path there. Raises :class:`DatasetError` if it cannot be reached."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependencyError.for_extra("fsspec", "bulk", f"reading {url}") from error
    try:
        system, path = url_to_fs(url)
    except (ValueError, ImportError, OSError) as error:
        raise DatasetError(f"cannot open {url}: {' '.join(str(error).split())}") from error
    return system, str(path)
