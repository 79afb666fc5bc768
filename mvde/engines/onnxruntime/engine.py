"""ONNX Runtime session as an engine, and an exported graph run unchanged as the parity reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.contract import OutputRole
from mvde.engines.base import EngineInfo, check_images, check_output_names, closed_error, one_line
from mvde.engines.float_environment import in_default_float_environment
from mvde.engines.machine import cpu_name
from mvde.engines.onnxruntime.providers import Provider, available_providers, provider_options
from mvde.engines.onnxruntime.session import SessionSettings, library_version, open_in_memory, open_session
from mvde.engines.process import ProcessGuard
from mvde.engines.stored_options import check_stored
from mvde.errors import BackendError, IncompatibleEngineError
from mvde.precision import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.engines.base import Maps
    from mvde.engines.opened import OpenedEngine

NAME = "onnxruntime"


_OPTIONS = {
    "provider": "|".join(Provider),
    "num_threads": "[0-9]{1,4}",
    "allow_spinning": "0|1",
    "mem_pattern": "0|1",
    "optimization": "basic|extended|all",
}
"""Options set by builds and tuning, with patterns of their values."""


class OnnxRuntimeEngine:
    """An ONNX Runtime session as an :class:`~mvde.engines.base.Engine`; ``run`` is thread-safe."""

    def __init__(self, session: Any, info: EngineInfo, outputs: Mapping[OutputRole, str]) -> None:
        """Wrap ``session``; ``outputs`` are its outputs' names by role."""
        self._session = session
        self._process = ProcessGuard(self, "ONNX Runtime")
        self._info = info
        self._input = session.get_inputs()[0].name
        self._outputs = dict(outputs)

    @property
    def info(self) -> EngineInfo:
        """Backend, precision, device and shape of the engine."""
        return self._info

    @in_default_float_environment
    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Infer depth (B, H, W), float32, from RGB images (B, H, W, 3), uint8; see ``base.Engine``."""
        return self._run(images, (OutputRole.DEPTH,))[OutputRole.DEPTH]

    @in_default_float_environment
    def infer_maps(self, images: NDArray[np.uint8]) -> Maps:
        """Infer all outputs by role, each (B, H, W), float32; see ``base.Engine``."""
        return self._run(images, self._outputs)

    def _run(self, images: NDArray[np.uint8], roles: Iterable[OutputRole]) -> Maps:
        """Run once for the outputs of these roles."""
        self._process.check(f"engine {self._info.id}")
        session = self._session
        if session is None:
            raise closed_error(self._info)
        check_images(images, self._info)
        try:
            maps = session.run([self._outputs[role] for role in roles], {self._input: images})
        except Exception as error:  # the library's exceptions share no public base class
            raise BackendError(f"ONNX Runtime failed to run {self._info.id}: {one_line(error)}") from error
        return dict(zip(roles, maps, strict=True))

    def layers(self) -> str:
        """Empty: only a profile shows what the library runs, and the build has evaluated it."""
        return ""

    def close(self) -> None:
        """Release the session; no-op in a forked child."""
        if not self._process.is_inherited:
            self._session = None


def load(opened: OpenedEngine) -> OnnxRuntimeEngine:
    """Load an opened engine that :func:`mvde.engines.store.load_engine` has checked against this machine."""
    path, manifest = opened.path, opened.manifest
    record = manifest.engine
    check_stored(record.options, _OPTIONS, str(path))
    provider = _provider_name(record.options)
    if provider not in available_providers():
        raise IncompatibleEngineError(
            f"{path} was built for ONNX Runtime's {provider} provider, which the installed package lacks; "
            f"install 'mvde[onnxruntime-gpu]' or build it again: mvde build --engine {record.id}"
        )
    settings = _settings(path, record.options, record.precision, graph_sha256=opened.content.sha256)
    session = open_in_memory(path, opened.content, opened.companions, settings)
    check_output_names([output.name for output in session.get_outputs()], manifest, path)
    info = EngineInfo.of(manifest, device=record.device, library_version=library_version())
    return OnnxRuntimeEngine(session, info, manifest.output_names)


@in_default_float_environment
def open_onnx(
    path: str | Path, num_threads: int | None = None, outputs: Mapping[OutputRole, str] | None = None
) -> OnnxRuntimeEngine:
    """Open an exported fp32 graph on the CPU: the reference for engines and exports.

    ``outputs`` are those of its manifest by role; default: its first output, as depth.

    Raises :class:`BackendError` if ONNX Runtime cannot read the file.
    """
    options = {} if num_threads is None else {"num_threads": num_threads}
    session = open_graph(Path(path), options, Precision.FP32)
    batch, height, width, _ = session.get_inputs()[0].shape
    info = EngineInfo(  # a bare graph has no engine record
        id=f"{NAME}:{Precision.FP32}",
        backend=NAME,
        precision=Precision.FP32,
        executed_precision=str(Precision.FP32),
        device=cpu_name(),
        resolution=(height, width),
        batch=batch,
        library_version=library_version(),
    )
    return OnnxRuntimeEngine(session, info, outputs or {OutputRole.DEPTH: session.get_outputs()[0].name})


def open_graph(path: Path, options: Mapping[str, Any], precision: Precision, profile_prefix: str | None = None) -> Any:
    """Open a session on a graph file with the options of an engine's manifest, including tuned ones."""
    return open_session(path, _settings(path, options, precision, profile_prefix))


def _settings(
    path: Path,
    options: Mapping[str, Any],
    precision: Precision,
    profile_prefix: str | None = None,
    graph_sha256: str | None = None,
) -> SessionSettings:
    """Translate options; hashes the graph's file if the provider needs a cache key and no hash is given."""
    provider = Provider(_provider_name(options))
    spinning, memory = options.get("allow_spinning"), options.get("mem_pattern")
    return SessionSettings(
        provider=provider.library_name,
        provider_options=provider_options(provider, precision, path, library_version(), graph_sha256),
        num_threads=int(options["num_threads"]) if "num_threads" in options else None,
        optimization=options.get("optimization"),
        is_spinning=None if spinning is None else str(spinning) != "0",
        has_memory_pattern=str(memory) != "0",
        takes_signed_int8=True,
        profile_prefix=profile_prefix,
    )


def _provider_name(options: Mapping[str, Any]) -> str:
    return str(options.get("provider", Provider.CPU))
