"""An engine's files as they were when it was opened: what was compared with the manifest is what the library gets."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mvde.artifact import AnyArtifact, check_content, check_is_there, read_artifact
from mvde.engines.sealed import SealedFile
from mvde.errors import ArtifactError, HashMismatchError
from mvde.manifest import EngineManifest

_LONGEST_S = 5.0
"""How long an engine that is replaced again and again is read anew: a writer without a pause leaves a few milliseconds
in which manifest and files agree, so that tens of tries may fail."""
_PATIENCE_S, _PAUSE_S = 0.5, 0.003


@dataclass(frozen=True)
class OpenedEngine:
    """An engine whose files are in memory: ``path`` is only what errors call it, and where a cache may lie.

    ``content`` is the engine itself, ``companions`` are its further files by name. It can be pickled to processes that
    :mod:`multiprocessing` spawns, which then share one copy of the files: ``store.load_engine(opened)`` there.
    """

    path: Path
    manifest: EngineManifest
    content: SealedFile
    companions: Mapping[str, SealedFile] = field(default_factory=dict)


def opened(path: Path, manifest: EngineManifest) -> OpenedEngine:
    """The engine at ``path`` and its companions, just written and not compared with anything.

    Raises :class:`ArtifactError` where they cannot be read.
    """
    companions = {record.name: SealedFile(path.with_name(record.name)) for record in manifest.companions}
    return OpenedEngine(path, manifest, SealedFile(path), companions)


def open_verified(path: Path) -> OpenedEngine:
    """The engine at ``path`` (its file or its manifest), every file compared with the hash in the manifest.

    Where they differ and somebody is replacing the engine meanwhile, manifest and files are read again.
    Raises as :func:`mvde.artifact.load_artifact` does, and :class:`ArtifactError` for a graph.
    """
    until = time.monotonic() + _LONGEST_S
    while time.monotonic() < until:
        before = _stamps(path.parent)
        try:
            return _sealed(_engine_at(path))
        except HashMismatchError:
            if not _has_changed(path.parent, before):
                raise
    return _sealed(_engine_at(path))


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What tells one state of a folder's files from the next."""
    try:
        with os.scandir(folder) as entries:  # hidden ones are a writer's that is not done
            found = {entry.name: entry.stat() for entry in entries if not entry.name.startswith(".")}
    except OSError:  # one of them is being replaced
        return {}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


def _has_changed(folder: Path, before: dict[str, tuple[int, int, int]]) -> bool:
    """Whether the files are others than before; waits a moment for a writer that is half way through."""
    until = time.monotonic() + _PATIENCE_S
    while not (has_changed := _stamps(folder) != before) and time.monotonic() < until:
        time.sleep(_PAUSE_S)
    return has_changed


def _engine_at(path: Path) -> AnyArtifact:
    artifact = read_artifact(path)
    if not isinstance(artifact.manifest, EngineManifest):
        raise ArtifactError(f"{artifact.path} is an ONNX graph, not an engine; build one: mvde build {artifact.path}")
    return artifact


def _sealed(artifact: AnyArtifact) -> OpenedEngine:
    """The artefact's files. Raises :class:`HashMismatchError` for one that its manifest does not describe."""
    manifest = artifact.manifest
    assert isinstance(manifest, EngineManifest)
    files: dict[str, SealedFile] = {}
    for record in (manifest.file, *manifest.companions):
        path = artifact.path.with_name(record.name)
        check_is_there(path, manifest)
        try:
            files[record.name] = content = SealedFile(path)
        except ArtifactError:
            check_is_there(path, manifest)  # it may have been replaced by one of another name just now
            raise
        check_content(path, record, manifest, content.size_bytes, content.sha256)
    main = files.pop(manifest.file.name)
    return OpenedEngine(artifact.path, manifest, main, files)
