"""Atomic publication of artefacts: if the process is killed, either the old or the new artefact is complete.

An artefact has several files, and a folder of graphs holds several artefacts, so a single directory rename cannot
publish one. Its manifest, however, is one file that names the others. To replace an artefact, the new files are first
stored beside the old ones under content-addressed names (``engine.1a2b3c4d.blob``) together with a manifest that uses
those names; the rename of this manifest is the commit point. The content is then linked to the usual names, and a
second rename switches the manifest to them. Content-addressed files that no manifest refers to are removed at the end,
or by the next publication.

Rejected alternatives: permanent content-addressed names, which change the paths that users pass to other tools, and
exchanging directories, which not every file system supports and which does not work for folders of several artefacts.
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
    """Yield a staging directory inside ``folder``, whose artefact is published to ``folder`` if the block succeeds.

    For artefacts of several files, which have their final names from the start and can be verified before they are
    visible. Raises :class:`OutputError` as :func:`mvde.files.atomic_write` does.
    """
    with scratch_folder(folder, label) as staging:
        yield staging
        publish(staging, folder)


def publish(staging: Path, folder: Path) -> None:
    """Move the files of ``staging`` into ``folder``, on the same file system; the folder is created if missing.

    If they include a manifest, they replace the old artefact atomically. SIGINT and SIGTERM are blocked meanwhile.
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
    """Content-addressed name of a file: ``engine.1a2b3c4d.blob`` for ``engine.blob``.

    ``stem`` is the stem of the artefact's manifest.
    """
    rest = name.removeprefix(stem) if name.startswith(f"{stem}.") else f".{name}"
    return f"{stem}.{sha256[:8]}{rest}"


def _publish_artefact(path: Path, manifest: Manifest, others: list[Path], folder: Path) -> None:
    """Publish ``others`` and the manifest at ``path`` that refers to them."""
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
    """Move in ``others``, renamed by ``aside``, and commit a manifest at ``target`` that refers to these names.

    Afterwards the usual names have the same content.
    """
    folder, interim = target.parent, temporary_path(target)
    try:
        for other in others:
            other.replace(folder / aside.get(other.name, other.name))
        sync(folder)
        interim.write_text(_renamed(manifest, aside).to_json(), encoding="utf-8")
        sync(interim)
        interim.replace(target)  # commit point: the new artefact is visible from here on
    except OSError:
        for name in (interim.name, *aside.values()):
            (folder / name).unlink(missing_ok=True)
        raise
    sync(folder)
    for name, content in aside.items():
        _copy_over(folder / content, folder / name)
    sync(folder)


def _stated(path: Path) -> tuple[Path, Manifest] | None:
    """Path and manifest if ``path`` is a valid manifest, else None."""
    if path.suffix != ".json":
        return None
    try:
        return path, manifest_from_bytes(read_small(path, MAX_MANIFEST_BYTES), str(path))
    except (ManifestError, OSError):
        return None


def _differs(target: Path, record: FileRecord) -> bool:
    """Whether ``target`` exists and does not match the record."""
    if not target.exists():
        return False
    try:
        return target.stat().st_size != record.size_bytes or sha256_file(target) != record.sha256
    except ArtifactError:
        return True


def _renamed(manifest: M, names: dict[str, str]) -> M:
    """Copy of the manifest with files renamed by ``names``."""

    def renamed(record: FileRecord) -> FileRecord:
        return dataclasses.replace(record, name=names.get(record.name, record.name))

    companions = tuple(renamed(record) for record in manifest.companions)
    return dataclasses.replace(manifest, file=renamed(manifest.file), companions=companions)


def _copy_over(source: Path, target: Path) -> None:
    """Hard-link ``source`` to ``target`` atomically, or copy it if the file system has no links."""
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
    """Content-addressed files that the manifest at ``path`` refers to, if any."""
    found = _stated(path)
    records = (found[1].file, *found[1].companions) if found is not None else ()
    return {record.name for record in records if re.search(_CONTENT, record.name)}


def _left_behind(folder: Path, stem: str) -> set[str]:
    """Content-addressed files in ``folder`` that belong to the manifest ``stem``."""
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
