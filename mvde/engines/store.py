"""Engine store: resolve engine ids to backends, find engines on disk, and check them before loading."""

from __future__ import annotations

import dataclasses
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
from mvde.engines import isa
from mvde.engines.backends import backend, backend_names
from mvde.engines.base import Engine, EngineId, Support
from mvde.engines.float_environment import in_default_float_environment
from mvde.engines.machine import cpu_features
from mvde.engines.opened import OpenedEngine, open_verified
from mvde.errors import (
    ArtifactError,
    BackendError,
    IncompatibleEngineError,
    ManifestError,
    MissingDependencyError,
    UsageError,
)
from mvde.manifest import EngineManifest, Manifest
from mvde.precision import Precision
from mvde.records import NOT_MEASURED


def support(engine_id: EngineId) -> Support:
    """Whether an engine id with a backend works on this machine, and if not, why."""
    try:
        return backend(str(engine_id.backend)).support(engine_id.precision)
    except (MissingDependencyError, BackendError) as error:
        return Support(False, str(error))


def all_engine_ids() -> list[EngineId]:
    """All engine ids, sorted by backend."""
    return [EngineId(name, precision) for name in sorted(backend_names()) for precision in Precision]


def resolve(engine_id: EngineId) -> EngineId:
    """Resolve to an id with a backend: the one given, or the best on this machine for that precision.

    Raises :class:`BackendError` with every backend's reason if none works.
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
    """Default engine for this machine: the fastest precision that its hardware supports."""
    for name in backend_names():
        for precision in backend(name).preferred_precisions:
            if support(candidate := EngineId(name, precision)).works:
                return candidate
    raise MissingDependencyError(
        "no inference library is installed; install one: pip install 'mvde[openvino]' or 'mvde[onnxruntime]'"
    )


def engine_folder(manifest: Manifest, engine_id: EngineId, root: Path = ENGINE_DIR, content_key: str = "") -> Path:
    """Folder of an engine: ``engines/NAME-HxW-backend-precision``, with a suffix for the content key if any.

    The key lets engines of several GPUs and library versions coexist; each machine picks its own.
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
    """Find the engine for an id (``"fp16"``), a path, or ``None`` (the only engine); not yet checked.

    Raises :class:`ArtifactError` if none or several match, listing the engines and the command that builds one.
    """
    if isinstance(source, str) and EngineId.matches_grammar(source):
        return _only(_of_id(EngineId.parse(source), name, resolution, batch, root), source)
    if source is not None:
        path = Path(source)
        if not path.exists():
            if isinstance(source, str) and _looks_like_id(source):
                EngineId.parse(source)  # raises, stating the grammar
            raise ArtifactError(f"there is no engine at {path}; `mvde build` writes engines to {root}/")
        return _only(find_engines(path, resolution, batch=batch), str(path))
    return _only(_for_this_machine(find_engines(name, resolution, folder=root, batch=batch)), "any")


@in_default_float_environment
def load_engine(
    source: str | Path | EngineArtifact | OpenedEngine, stats: Sequence[str] | None = None, threads: int | None = None
) -> tuple[Engine, EngineManifest]:
    """Load an engine and its manifest after checking hashes, library version, CPU and graph.

    ``stats`` are the columns that an engine with statistics of its own computes; default: those of the manifest.
    ``threads`` is the number of CPU threads of an engine on the CPU; default: as it was built.

    The hashed bytes are those that run; later changes to the files have no effect. An engine opened in another process
    by :func:`~mvde.engines.opened.open_verified` is not read again.

    Raises :class:`HashMismatchError` or :class:`IncompatibleEngineError` with the reason and the command that fixes it,
    :class:`UsageError` for columns that the network does not have.
    """
    opened = source if isinstance(source, OpenedEngine) else open_verified(_path_of(source))
    manifest, folder = opened.manifest, opened.path.parent
    check_machine(manifest, str(folder))
    check_graph(manifest, folder)
    check_proved(manifest, folder)
    if stats is not None:
        opened = dataclasses.replace(opened, manifest=dataclasses.replace(manifest, stats=manifest.columns(stats)))
    if threads is not None:
        opened = _with_threads(opened, threads)
    return backend(manifest.engine.backend).load(opened), manifest


def _with_threads(opened: OpenedEngine, threads: int) -> OpenedEngine:
    """The engine with another number of threads among its options. Raises :class:`UsageError` for less than one."""
    if threads < 1:
        raise UsageError(f"threads is the number of CPU threads of the engine, 1 or more, but got {threads}")
    manifest = opened.manifest
    options = {**manifest.engine.options, **backend(manifest.engine.backend).thread_options(threads)}
    engine = dataclasses.replace(manifest.engine, options=options)
    return dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, engine=engine))


def check_machine(manifest: EngineManifest, where: str) -> None:
    """Raise :class:`IncompatibleEngineError` unless machine and libraries match those the engine was built for.

    The error states the difference and the rebuild command.
    """
    record = manifest.engine
    rebuild = f"build it again here: {build_command(manifest)}"
    used = backend(record.backend).cpu_features()
    missing = [feature for feature in record.cpu_features if feature not in used]
    if missing:
        is_capped = set(missing) <= set(cpu_features())
        why = f"which {isa.cap()} switches off; unset it, or" if is_capped else "which this one lacks;"
        raise IncompatibleEngineError(f"{where} was built for a CPU with {', '.join(missing)}, {why} {rebuild}")
    if (reason := backend(record.backend).mismatch(record)) is not None:
        raise IncompatibleEngineError(f"{where} cannot run here: {reason}; {rebuild}")


def check_graph(manifest: EngineManifest, folder: Path) -> None:
    """Raise :class:`IncompatibleEngineError` if the engine's model was exported again after the build.

    The graph is looked up in ``export/`` beside ``engines/``. The check is skipped if there is no readable manifest, as
    on a robot that carries engines only.
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
    """Raise :class:`IncompatibleEngineError` if parity was not measured on this GPU model.

    The engine was built without a device, or proved on another GPU; the error states the command that proves it here.
    CPU engines are always measured when built.
    """
    measured_on, prove = manifest.parity.measured_on, f"measure it on this machine: mvde prove {folder}"
    if manifest.parity.measured is None:
        raise IncompatibleEngineError(f"{folder} has parity {NOT_MEASURED}; {prove}")
    if measured_on is None:
        return
    here = backend(manifest.engine.backend).device_facts()
    was = (measured_on.gpu, measured_on.compute_capability)  # a driver update does not invalidate it
    now = (here.gpu, here.compute_capability) if here is not None else ("no GPU",)
    if was != now:
        raise IncompatibleEngineError(
            f"{folder} was measured on {', '.join(was)}, but this machine has {', '.join(now)}; {prove}"
        )


def build_command(manifest: EngineManifest) -> str:
    """Command line that rebuilds this engine."""
    height, width = manifest.resolution
    batch = f" --batch {manifest.batch}" if manifest.batch != 1 else ""
    return f"mvde build --engine {manifest.engine.id} --name {manifest.name} --res {height}x{width}{batch}"


def _of_id(
    wanted: EngineId, name: str | None, resolution: tuple[int, int] | None, batch: int | None, root: Path
) -> Sequence[EngineArtifact]:
    """Engines of an id; for a bare precision those of the preferred backend among the ones built."""
    matches = _for_this_machine(find_engines(name, resolution, str(wanted), root, batch))
    if wanted.backend is not None or len(matches) == 1:
        return matches
    for name_of_backend in backend_names():
        preferred = [found for found in matches if found.manifest.engine.backend == name_of_backend]
        if preferred:
            return preferred
    return matches


def _for_this_machine(matches: Sequence[EngineArtifact]) -> Sequence[EngineArtifact]:
    """Of engines that differ only in GPU, version or options, keep the latest that runs here.

    If none runs here, keep the latest, so that loading it reports the reason.
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
