"""The store: which backend serves an engine id here, where engines lie, and the checks before one is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvde.artifact import (
    ENGINE_DIR,
    EXPORT_DIR,
    EngineArtifact,
    artifact_stem,
    find_engines,
    read_manifest,
)
from mvde.engines.backends import backend, backend_names
from mvde.engines.base import Engine, EngineId, Support
from mvde.engines.float_environment import in_default_float_environment
from mvde.engines.machine import cpu_features
from mvde.engines.opened import OpenedEngine, open_verified
from mvde.errors import ArtifactError, BackendError, IncompatibleEngineError, ManifestError, MissingDependencyError
from mvde.manifest import EngineManifest, Manifest
from mvde.precision import Precision
from mvde.records import NOT_MEASURED


def support(engine_id: EngineId) -> Support:
    """Whether an engine id with a backend would work on this machine, and why not."""
    try:
        return backend(str(engine_id.backend)).support(engine_id.precision)
    except (MissingDependencyError, BackendError) as error:
        return Support(False, str(error))


def all_engine_ids() -> list[EngineId]:
    """Every engine id with a backend, by backend."""
    return [EngineId(name, precision) for name in sorted(backend_names()) for precision in Precision]


def resolve(engine_id: EngineId) -> EngineId:
    """The id with a backend: the one given, or the best one on this machine that executes that precision's graph.

    Raises :class:`BackendError` with every backend's reason when none does.
    """
    reasons = []
    for name in [engine_id.backend] if engine_id.backend else backend_names():
        candidate = EngineId(name, engine_id.precision)
        answer = support(candidate)
        if answer.works:
            return candidate
        reasons.append(f"{candidate}: {answer.note}")
    raise BackendError(f"engine {engine_id} does not work on this machine ({'; '.join(reasons)}); see `mvde doctor`")


def best_engine_id() -> EngineId:
    """The engine to build on this machine when none is named: the fastest precision that its hardware computes in."""
    for name in backend_names():
        for precision in backend(name).preferred_precisions:
            if support(candidate := EngineId(name, precision)).works:
                return candidate
    raise MissingDependencyError(
        "no inference library is installed; install one: pip install 'mvde[openvino]' or 'mvde[onnxruntime]'"
    )


def engine_folder(manifest: Manifest, engine_id: EngineId, root: Path = ENGINE_DIR, content_key: str = "") -> Path:
    """Where an engine lies: ``engines/NAME-HxW-backend-precision``, and a key of its content where there is one.

    Engines of several GPUs and library versions lie side by side then, and each machine takes the one that is for it.
    """
    stem = artifact_stem(manifest.name, manifest.resolution, manifest.batch)
    return root / (f"{stem}-{engine_id.backend}-{engine_id.precision}" + (f"-{content_key}" if content_key else ""))


def find(
    source: str | Path | None = None,
    *,
    name: str | None = None,
    resolution: tuple[int, int] | None = None,
    batch: int | None = None,
    root: Path = ENGINE_DIR,
) -> EngineArtifact:
    """The engine that an id (``"fp16"``), a path, or ``None`` (the only one there is) names; not yet checked.

    Raises :class:`ArtifactError` listing what there is when none or several match, with the command that builds one.
    """
    if isinstance(source, str) and EngineId.matches_grammar(source):
        return _only(_of_id(EngineId.parse(source), name, resolution, batch, root), source)
    if source is not None:
        path = Path(source)
        if not path.exists():
            if isinstance(source, str) and _looks_like_id(source):
                EngineId.parse(source)  # says what an id looks like
            raise ArtifactError(f"there is no engine at {path}; `mvde build` writes engines to {root}/")
        return _only(find_engines(path, resolution, batch=batch), str(path))
    return _only(_for_this_machine(find_engines(name, resolution, folder=root, batch=batch)), "any")


@in_default_float_environment
def load_engine(source: str | Path | EngineArtifact | OpenedEngine) -> tuple[Engine, EngineManifest]:
    """Engine and its manifest, after comparing hashes, library version, CPU and graph with what it was built for.

    The bytes that were hashed are those that run: what becomes of the files afterwards does not matter. An engine that
    :func:`~mvde.engines.opened.open_verified` opened in another process is not read again.

    Raises :class:`HashMismatchError` or :class:`IncompatibleEngineError` with the reason and the command that mends it.
    """
    opened = source if isinstance(source, OpenedEngine) else open_verified(_path_of(source))
    manifest, folder = opened.manifest, opened.path.parent
    check_machine(manifest, str(folder))
    check_graph(manifest, folder)
    check_proved(manifest, folder)
    return backend(manifest.engine.backend).load(opened), manifest


def check_machine(manifest: EngineManifest, where: str) -> None:
    """Raise :class:`IncompatibleEngineError` unless machine and libraries are those that the engine was built for.

    The error says what differs and names the command that rebuilds.
    """
    record = manifest.engine
    rebuild = f"build it again here: {build_command(manifest)}"
    missing = [feature for feature in record.cpu_features if feature not in cpu_features()]
    if missing:
        raise IncompatibleEngineError(
            f"{where} was built for a CPU with {', '.join(missing)}, which this one lacks; {rebuild}"
        )
    if (reason := backend(record.backend).mismatch(record)) is not None:
        raise IncompatibleEngineError(f"{where} cannot run here: {reason}; {rebuild}")


def check_graph(manifest: EngineManifest, folder: Path) -> None:
    """Raise :class:`IncompatibleEngineError` for an engine in ``folder`` whose model was exported anew since.

    The graph is looked for in ``export/`` beside ``engines/``. A robot carries engines without graphs; there is nothing
    to compare then, nor where what lies there is no manifest.
    """
    stem = artifact_stem(manifest.name, manifest.resolution, manifest.batch)
    graph = folder.resolve().parent.parent / EXPORT_DIR / f"{stem}.onnx"
    try:
        found = read_manifest(graph)
    except ManifestError:
        return
    if found.file.sha256 != manifest.engine.onnx_sha256:
        raise IncompatibleEngineError(
            f"{folder} was built from another graph than {graph}, which was exported since; "
            f"build it again: {build_command(manifest)}"
        )


def check_proved(manifest: EngineManifest, folder: Path) -> None:
    """Raise :class:`IncompatibleEngineError` for an engine in ``folder`` that was not measured on a GPU like this one.

    It was built without a device then, or measured on another GPU; the error names the command that measures it here.
    What computes on a CPU was measured on it.
    """
    measured_on, prove = manifest.parity.measured_on, f"measure it on this machine: mvde prove {folder}"
    if manifest.parity.measured is None:
        raise IncompatibleEngineError(f"{folder} has parity {NOT_MEASURED}; {prove}")
    if measured_on is None:
        return
    here = backend(manifest.engine.backend).device_facts()
    was = (measured_on.gpu, measured_on.compute_capability)  # another driver does not make another GPU
    now = (here.gpu, here.compute_capability) if here is not None else ("no GPU",)
    if was != now:
        raise IncompatibleEngineError(
            f"{folder} was measured on {', '.join(was)}, but this machine has {', '.join(now)}; {prove}"
        )


def build_command(manifest: EngineManifest) -> str:
    """The command line that builds an engine like this one."""
    height, width = manifest.resolution
    batch = f" --batch {manifest.batch}" if manifest.batch != 1 else ""
    return f"mvde build --engine {manifest.engine.id} --name {manifest.name} --res {height}x{width}{batch}"


def _of_id(
    wanted: EngineId, name: str | None, resolution: tuple[int, int] | None, batch: int | None, root: Path
) -> Sequence[EngineArtifact]:
    """Engines of an id; for a bare precision those of the backend that is best here, or else whichever was built."""
    matches = _for_this_machine(find_engines(name, resolution, str(wanted), root, batch))
    if wanted.backend is not None or len(matches) == 1:
        return matches
    for name_of_backend in backend_names():
        preferred = [found for found in matches if found.manifest.engine.backend == name_of_backend]
        if preferred:
            return preferred
    return matches


def _for_this_machine(matches: Sequence[EngineArtifact]) -> Sequence[EngineArtifact]:
    """Of engines that differ only in the GPU, version or options they were built for, the latest that runs here.

    Where none runs here the latest is kept, so that loading it says why.
    """
    kept: dict[tuple[Any, ...], list[EngineArtifact]] = {}
    for found in matches:
        manifest = found.manifest
        key = (manifest.name, manifest.resolution, manifest.batch, manifest.engine.id)
        kept.setdefault(key, []).append(found)
    return [_latest(alike) if len(alike) > 1 else alike[0] for alike in kept.values()]


def _latest(alike: Sequence[EngineArtifact]) -> EngineArtifact:
    newest_first = sorted(alike, key=lambda found: found.manifest.created, reverse=True)
    return next((found for found in newest_first if _runs_here(found.manifest)), newest_first[0])


def _runs_here(manifest: EngineManifest) -> bool:
    try:
        check_machine(manifest, "")
    except (IncompatibleEngineError, MissingDependencyError, BackendError):
        return False
    return True


def _only(matches: Sequence[EngineArtifact], wanted: str) -> EngineArtifact:
    if len(matches) == 1:
        return matches[0]
    listed = "; ".join(str(match) for match in matches)
    raise ArtifactError(
        f"several engines match {wanted!r}: {listed}; say which with --res, --batch, --name, an engine id or a path"
    )


def _path_of(source: str | Path | EngineArtifact) -> Path:
    return Path(source) if isinstance(source, (str, Path)) else source.path


def _looks_like_id(text: str) -> bool:
    return "/" not in text and not text.endswith((".json", ".onnx", ".blob", ".plan"))
