"""The store: which backend serves an engine id here, where engines lie, and the checks before one is loaded."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvde.artifact import (
    ENGINE_DIR,
    EXPORT_DIR,
    Artifact,
    artifact_stem,
    find_engines,
    load_artifact,
    manifest_path,
    read_manifest,
)
from mvde.engines.base import BACKENDS, PRECISIONS, Engine, EngineId, Support
from mvde.engines.machine import cpu_features
from mvde.errors import ArtifactError, BackendError, IncompatibleEngineError, MissingDependencyError
from mvde.manifest import Manifest

# In order of preference. OpenVINO comes first since `pip install mvde` brings it and it alone computes
# in bf16; which of the two is faster in fp32 depends on the machine and the model, and `mvde bench` tells (nano at 192
# on two AMX cores: OpenVINO by a tenth).
_MODULES = {"openvino": "mvde.engines.openvino", "onnxruntime": "mvde.engines.onnxruntime"}
_BEST_PRECISIONS = ("bf16", "fp32")


def backend_module(backend: str) -> Any:
    """Module of a backend, with ``library_version``, ``support``, ``compile_graph`` and ``load``.

    Raises :class:`BackendError` for a backend that this version has no module for.
    """
    if backend not in _MODULES:
        raise BackendError(f"this version of mvde has no {backend} engines; use {' or '.join(_MODULES)}")
    return importlib.import_module(_MODULES[backend])


def support(engine_id: EngineId) -> Support:
    """Whether an engine id with a backend would work on this machine, and why not."""
    assert engine_id.backend is not None
    try:
        answer: Support = backend_module(engine_id.backend).support(engine_id.precision)
    except (MissingDependencyError, BackendError) as error:
        return Support(False, str(error))
    return answer


def all_engine_ids() -> list[EngineId]:
    """Every engine id with a backend, by backend."""
    return [EngineId(backend, precision) for backend in BACKENDS for precision in PRECISIONS]


def resolve(engine_id: EngineId) -> EngineId:
    """The id with a backend: the one given, or the best one on this machine that executes that precision's graph.

    Raises :class:`BackendError` with every backend's reason when none does.
    """
    candidates = [engine_id.backend] if engine_id.backend else list(_MODULES)
    reasons = []
    for backend in candidates:
        candidate = EngineId(backend, engine_id.precision)
        answer = support(candidate)
        if answer.works:
            return candidate
        reasons.append(f"{candidate}: {answer.note}")
    raise BackendError(f"engine {engine_id} does not work on this machine ({'; '.join(reasons)}); see `mvde doctor`")


def best_engine_id() -> EngineId:
    """The engine to build on this machine when none is named: the fastest precision that its hardware computes in."""
    for precision in _BEST_PRECISIONS:
        for backend in _MODULES:
            if precision != "fp32" and backend == "onnxruntime":
                continue
            candidate = EngineId(backend, precision)
            if support(candidate).works:
                return candidate
    raise MissingDependencyError(
        "no inference library is installed; install one: pip install 'mvde[openvino]' or 'mvde[onnxruntime]'"
    )


def engine_folder(manifest: Manifest, engine_id: EngineId, root: Path = ENGINE_DIR) -> Path:
    """Where an engine lies: ``engines/NAME-HxW-backend-precision``."""
    stem = artifact_stem(manifest.name, manifest.resolution, manifest.batch)
    return root / f"{stem}-{engine_id.backend}-{engine_id.precision}"


def find(
    source: str | Path | None = None,
    *,
    name: str | None = None,
    resolution: tuple[int, int] | None = None,
    root: Path = ENGINE_DIR,
) -> Artifact:
    """The engine that an id (``"fp16"``), a path, or ``None`` (the only one there is) names; not yet checked.

    Raises :class:`ArtifactError` listing what there is when none or several match, with the command that builds one.
    """
    if isinstance(source, str) and EngineId.matches_grammar(source):
        return _only(_of_id(EngineId.parse(source), name, resolution, root), source)
    if source is not None:
        path = Path(source)
        if not path.exists():
            if isinstance(source, str) and _looks_like_id(source):
                EngineId.parse(source)  # says what an id looks like
            raise ArtifactError(f"there is no engine at {path}; `mvde build` writes engines to {root}/")
        return _only(find_engines(path, resolution), str(path))
    return _only(find_engines(name, resolution, folder=root), "any")


def load_engine(source: str | Path | Artifact) -> tuple[Engine, Manifest]:
    """Engine and its manifest, after comparing hashes, library version, CPU and graph with what it was built for.

    Raises :class:`HashMismatchError` or :class:`IncompatibleEngineError` with the reason and the command that mends it.
    """
    artifact = load_artifact(source.path if isinstance(source, Artifact) else Path(source))
    if artifact.manifest.engine is None:
        raise ArtifactError(
            f"{artifact.path} is an ONNX graph, not an engine; build one: mvde build --onnx {artifact.path}"
        )
    check_machine(artifact.manifest, str(artifact.path.parent))
    check_graph(artifact)
    engine: Engine = backend_module(artifact.manifest.engine.backend).load(artifact.path, artifact.manifest)
    return engine, artifact.manifest


def check_machine(manifest: Manifest, where: str) -> None:
    """Nothing, if this machine and its libraries are those that the engine was built for.

    Raises :class:`IncompatibleEngineError` with the difference and the command that rebuilds.
    """
    record = manifest.engine
    assert record is not None
    rebuild = f"build it again here: {build_command(manifest)}"
    missing = [feature for feature in record.cpu_features if feature not in cpu_features()]
    if missing:
        raise IncompatibleEngineError(
            f"{where} was built for a CPU with {', '.join(missing)}, which this one lacks; {rebuild}"
        )
    version = backend_module(record.backend).library_version()
    if version != record.library_version:
        raise IncompatibleEngineError(
            f"{where} was built with {record.backend} {record.library_version}, but {version} is installed; {rebuild}"
        )


def check_graph(artifact: Artifact) -> None:
    """Nothing, if the graph that the engine was built from is still the one beside it, in ``export/`` by ``engines/``.

    A robot carries engines without graphs; there is nothing to compare then. Raises :class:`IncompatibleEngineError`
    when the model was exported anew since.
    """
    manifest, record = artifact.manifest, artifact.manifest.engine
    assert record is not None
    stem = artifact_stem(manifest.name, manifest.resolution, manifest.batch)
    graph = artifact.path.resolve().parent.parent.parent / EXPORT_DIR / f"{stem}.onnx"
    if not manifest_path(graph).is_file():
        return
    exported = read_manifest(graph)
    if exported.file.sha256 != record.onnx_sha256:
        raise IncompatibleEngineError(
            f"{artifact.path.parent} was built from another graph than {graph}, which was exported since; "
            f"build it again: {build_command(manifest)}"
        )


def build_command(manifest: Manifest) -> str:
    """The command line that builds an engine like this one."""
    record = manifest.engine
    assert record is not None
    height, width = manifest.resolution
    return f"mvde build --engine {record.id} --name {manifest.name} --res {height}x{width}"


def _of_id(wanted: EngineId, name: str | None, resolution: tuple[int, int] | None, root: Path) -> Sequence[Artifact]:
    """Engines of an id; for a bare precision those of the backend that is best here, or else whichever was built."""
    matches = find_engines(name, resolution, str(wanted), root)
    if wanted.backend is not None or len(matches) == 1:
        return matches
    for backend in _MODULES:
        preferred = [found for found in matches if found.manifest.engine and found.manifest.engine.backend == backend]
        if preferred:
            return preferred
    return matches


def _only(matches: Sequence[Artifact], wanted: str) -> Artifact:
    if len(matches) == 1:
        return matches[0]
    listed = "; ".join(str(match) for match in matches)
    raise ArtifactError(
        f"several engines match {wanted!r}: {listed}; say which with --res, --name, an engine id or a path"
    )


def _looks_like_id(text: str) -> bool:
    return "/" not in text and not text.endswith((".json", ".onnx", ".blob"))
