"""Artefacts: manifests, content hashes, writing that is never half done, and lookup in ``export/`` and ``engines/``.

An artefact is a file (an ONNX graph or an engine) and a manifest, the JSON of the same stem beside it. The manifest
states what the file is, how to feed it, what it was made from and how far it was measured to be from the stage before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvde.errors import ArtifactError, HashMismatchError, ManifestError, OutputError
from mvde.manifest import (
    SCHEMA_VERSION,
    EngineRecord,
    FileRecord,
    InputSpec,
    Manifest,
    Normalization,
    OutputSpec,
    SourceRecord,
)

__all__ = [
    "ENGINE_DIR",
    "EXPORT_DIR",
    "SCHEMA_VERSION",
    "Artifact",
    "EngineRecord",
    "FileRecord",
    "InputSpec",
    "Manifest",
    "Normalization",
    "OutputSpec",
    "SourceRecord",
    "artifact_stem",
    "atomic_write",
    "file_record",
    "find_engine",
    "find_engines",
    "find_onnx",
    "list_artifacts",
    "load_artifact",
    "load_manifest",
    "manifest_path",
    "read_manifest",
    "sha256_file",
    "staged_write",
    "write_manifest",
]

EXPORT_DIR = Path("export")
ENGINE_DIR = Path("engines")

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A file whose manifest was read: ``path`` is the ONNX graph or engine, ``manifest`` describes it."""

    path: Path
    manifest: Manifest

    def __str__(self) -> str:
        height, width = self.manifest.resolution
        engine = f", {self.manifest.engine.id}" if self.manifest.engine else ""
        batch = f", batch {self.manifest.batch}" if self.manifest.batch != 1 else ""
        return f"{self.manifest.name} {height}x{width}{batch}{engine} ({self.path})"


def artifact_stem(name: str, resolution: tuple[int, int], batch: int = 1) -> str:
    """File stem of an artefact: ``nano-224x224``, or ``nano-224x224-b4`` for a batch of four."""
    return f"{name}-{resolution[0]}x{resolution[1]}" + (f"-b{batch}" if batch != 1 else "")


def manifest_path(path: Path) -> Path:
    """Where the manifest of the artefact ``path`` lies: the same stem with the suffix ``.json``."""
    return path.with_suffix(".json")


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
    and can be checked before anybody sees them. Manifests move last, so that a crash between two renames leaves a file
    that its manifest refuses. Ctrl-C is held back during the renames. Raises :class:`OutputError` as
    :func:`atomic_write` does.
    """
    staging = folder / f".{label}.{secrets.token_hex(4)}.tmp"
    try:
        staging.mkdir(parents=True)
        yield staging
        _publish(staging, folder)
    except OSError as error:
        raise _output_error(folder / label, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_manifest(manifest: Manifest, path: Path) -> Path:
    """Path of the manifest written (atomically) beside the artefact ``path``."""
    target = manifest_path(path)
    with atomic_write(target) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")
    return target


def read_manifest(path: Path) -> Manifest:
    """Manifest of an artefact, given the artefact or the manifest; the artefact's content is not looked at.

    Raises :class:`ManifestError` if it is missing or malformed.
    """
    where = path if path.suffix == ".json" else manifest_path(path)
    try:
        text = where.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ManifestError(
            f"there is no manifest {where}; an artefact is a file and its manifest: copy both, or write them with "
            "`mvde export` or `mvde build`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read the manifest {where}: {error}") from error
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where} is not valid JSON: {error}; export or build the artefact again") from error
    except RecursionError as error:
        raise ManifestError(f"{where} is nested too deeply to be a manifest") from error
    return Manifest.from_dict(plain, where=str(where))


def load_manifest(path: Path) -> Manifest:
    """Manifest of an artefact whose content was compared with it (see :func:`load_artifact`)."""
    return load_artifact(path).manifest


def load_artifact(path: Path) -> Artifact:
    """Artefact at ``path`` (its file or its manifest) after comparing every file with the hash in the manifest.

    Raises :class:`ManifestError` if the manifest is missing or malformed, :class:`HashMismatchError` if a file is
    missing or is not the one described.
    """
    if not path.exists() and path.suffix != ".json":
        raise ArtifactError(f"there is no file {path}; `mvde export` writes ONNX files and `mvde build` writes engines")
    artifact = _unverified(path)
    if path.suffix != ".json" and path.name != artifact.path.name:
        raise HashMismatchError(f"{manifest_path(path)} describes {artifact.path.name}, not {path.name}")
    for record in (artifact.manifest.file, *artifact.manifest.companions):
        _verify(artifact.path.with_name(record.name), record, artifact.manifest)
    return artifact


def list_artifacts(folder: Path, kind: str) -> list[Artifact]:
    """Artefacts of ``kind`` (``"onnx"`` or ``"engine"``) under ``folder``, by path; files are not hashed.

    JSON files that are not manifests, and manifests of a newer schema, are passed over.
    """
    found = []
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        with contextlib.suppress(ManifestError):
            artifact = _unverified(path)
            if artifact.manifest.kind == kind:
                found.append(artifact)
    return found


def find_onnx(
    name_or_path: str | Path,
    resolution: tuple[int, int] | None = None,
    folder: Path = EXPORT_DIR,
    batch: int | None = None,
) -> Artifact:
    """The exported graph with that name (and resolution in pixels, H, W), or at that path, its hash verified.

    Raises :class:`ArtifactError` listing what there is when none or several match.
    """
    root, name = _search_root(name_or_path, folder)
    if root.is_file():
        return _of_kind(load_artifact(root), "onnx", "`mvde export`")
    there = list_artifacts(root, "onnx")
    wanted = _describe(name, resolution, batch, None)
    matches = _matching(there, name, resolution, batch)
    # A typed graph is meant only where its file is named: by its model's name one asks for the fp32 graph.
    matches = [found for found in matches if found.manifest.precision is None or name != found.manifest.name]
    found = _only(matches, there, f"exported graph {wanted} in {root}", "mvde export", "--res H[xW], --batch N")
    return load_artifact(found.path)


def find_engines(
    name_or_path: str | Path | None = None,
    resolution: tuple[int, int] | None = None,
    engine_id: str | None = None,
    folder: Path = ENGINE_DIR,
    batch: int | None = None,
) -> list[Artifact]:
    """Engines that match, by path, unverified; ``engine_id`` is ``backend:precision`` or a precision alone.

    ``name_or_path`` is a model's name, an engine or a folder of engines. Raises :class:`ArtifactError` listing what
    there is when none match.
    """
    root, name = _search_root(name_or_path, folder)
    if root.is_file():
        return [_of_kind(_unverified(root), "engine", "`mvde build`")]
    there = list_artifacts(root, "engine")
    matches = [found for found in _matching(there, name, resolution, batch) if _has_id(found, engine_id)]
    if not matches:
        wanted = _describe(name, resolution, batch, engine_id)
        raise _none_found(there, f"engine {wanted} in {root}", f"mvde build --engine {engine_id or 'ID'}")
    return matches


def find_engine(
    name_or_path: str | Path | None = None,
    resolution: tuple[int, int] | None = None,
    engine_id: str | None = None,
    folder: Path = ENGINE_DIR,
    batch: int | None = None,
) -> Artifact:
    """The one engine that matches (see :func:`find_engines`), its hash verified.

    Raises :class:`ArtifactError` listing what there is when none or several match.
    """
    matches = find_engines(name_or_path, resolution, engine_id, folder, batch)
    wanted = _describe(None, resolution, batch, engine_id)
    found = _only(
        matches, matches, f"engine {wanted} for {name_or_path or folder}", "mvde build", "--res, --batch, --engine"
    )
    return load_artifact(found.path)


def _search_root(name_or_path: str | Path | None, folder: Path) -> tuple[Path, str | None]:
    """Where to look, and for which name: a path that exists is looked at itself."""
    if name_or_path is None:
        return folder, None
    path = Path(name_or_path)
    if path.is_file() or (path.is_dir() and (isinstance(name_or_path, Path) or os.sep in name_or_path)):
        return path, None
    if isinstance(name_or_path, Path) or os.sep in name_or_path or path.suffix in {".onnx", ".json", ".xml", ".blob"}:
        raise ArtifactError(f"there is no file or folder {path}; `mvde export` writes graphs, `mvde build` engines")
    return folder, name_or_path


def _matching(
    there: Sequence[Artifact], name: str | None, resolution: tuple[int, int] | None, batch: int | None
) -> list[Artifact]:
    """Artefacts whose name (or whole file stem) and resolution are those asked for."""
    return [
        found
        for found in there
        if (name is None or name in {found.manifest.name, found.path.stem, found.path.name})
        and (resolution is None or found.manifest.resolution == tuple(resolution))
        and (batch is None or found.manifest.batch == batch)
    ]


def _has_id(artifact: Artifact, engine_id: str | None) -> bool:
    engine = artifact.manifest.engine
    return engine is not None and (engine_id is None or engine_id in {engine.id, engine.precision})


def _of_kind(artifact: Artifact, kind: str, command: str) -> Artifact:
    if artifact.manifest.kind != kind:
        raise ArtifactError(
            f"{artifact.path} is an artefact of kind {artifact.manifest.kind!r}; expected one of {command}"
        )
    return artifact


def _only(matches: Sequence[Artifact], there: Sequence[Artifact], what: str, command: str, option: str) -> Artifact:
    if not matches:
        raise _none_found(there, what, command)
    if len(matches) > 1:
        raise ArtifactError(f"several match: {'; '.join(map(str, matches))}; say which {what} with {option} or a path")
    return matches[0]


def _none_found(there: Sequence[Artifact], what: str, command: str) -> ArtifactError:
    available = f"there are: {'; '.join(map(str, there))}" if there else "there is none at all"
    return ArtifactError(f"no {what}; {available}; make it with `{command}`")


def _describe(name: str | None, resolution: tuple[int, int] | None, batch: int | None, engine_id: str | None) -> str:
    parts = [repr(name)] if name else []
    parts += [engine_id] if engine_id else []
    parts += [f"at {resolution[0]}x{resolution[1]}"] if resolution else []
    parts += [f"with batch {batch}"] if batch else []
    return " ".join(parts) or "of any name"


def _unverified(path: Path) -> Artifact:
    manifest = read_manifest(path)
    return Artifact(path=path.with_name(manifest.file.name), manifest=manifest)


def _verify(path: Path, record: FileRecord, manifest: Manifest) -> None:
    command = "mvde export" if manifest.kind == "onnx" else "mvde build"
    if not path.is_file():
        raise HashMismatchError(
            f"{path}, which its manifest describes, is missing; copy it too or run `{command}` again"
        )
    size_bytes = path.stat().st_size
    if size_bytes != record.size_bytes:
        raise HashMismatchError(
            f"{path} has {size_bytes} bytes, but its manifest states {record.size_bytes} (truncated, or replaced?); "
            f"copy it again or run `{command}` again"
        )
    actual = sha256_file(path)
    if actual != record.sha256:
        raise HashMismatchError(
            f"{path} has SHA-256 {actual[:12]}…, but its manifest states {record.sha256[:12]}…: it is not the file "
            f"that was measured; copy it again or run `{command}` again"
        )


def _publish(staging: Path, folder: Path) -> None:
    """Move every staged file into ``folder``, manifests last, with Ctrl-C waiting until all are in place."""
    files = sorted(staging.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
    for path in files:
        _sync(path)
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
