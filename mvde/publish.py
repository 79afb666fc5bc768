"""Artefacts into their folder, in one step: whatever a kill interrupts, the old one or the new one is whole.

An artefact is several files, and a folder of graphs holds several artefacts, so that there is no single rename for it
all; but its manifest is one file that names the others. Where an older artefact lies under the same names, the new
files come in beside its files, under names of their content (``engine.1a2b3c4d.blob``), with a manifest that says so:
its rename is the step. Then the content gets the names that users know as well, and, by a second rename, so does the
manifest. Content names that no manifest states any more are removed at the end, and by the next one to publish.

The alternatives were content names for good, which change the path that users give to other tools, and an exchange of
folders, which not every file system has and which folders of several artefacts do not allow.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from mvde.errors import ArtifactError, ManifestError
from mvde.files import read_small, scratch_folder, sha256_file, sync, temporary_path
from mvde.manifest import MAX_MANIFEST_BYTES, FileRecord, Manifest, manifest_from_bytes

M = TypeVar("M", bound=Manifest)

_CONTENT = r"\.[0-9a-f]{8}\."
_HELD = (signal.SIGINT, signal.SIGTERM)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}  # file system, kernel, sandbox


@contextlib.contextmanager
def staged_write(folder: Path, label: str = "artefact") -> Iterator[Path]:
    """A temporary folder inside ``folder``, whose artefact is published there when the block ends without an error.

    For artefacts of several files: they carry their final names from the start and can be checked before anybody sees
    them. Raises :class:`OutputError` as :func:`mvde.files.atomic_write` does.
    """
    with scratch_folder(folder, label) as staging:
        yield staging
        publish(staging, folder)


def publish(staging: Path, folder: Path) -> None:
    """Move the files of ``staging`` into ``folder``, which is made where it is not there and on the same disk.

    With a manifest among them they are an artefact, and the old one is replaced in one step. Ctrl-C and SIGTERM are
    held back until all are in place.
    """
    files = sorted(staging.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
    for path in files:
        sync(path)
    folder.mkdir(parents=True, exist_ok=True)
    stated = next((found for path in files if (found := _stated(path)) is not None), None)
    with _signals_held():
        if stated is None:
            _move(files, folder)
        else:
            _publish_artefact(*stated, [path for path in files if path != stated[0]], folder)
        sync(folder)


def publish_folders(made: Sequence[Path], parent: Path) -> None:
    """Move the folders of ``made`` into ``parent``, on the same disk, each in one step; signals are held back.

    One of the same name is exchanged for the new one and lies at the path in ``made`` afterwards. Where the file system
    knows no exchange (NFS, some overlays), it is moved away first, and for a moment there is none of that name.
    """
    for folder in made:
        for path in (*folder.rglob("*"), folder):
            sync(path)
    with _signals_held():
        for folder in made:
            target = parent / folder.name
            if not target.exists():
                folder.replace(target)
            elif not exchange(folder, target):
                aside = temporary_path(folder)
                target.replace(aside)
                folder.replace(target)
                aside.replace(folder)
        sync(parent)


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths of one file system in one step; False where the system cannot. Raises :class:`OSError`."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def content_name(name: str, stem: str, sha256: str) -> str:
    """The name of a file's content while an older file has its own: ``engine.1a2b3c4d.blob`` of ``engine.blob``.

    ``stem`` is that of the artefact's manifest.
    """
    rest = name.removeprefix(stem) if name.startswith(f"{stem}.") else f".{name}"
    return f"{stem}.{sha256[:8]}{rest}"


def _publish_artefact(path: Path, manifest: Manifest, others: list[Path], folder: Path) -> None:
    """Publish ``others``, and the manifest at ``path`` that states them."""
    target = folder / path.name
    records = {record.name: record for record in (manifest.file, *manifest.companions)}
    before = _content_names(target)
    aside = {
        other.name: content_name(other.name, path.stem, record.sha256)
        for other in others
        if (record := records.get(other.name)) is not None and target.exists() and _differs(folder / other.name, record)
    }
    if aside:
        _replace_by_content(manifest, others, aside, target)
    else:
        _move(others, folder)
    path.replace(target)
    sync(folder)
    for name in (before | _left_behind(folder, path.stem)) - records.keys():
        (folder / name).unlink(missing_ok=True)


def _replace_by_content(manifest: Manifest, others: list[Path], aside: dict[str, str], target: Path) -> None:
    """Bring in ``others``, those of ``aside`` under the names that it gives them, and let ``target`` state them so.

    Their usual names hold the same content afterwards.
    """
    folder, interim = target.parent, temporary_path(target)
    try:
        for other in others:
            other.replace(folder / aside.get(other.name, other.name))
        sync(folder)
        interim.write_text(_renamed(manifest, aside).to_json(), encoding="utf-8")
        sync(interim)
        interim.replace(target)  # from here on the new artefact is what there is
    except OSError:
        for name in (interim.name, *aside.values()):
            (folder / name).unlink(missing_ok=True)
        raise
    sync(folder)
    for name, content in aside.items():
        _copy_over(folder / content, folder / name)
    sync(folder)


def _stated(path: Path) -> tuple[Path, Manifest] | None:
    """The manifest at ``path``, if that is one."""
    if path.suffix != ".json":
        return None
    try:
        return path, manifest_from_bytes(read_small(path, MAX_MANIFEST_BYTES), str(path))
    except (ManifestError, OSError):
        return None


def _differs(target: Path, record: FileRecord) -> bool:
    """Whether something other than what a record describes lies at ``target``."""
    if not target.exists():
        return False
    try:
        return target.stat().st_size != record.size_bytes or sha256_file(target) != record.sha256
    except ArtifactError:
        return True


def _renamed(manifest: M, names: dict[str, str]) -> M:
    """The manifest with other names for some of its files."""

    def renamed(record: FileRecord) -> FileRecord:
        return dataclasses.replace(record, name=names.get(record.name, record.name))

    companions = tuple(renamed(record) for record in manifest.companions)
    return dataclasses.replace(manifest, file=renamed(manifest.file), companions=companions)


def _copy_over(source: Path, target: Path) -> None:
    """Make ``target`` another name of ``source`` (a copy of it, where the file system has no links), in one step."""
    temporary = temporary_path(target)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _content_names(path: Path) -> set[str]:
    """Files that the manifest at ``path``, if there is one, states by names of their content."""
    found = _stated(path)
    records = (found[1].file, *found[1].companions) if found is not None else ()
    return {record.name for record in records if re.search(_CONTENT, record.name)}


def _left_behind(folder: Path, stem: str) -> set[str]:
    """Files under names of their content beside the manifest of that stem."""
    is_content_name = re.compile(rf"{re.escape(stem)}{_CONTENT}(?!json$).+").fullmatch
    return {path.name for path in folder.iterdir() if is_content_name(path.name)}


def _move(files: list[Path], folder: Path) -> None:
    for path in files:
        path.replace(folder / path.name)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block ends.

    A mask alone does not: it is this thread's, and another one (a library's worker) takes a signal of the process, so
    that Python calls the handler in the main thread none the less. There, the handlers are replaced, too.
    """
    received: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    handlers = _replace_handlers(lambda number, frame: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for one in dict.fromkeys(received):
            signal.raise_signal(one)


def _replace_handlers(handler: Callable[[int, FrameType | None], object]) -> dict[signal.Signals, Any]:
    """The handlers that were replaced: none outside the main thread, none for what is ignored or not Python's."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    former = {number: signal.getsignal(number) for number in _HELD}
    replaced = {number: one for number, one in former.items() if one not in (None, signal.SIG_IGN)}
    for number in replaced:
        signal.signal(number, handler)
    return replaced
