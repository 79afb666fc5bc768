"""ONNX Runtime sessions: the single place that opens them, and the settings of their three uses."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import one_line
from mvde.errors import BackendError, MissingDependencyError

if TYPE_CHECKING:
    from mvde.engines.sealed import SealedFile

CPU_PROVIDER = "CPUExecutionProvider"
_TENSORRT_PROVIDER = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class SessionSettings:
    """Session settings; ``None`` leaves the choice to the library.

    ``provider`` is the library's provider name, with ``provider_options``. ``optimization`` is the graph optimisation
    level (``"basic"``, ``"extended"``, ``"all"``), ``is_spinning`` whether idle threads spin, ``has_arena`` whether
    freed memory is pooled, ``is_prepacked`` whether weights are copied into a faster layout, ``has_memory_pattern``
    whether memory is planned ahead. ``takes_signed_int8`` keeps int8 Q/DQ pairs as they are. ``log_level`` is the
    minimum severity printed (3: error, 4: fatal); a profile is written to files that start with ``profile_prefix``.
    """

    provider: str = CPU_PROVIDER
    provider_options: Mapping[str, str] = field(default_factory=dict)
    num_threads: int | None = None
    optimization: str | None = None
    is_spinning: bool | None = None
    has_arena: bool = True
    is_prepacked: bool = True
    has_memory_pattern: bool = True
    takes_signed_int8: bool = False
    log_level: int = 3  # errors only: warnings about unused initialisers do not concern the user
    profile_prefix: str | None = None


# Without arena and prepacked weights a check needs half the memory; it runs once or twice. Spinning threads waste CPU
# time on a busy machine.
CHECKING = SessionSettings(has_arena=False, is_prepacked=False, is_spinning=False)
"""For one or two runs of a large graph during a check."""

# Extended optimisations mistake fp8 Q/DQ pairs for int8 ones (1.32: depth off by a factor of three), and turn int8
# pairs into uint8 ones that opset 21 and later reject. Basic ones preserve the arithmetic. Failures are raised, so the
# library's log is not shown.
AS_WRITTEN = SessionSettings(optimization="basic", log_level=4)
"""For a typed graph whose arithmetic must be executed as written."""


def open_session(
    model: Path | bytes,
    settings: SessionSettings = SessionSettings(),
    *,
    external_data: Mapping[str, memoryview] | None = None,
    what: str = "",
    extra: str = "onnxruntime",
    purpose: str = "an onnxruntime engine",
) -> Any:
    """Open a session on a graph in a file or in memory.

    ``external_data`` maps the external data files of a graph in memory to their content. ``what`` names the graph in
    errors (default: its path); ``extra`` and ``purpose`` are for the error about a missing library.

    Raises :class:`BackendError` if the library rejects the graph or cannot start the provider,
    :class:`MissingDependencyError` if it is not installed.
    """
    library = onnxruntime_library(extra, purpose)
    named = what or str(model if isinstance(model, Path) else "a graph in memory")
    given = model if isinstance(model, bytes) else str(model)
    providers = [(settings.provider, dict(settings.provider_options))]
    options = _session_options(library, settings)
    try:
        if external_data:
            names, contents = list(external_data), list(external_data.values())
            options.add_external_initializers_from_files_in_memory(names, contents, [len(each) for each in contents])
        session = library.InferenceSession(given, options, providers=providers)
    except Exception as error:  # the library's exceptions share no public base class
        raise BackendError(f"ONNX Runtime cannot load {named}: {one_line(error)}") from error
    running: list[str] = session.get_providers()
    if running[:1] != [settings.provider]:  # the library falls back to the CPU with only a warning
        raise BackendError(
            f"ONNX Runtime could not start {settings.provider} for {named}; it offers {', '.join(running)} instead"
        )
    return session


def open_in_memory(
    path: Path, graph: SealedFile, external_data: Mapping[str, SealedFile], settings: SessionSettings
) -> Any:
    """Open a session on a graph and external data already read from ``path``; the files are not read again.

    Raises as :func:`open_session` does.
    """
    takes_memory = hasattr(onnxruntime_library().SessionOptions, "add_external_initializers_from_files_in_memory")
    if not external_data or (takes_memory and settings.provider != _TENSORRT_PROVIDER):
        files = {name: content.view() for name, content in external_data.items()}
        return open_session(bytes(graph.view()), settings, external_data=files, what=str(path))
    # Older versions and TensorRT's provider read external data only from files; give them private copies.
    with tempfile.TemporaryDirectory() as private:
        for name, content in {path.name: graph, **external_data}.items():
            (Path(private) / name).write_bytes(content.view())
        return open_session(Path(private) / path.name, settings, what=str(path))


def onnxruntime_library(extra: str = "onnxruntime", purpose: str = "an onnxruntime engine") -> Any:
    """The module ``onnxruntime``. Raises :class:`MissingDependencyError` naming the extra that installs it.

    From 1.29 on, the library reports its use from a thread of its own, which it starts when it is imported unless this
    variable is set; a forked child then waits for that thread when it exits. A value that the user has set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError.for_extra("onnxruntime", extra, purpose) from error
    return onnxruntime


def library_version() -> str:
    """Version of the installed ONNX Runtime. Raises :class:`MissingDependencyError` without one."""
    version: str = onnxruntime_library().__version__
    return version


def _session_options(library: Any, settings: SessionSettings) -> Any:
    """Convert to the library's session options; unset values keep the library's defaults."""
    options = library.SessionOptions()
    options.log_severity_level = settings.log_level
    if settings.takes_signed_int8:
        # Otherwise it turns int8 Q/DQ pairs into uint8 ones on x86, which it rejects itself from opset 21 on (1.32).
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    if settings.num_threads is not None:
        options.intra_op_num_threads = settings.num_threads
    if settings.is_spinning is not None:
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.is_spinning)))
    if not settings.has_arena:
        options.enable_cpu_mem_arena = False
    if not settings.is_prepacked:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if not settings.has_memory_pattern:
        options.enable_mem_pattern = False
    if settings.optimization is not None:
        level = f"ORT_ENABLE_{settings.optimization.upper()}"
        options.graph_optimization_level = getattr(library.GraphOptimizationLevel, level)
    if settings.profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = settings.profile_prefix
    return options
