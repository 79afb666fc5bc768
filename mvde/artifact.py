"""Artefacts: read, verify and find graphs in ``export/`` and engines in ``engines/``.

An artefact is a file (an ONNX graph or an engine) with a JSON manifest of the same stem beside it. The manifest
describes the file, its inputs and outputs, its source, and its measured parity with the previous stage.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, Union

from mvde.errors import ArtifactError, HashMismatchError, ManifestError
from mvde.files import atomic_write, read_small, sha256_file
from mvde.manifest import (
    MAX_MANIFEST_BYTES,
    EngineManifest,
    FileRecord,
    GraphManifest,
    Manifest,
    manifest_from_bytes,
    with_digest,
)
from mvde.publish import content_name

EXPORT_DIR = Path("export")
ENGINE_DIR = Path("engines")

M = TypeVar("M", bound=Manifest)
M_co = TypeVar("M_co", bound=Manifest, covariant=True)

_COMMANDS = {GraphManifest: "mvde export", EngineManifest: "mvde build"}


@dataclass(frozen=True)
class Artifact(Generic[M_co]):
    """An ONNX graph or engine at ``path``, and its manifest."""

    path: Path
    manifest: M_co

    @property
    def companions(self) -> tuple[Path, ...]:
        """Additional files that it needs, in the same folder."""
        return tuple(self.path.with_name(record.name) for record in self.manifest.companions)

    def __str__(self) -> str:
        manifest = self.manifest
        height, width = manifest.resolution
        engine = f", {manifest.engine.id}" if isinstance(manifest, EngineManifest) else ""
        batch = f", batch {manifest.batch}" if manifest.batch != 1 else ""
        return f"{manifest.name} {height}x{width}{batch}{engine} ({self.path})"


GraphArtifact = Artifact[GraphManifest]
EngineArtifact = Artifact[EngineManifest]
AnyArtifact = Union[GraphArtifact, EngineArtifact]  # noqa: UP007 - evaluated when the module is imported


def artifact_stem(name: str, resolution: tuple[int, int], batch: int = 1) -> str:
    """File stem of an artefact: ``nano-224x224``, or ``nano-224x224-b4`` for batch size 4."""
    return f"{name}-{resolution[0]}x{resolution[1]}" + (f"-b{batch}" if batch != 1 else "")


def manifest_path(path: Path) -> Path:
    """Path of an artefact's manifest: the same stem with the suffix ``.json``."""
    return path.with_suffix(".json")


def write_manifest(manifest: Manifest, path: Path) -> Path:
    """Write the manifest atomically beside the artefact ``path`` and return its path."""
    target = manifest_path(path)
    with atomic_write(target) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")
    return target


def read_manifest(path: Path) -> GraphManifest | EngineManifest:
    """Read an artefact's manifest, given either path, without reading the artefact itself.

    Raises :class:`ManifestError` if it is missing, unreadable, malformed or corrupted.
    """
    where = path if path.suffix == ".json" else manifest_path(path)
    try:
        content = read_small(where, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise ManifestError(
            f"there is no manifest {where}; an artefact is a file and its manifest: copy both, or write them with "
            "`mvde export` or `mvde build`"
        ) from error
    except OSError as error:
        raise ManifestError(f"cannot read the manifest {where}: {error.strerror or error}") from error
    return manifest_from_bytes(content, str(where))


def rewrite_digest(path: Path) -> GraphManifest | EngineManifest:
    """Recompute the digest of a manifest that was edited by hand, and return the manifest.

    Raises :class:`ManifestError` and leaves the file unchanged if anything but the digest is wrong.
    """
    where = path if path.suffix == ".json" else manifest_path(path)
    try:
        text = with_digest(read_small(where, MAX_MANIFEST_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read the manifest {where}: {getattr(error, 'strerror', None) or error}") from error
    manifest = manifest_from_bytes(text.encode("utf-8"), str(where))
    with atomic_write(where) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return manifest


def load_artifact(path: Path) -> AnyArtifact:
    """Load the artefact at ``path`` (its file or its manifest), verifying the hash of every file.

    Raises :class:`ManifestError` if the manifest is missing or malformed, :class:`HashMismatchError` if a file is
    missing or does not match its hash.
    """
    artifact = read_artifact(path)
    for record in (artifact.manifest.file, *artifact.manifest.companions):
        _verify(artifact.path.with_name(record.name), record, artifact.manifest)
    return artifact


def read_artifact(path: Path) -> AnyArtifact:
    """Load the artefact at ``path`` (its file or its manifest) without verifying file contents.

    Raises :class:`ManifestError` if the manifest is missing or malformed, :class:`HashMismatchError` if it describes
    a different file.
    """
    if path.suffix != ".json" and not _is_there(path):
        raise ArtifactError(f"there is no file {path}; `mvde export` writes ONNX files and `mvde build` writes engines")
    artifact = _unverified(path)
    file = artifact.manifest.file
    names = {path.name, content_name(path.name, path.stem, file.sha256)}  # the latter after an interrupted replacement
    if path.suffix != ".json" and file.name not in names:
        raise HashMismatchError(f"{manifest_path(path)} describes {artifact.path.name}, not {path.name}")
    return artifact


def load_graph(path: Path) -> GraphArtifact:
    """Load and verify a graph as :func:`load_artifact` does; raises :class:`ArtifactError` for an engine."""
    return _of_kind(load_artifact(path), GraphManifest)


def load_engine_artifact(path: Path) -> EngineArtifact:
    """Load and verify an engine as :func:`load_artifact` does; raises :class:`ArtifactError` for a graph."""
    return _of_kind(load_artifact(path), EngineManifest)


def list_graphs(folder: Path) -> list[GraphArtifact]:
    """List graphs under ``folder``, sorted by path, without hashing files; other JSON files are ignored."""
    return _list(folder, GraphManifest)


def list_engines(folder: Path) -> list[EngineArtifact]:
    """List engines under ``folder``, sorted by path, without hashing files; other JSON files are ignored."""
    return _list(folder, EngineManifest)


def find_onnx(
    name_or_path: str | Path,
    resolution: tuple[int, int] | None = None,
    folder: Path = EXPORT_DIR,
    batch: int | None = None,
) -> GraphArtifact:
    """Find one exported graph by path, or by name and resolution (H, W) in pixels, and verify its hash.

    Raises :class:`ArtifactError`, listing what exists, if none or several match.
    """
    root, name = _search_root(name_or_path, folder)
    if root.is_file():
        return load_graph(root)
    there = list_graphs(root)
    wanted = _describe(name, resolution, batch, None)
    matches = _matching(there, name, resolution, batch)
    # A model's name selects its fp32 graph; a typed graph has to be named by its file stem.
    matches = [found for found in matches if found.manifest.lowering is None or name != found.manifest.name]
    found = _only(matches, there, f"exported graph {wanted} in {root}", "mvde export", "--res H[xW], --batch N")
    return load_graph(found.path)


def find_engines(
    name_or_path: str | Path | None = None,
    resolution: tuple[int, int] | None = None,
    engine_id: str | None = None,
    folder: Path = ENGINE_DIR,
    batch: int | None = None,
) -> list[EngineArtifact]:
    """Engines that match, by path, unverified; ``engine_id`` is ``backend:precision`` or a precision alone.

    ``name_or_path`` is a model's name, an engine or a folder of engines. Raises :class:`ArtifactError` listing what
    there is when none match.
    """
    root, name = _search_root(name_or_path, folder)
    if root.is_file():
        return [_of_kind(_unverified(root), EngineManifest)]
    there = list_engines(root)
    matches = [found for found in _matching(there, name, resolution, batch) if _has_id(found, engine_id)]
    if not matches:
        wanted = _describe(name, resolution, batch, engine_id)
        raise _none_found(there, f"engine {wanted} in {root}", f"mvde build --engine {engine_id or 'ID'}")
    return matches


def _search_root(name_or_path: str | Path | None, folder: Path) -> tuple[Path, str | None]:
    """Where to look, and for which name: a path that exists is looked at itself."""
    if name_or_path is None:
        return folder, None
    path = Path(name_or_path)
    _is_there(path)  # raises where that cannot be told
    if path.is_file() or (path.is_dir() and (isinstance(name_or_path, Path) or os.sep in name_or_path)):
        return path, None
    if isinstance(name_or_path, Path) or os.sep in name_or_path or path.suffix in {".onnx", ".json", ".xml", ".blob"}:
        raise ArtifactError(f"there is no file or folder {path}; `mvde export` writes graphs, `mvde build` engines")
    return folder, name_or_path


def _list(folder: Path, kind: type[M]) -> list[Artifact[M]]:
    found: list[Artifact[M]] = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        with contextlib.suppress(ManifestError):
            manifest = read_manifest(path)
            if isinstance(manifest, kind):
                found.append(Artifact(path.with_name(manifest.file.name), manifest))
    return found


def _matching(
    there: Sequence[Artifact[M]], name: str | None, resolution: tuple[int, int] | None, batch: int | None
) -> list[Artifact[M]]:
    """Artefacts whose name (or whole file stem) and resolution are those asked for."""
    return [
        found
        for found in there
        if (name is None or name in {found.manifest.name, found.path.stem, found.path.name})
        and (resolution is None or found.manifest.resolution == tuple(resolution))
        and (batch is None or found.manifest.batch == batch)
    ]


def _has_id(artifact: EngineArtifact, engine_id: str | None) -> bool:
    engine = artifact.manifest.engine
    return engine_id is None or engine_id in {engine.id, engine.precision.value}


def _is_there(path: Path) -> bool:
    """Whether something lies at ``path``. Raises :class:`ArtifactError` where permissions or the disk do not tell."""
    try:
        return path.exists()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error


def _of_kind(artifact: AnyArtifact, kind: type[M]) -> Artifact[M]:
    manifest = artifact.manifest
    if not isinstance(manifest, kind):
        raise ArtifactError(
            f"{artifact.path} is an artefact of kind {manifest.kind!r}, but one of kind {kind.kind!r} is expected; "
            f"`{_COMMANDS[kind]}` writes those"
        )
    return Artifact(artifact.path, manifest)


def _only(
    matches: Sequence[Artifact[M]], there: Sequence[Artifact[M]], what: str, command: str, option: str
) -> Artifact[M]:
    if not matches:
        raise _none_found(there, what, command)
    if len(matches) > 1:
        raise ArtifactError(f"several match: {'; '.join(map(str, matches))}; say which {what} with {option} or a path")
    return matches[0]


def _none_found(there: Sequence[Artifact[Manifest]], what: str, command: str) -> ArtifactError:
    available = f"there are: {'; '.join(map(str, there))}" if there else "there is none at all"
    return ArtifactError(f"no {what}; {available}; make it with `{command}`")


def _describe(name: str | None, resolution: tuple[int, int] | None, batch: int | None, engine_id: str | None) -> str:
    parts = [repr(name)] if name else []
    parts += [engine_id] if engine_id else []
    parts += [f"at {resolution[0]}x{resolution[1]}"] if resolution else []
    parts += [f"with batch {batch}"] if batch else []
    return " ".join(parts) or "of any name"


def _unverified(path: Path) -> AnyArtifact:
    manifest = read_manifest(path)
    where = path.with_name(manifest.file.name)
    if isinstance(manifest, GraphManifest):  # one branch per type: mypy would infer a union otherwise
        return Artifact(where, manifest)
    return Artifact(where, manifest)


def _verify(path: Path, record: FileRecord, manifest: Manifest) -> None:
    check_is_there(path, manifest)
    check_content(path, record, manifest, path.stat().st_size, lambda: sha256_file(path))


def check_is_there(path: Path, manifest: Manifest) -> None:
    """Raise :class:`HashMismatchError` unless ``path``, described by ``manifest``, is a regular file."""
    if not _is_there(path) or not path.is_file():
        raise HashMismatchError(
            f"{path}, which its manifest describes, is missing; copy it too or run `{_COMMANDS[type(manifest)]}` again"
        )


def check_content(
    path: Path, record: FileRecord, manifest: Manifest, size_bytes: int, sha256: str | Callable[[], str]
) -> None:
    """Raise :class:`HashMismatchError` unless the file at ``path`` has the size and hash of its record.

    A callable ``sha256`` is only evaluated if the size matches.
    """
    command = _COMMANDS[type(manifest)]
    if size_bytes != record.size_bytes:
        raise HashMismatchError(
            f"{path} has {size_bytes} bytes, but its manifest states {record.size_bytes} (truncated, or replaced?); "
            f"copy it again or run `{command}` again"
        )
    actual = sha256 if isinstance(sha256, str) else sha256()
    if actual != record.sha256:
        raise HashMismatchError(
            f"{path} has SHA-256 {actual[:12]}…, but its manifest states {record.sha256[:12]}…: it is not the file "
            f"that was measured; copy it again or run `{command}` again"
        )
