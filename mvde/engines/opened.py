"""In-memory snapshot of an engine's files, so that the library loads exactly the bytes that were verified."""

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
"""Time limit for retries while a writer keeps replacing the engine: manifest and files may agree for only a few
milliseconds at a time, so tens of attempts may fail."""
_PATIENCE_S, _PAUSE_S = 0.5, 0.003


@dataclass(frozen=True)
class OpenedEngine:
    """An engine whose files are in memory; ``path`` is only for error messages and cache locations.

    ``content`` is the engine, ``companions`` are its other files by name. It can be pickled to processes spawned by
    :mod:`multiprocessing`, which then share one copy of the files: call ``store.load_engine(opened)`` there.
    """

    path: Path
    manifest: EngineManifest
    content: SealedFile
    companions: Mapping[str, SealedFile] = field(default_factory=dict)


def opened(path: Path, manifest: EngineManifest) -> OpenedEngine:
    """Read the engine at ``path``, just written, and its companions without verification.

    Raises :class:`ArtifactError` if they cannot be read.
    """
    companions = {record.name: SealedFile(path.with_name(record.name)) for record in manifest.companions}
    return OpenedEngine(path, manifest, SealedFile(path), companions)


def open_verified(path: Path) -> OpenedEngine:
    """Read the engine at ``path`` (file or manifest) and verify every file against its hash in the manifest.

    On a mismatch while the engine is being replaced, manifest and files are read again.
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
    """Fingerprint of the folder's state: inode, mtime and size of each file."""
    try:
        with os.scandir(folder) as entries:  # hidden files are a writer's staging files
            found = {entry.name: entry.stat() for entry in entries if not entry.name.startswith(".")}
    except OSError:  # a file is being replaced
        return {}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


def _has_changed(folder: Path, before: dict[str, tuple[int, int, int]]) -> bool:
    """Whether the folder's state has changed; waits briefly for a writer in progress."""
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
    """Read and verify the artefact's files. Raises :class:`HashMismatchError` if one differs from the manifest."""
    manifest = artifact.manifest
    assert isinstance(manifest, EngineManifest)
    files: dict[str, SealedFile] = {}
    for record in (manifest.file, *manifest.companions):
        path = artifact.path.with_name(record.name)
        check_is_there(path, manifest)
        try:
            files[record.name] = content = SealedFile(path)
        except ArtifactError:
            check_is_there(path, manifest)  # it may just have been replaced under another name
            raise
        check_content(path, record, manifest, content.size_bytes, content.sha256)
    main = files.pop(manifest.file.name)
    return OpenedEngine(artifact.path, manifest, main, files)
