"""The store: which backend serves an engine id here, where engines lie, and the checks before one is loaded."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvde.artifact import (
    ENGINE_DIR,
    EXPORT_DIR,
    AnyArtifact,
    EngineArtifact,
    artifact_stem,
    find_engines,
    load_artifact,
    manifest_path,
    read_manifest,
)
from mvde.engines.base import BACKENDS, PRECISIONS, Engine, EngineId, Support
from mvde.engines.machine import cpu_features
from mvde.errors import ArtifactError, BackendError, IncompatibleEngineError, MissingDependencyError
from mvde.manifest import EngineManifest, GraphManifest, Manifest

# In order of preference: a GPU before the CPU. On a CPU OpenVINO comes first: `pip install mvde` brings it, it alone
# computes in bf16, and in fp32 it was faster, too (`mvde bench`, nano at 192, 448 and 896 on two AMX cores: 1.1, 1.4
# and 2.2 times as fast as ONNX Runtime).
_MODULES = {
    "tensorrt": "mvde.engines.tensorrt.backend:TENSORRT",
    "tensorrt-rtx": "mvde.engines.tensorrt.backend:TENSORRT_RTX",
    "openvino": "mvde.engines.openvino",
    "onnxruntime": "mvde.engines.onnxruntime",
}
_BEST = ("tensorrt:fp16", "tensorrt-rtx:fp16", "openvino:bf16", "openvino:fp32", "onnxruntime:fp32")
"""What is built where nothing is named, the first that works: the fastest precision that the hardware computes in."""


def backend_module(backend: str) -> Any:
    """Module (or object) of a backend, with ``library_version``, ``support``, ``compile_graph`` and ``load``.

    A backend on a GPU also has ``check_source``, ``content_key``, ``mismatch`` and ``device_facts``: see
    :class:`mvde.engines.tensorrt.backend.TensorRtBackend`.
    """
    module, _, attribute = _MODULES[backend].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


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
    for candidate in map(EngineId.parse, _BEST):
        if support(candidate).works:
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


def load_engine(source: str | Path | AnyArtifact) -> tuple[Engine, EngineManifest]:
    """Engine and its manifest, after comparing hashes, library version, CPU and graph with what it was built for.

    Raises :class:`HashMismatchError` or :class:`IncompatibleEngineError` with the reason and the command that mends it.
    """
    artifact = load_artifact(Path(source) if isinstance(source, str | Path) else source.path)
    manifest = artifact.manifest
    if isinstance(manifest, GraphManifest):
        raise ArtifactError(f"{artifact.path} is an ONNX graph, not an engine; build one: mvde build {artifact.path}")
    check_machine(manifest, str(artifact.path.parent))
    found = EngineArtifact(artifact.path, manifest)
    check_graph(found)
    check_proved(found)
    engine: Engine = backend_module(manifest.engine.backend).load(artifact.path, manifest)
    return engine, manifest


def check_machine(manifest: EngineManifest, where: str) -> None:
    """Nothing, if this machine and its libraries are those that the engine was built for.

    Raises :class:`IncompatibleEngineError` with the difference and the command that rebuilds.
    """
    record = manifest.engine
    rebuild = f"build it again here: {build_command(manifest)}"
    missing = [feature for feature in record.cpu_features if feature not in cpu_features()]
    if missing:
        raise IncompatibleEngineError(
            f"{where} was built for a CPU with {', '.join(missing)}, which this one lacks; {rebuild}"
        )
    backend = backend_module(record.backend)
    if hasattr(backend, "mismatch"):
        if (reason := backend.mismatch(record)) is not None:
            raise IncompatibleEngineError(f"{where} cannot run here: {reason}; {rebuild}")
        return
    version = backend.library_version()
    if version != record.library_version:
        raise IncompatibleEngineError(
            f"{where} was built with {record.backend} {record.library_version}, but {version} is installed; {rebuild}"
        )


def check_graph(artifact: EngineArtifact) -> None:
    """Nothing, if the graph that the engine was built from is still the one beside it, in ``export/`` by ``engines/``.

    A robot carries engines without graphs; there is nothing to compare then. Raises :class:`IncompatibleEngineError`
    when the model was exported anew since.
    """
    manifest, record = artifact.manifest, artifact.manifest.engine
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


def check_proved(artifact: EngineArtifact) -> None:
    """Nothing, if the engine was measured on a GPU like this machine's, or computes on the CPU that it was built for.

    Raises :class:`IncompatibleEngineError` for one that was built without a device or measured on another GPU, with the
    command that measures it here.
    """
    parity, record = artifact.manifest.parity, artifact.manifest.engine
    prove = f"measure it on this machine: mvde prove {artifact.path.parent}"
    if parity.measured is None:
        raise IncompatibleEngineError(
            f"{artifact.path.parent} has parity not measured: no device when it was built; {prove}"
        )
    was = parity.measured_on
    if was is None:
        return
    here = backend_module(record.backend).device_facts()
    if here is None or (here.gpu, here.compute_capability) != (was.gpu, was.compute_capability):
        now = "no GPU" if here is None else f"{here.gpu}, {here.compute_capability}"
        raise IncompatibleEngineError(
            f"{artifact.path.parent} was measured on {was.gpu}, {was.compute_capability}, but this machine has {now}; "
            f"{prove}"
        )


def build_command(manifest: EngineManifest) -> str:
    """The command line that builds an engine like this one."""
    record = manifest.engine
    height, width = manifest.resolution
    batch = f" --batch {manifest.batch}" if manifest.batch != 1 else ""
    return f"mvde build --engine {record.id} --name {manifest.name} --res {height}x{width}{batch}"


def _of_id(
    wanted: EngineId, name: str | None, resolution: tuple[int, int] | None, batch: int | None, root: Path
) -> Sequence[EngineArtifact]:
    """Engines of an id; for a bare precision those of the backend that is best here, or else whichever was built."""
    matches = _for_this_machine(find_engines(name, resolution, str(wanted), root, batch))
    if wanted.backend is not None or len(matches) == 1:
        return matches
    for backend in _MODULES:
        preferred = [found for found in matches if found.manifest.engine.backend == backend]
        if preferred:
            return preferred
    return matches


def _for_this_machine(matches: Sequence[EngineArtifact]) -> Sequence[EngineArtifact]:
    """Of engines that differ only in the GPU, version or options they were built for, the latest that runs here.

    Where none runs here the latest is kept, so that loading it says why.
    """
    kept: dict[tuple[Any, ...], list[EngineArtifact]] = {}
    for found in matches:
        manifest, record = found.manifest, found.manifest.engine
        kept.setdefault((manifest.name, manifest.resolution, manifest.batch, record.id), []).append(found)
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


def _looks_like_id(text: str) -> bool:
    return "/" not in text and not text.endswith((".json", ".onnx", ".blob", ".plan"))
