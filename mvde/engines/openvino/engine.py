"""OpenVINO compiled model as an engine, loaded from its blob."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.contract import OutputRole
from mvde.engines.base import EngineInfo, check_images, check_output_names, closed_error, one_line
from mvde.engines.float_environment import in_default_float_environment
from mvde.engines.machine import cpu_name
from mvde.engines.openvino import attention, int8_linear
from mvde.engines.openvino.library import DEVICE, executed_precision, library_version, openvino_library, shared_core
from mvde.engines.openvino.operators import library_options
from mvde.engines.process import ProcessGuard
from mvde.engines.sealed import SealedFile
from mvde.engines.stored_options import check_stored
from mvde.errors import BackendError, IncompatibleEngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.base import Maps
    from mvde.engines.opened import OpenedEngine
    from mvde.manifest import EngineManifest


_SWITCH, _COUNT, _WORD = "YES|NO", "[0-9]{1,4}", "[A-Za-z0-9_]{1,32}"

_OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY|THROUGHPUT",
    "INFERENCE_PRECISION_HINT": _WORD,
    "INFERENCE_NUM_THREADS": _COUNT,
    "NUM_STREAMS": _COUNT,
    "TBB_PARTITIONER": "STATIC|AUTO",
    "ENABLE_CPU_PINNING": _SWITCH,
    "ENABLE_HYPER_THREADING": _SWITCH,
    "CPU_DENORMALS_OPTIMIZATION": _SWITCH,
    "SNIPPETS_MODE": _WORD,
    attention.OPTION: "|".join((*attention.KERNELS, attention.LIBRARYS)),
    int8_linear.OPTION: f"{int8_linear.OURS}|{int8_linear.LIBRARYS}",
}
"""Options set by builds and tuning, with patterns of their values; no others are taken from a manifest."""
_LARGEST_FOR_TWO = 64 << 20
"""Bytes of the largest blob that is opened a second time for two calls: the same again is in OpenVINO's packed copy."""


class OpenVinoEngine:
    """A compiled model as an :class:`~mvde.engines.base.Engine`; each concurrent call uses its own request."""

    def __init__(
        self,
        compiled: Any,
        info: EngineInfo,
        roles: Iterable[OutputRole],
        import_again: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        """Wrap ``compiled``; ``roles`` are those of its outputs, in order.

        ``import_again`` opens it once more, with the same options and some others.
        """
        self._compiled = compiled
        self._import_again = import_again
        self._roles = tuple(roles)
        self._blob = compiled.blob  # must outlive calls in progress when the engine is closed
        self._info = info
        self._process = ProcessGuard(self, "OpenVINO")
        self._lock = threading.Lock()
        self._idle: list[Any] = []

    @property
    def info(self) -> EngineInfo:
        """Backend, precision, device and shape of the engine."""
        return self._info

    @in_default_float_environment
    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Infer depth (B, H, W), float32, from RGB images (B, H, W, 3), uint8; see ``base.Engine``."""
        return self._run(images, self._roles[:1])[OutputRole.DEPTH]

    @in_default_float_environment
    def infer_maps(self, images: NDArray[np.uint8]) -> Maps:
        """Infer all outputs by role, each (B, H, W), float32; see ``base.Engine``."""
        return self._run(images, self._roles)

    def _run(self, images: NDArray[np.uint8], roles: Sequence[OutputRole]) -> Maps:
        """Run once; return copies of the first outputs, which have these roles."""
        self._process.check(f"engine {self._info.id}")
        check_images(images, self._info)
        request = self._take()
        try:
            # The output tensors belong to the request, which the next call reuses: copy them.
            request.infer([np.ascontiguousarray(images)], share_inputs=True)
            tensors = map(request.get_output_tensor, range(len(roles)))
            return {role: np.array(tensor.data, dtype=np.float32) for role, tensor in zip(roles, tensors, strict=True)}
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed to run {self._info.id}: {one_line(error)}") from error
        finally:
            with self._lock:
                self._idle.append(request)

    def for_two_calls(self) -> OpenVinoEngine | None:
        """Open two streams of OpenVINO on the same threads; see :class:`mvde.runtime.lanes.TwoCallEngine`."""
        threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        if threads < 2 or self._blob.nbytes > _LARGEST_FOR_TWO or "NUM_STREAMS" in self._info.options:
            return None
        compiled = self._import_again({"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": str(threads)})
        return OpenVinoEngine(compiled, self._info, self._roles, self._import_again)

    def layers(self) -> str:
        """Empty: the executed precision is already in the manifest."""
        return ""

    def close(self) -> None:
        """Release the compiled model and its requests; no-op in a forked child."""
        if self._process.is_inherited:
            return
        with self._lock:
            self._idle.clear()
            self._compiled = None

    def _take(self) -> Any:
        with self._lock:
            if self._compiled is None:
                raise closed_error(self._info)
            if self._idle:
                return self._idle.pop()
            return self._compiled.create_infer_request()


def load(opened: OpenedEngine) -> OpenVinoEngine:
    """Load an opened engine that :func:`mvde.engines.store.load_engine` has checked against this machine.

    Raises :class:`IncompatibleEngineError` if the library rejects it or computes in another precision than at build.
    """
    path, manifest = opened.path, opened.manifest
    record = manifest.engine
    options = checked_options(record.options, path)
    attention.require(shared_core(), record, library_version(), path)
    int8_linear.require(shared_core(), record, library_version(), path)

    def import_again(others: Mapping[str, Any]) -> Any:
        return import_blob(path, {**options, **others}, opened.content)

    compiled = import_again({})
    executed = executed_precision(compiled)
    if executed != record.executed_precision:
        raise IncompatibleEngineError(
            f"{path} was built to compute in {record.executed_precision}, but computes in {executed} here; "
            f"build it again: mvde build --engine {record.id}"
        )
    check_output_names([_name_of(port, manifest) for port in compiled.outputs], manifest, path)
    info = EngineInfo.of(manifest, device=cpu_name(), library_version=library_version())
    return OpenVinoEngine(compiled, info, manifest.output_names, import_again)


def _name_of(port: Any, manifest: EngineManifest) -> str:
    """The manifest's name among those of an output, or any of them."""
    names = port.get_names()
    return next((output.name for output in manifest.outputs if output.name in names), "/".join(sorted(names)))


def checked_options(options: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Validate the options in the manifest of the engine at ``where``.

    Raises :class:`IncompatibleEngineError` for options that mvde does not set: ``CACHE_DIR``, say, would write files.
    """
    check_stored(options, _OPTIONS, str(where))
    return dict(options)


def import_blob(path: Path, options: Mapping[str, Any], content: SealedFile | None = None) -> Any:
    """Import a compiled model whose weights are read from a mapping of the sealed blob, to avoid a second copy.

    Without ``content`` the file at ``path`` is read. The mapping is stored as the model's ``blob`` and must outlive it.
    It is private rather than read-only because OpenVINO copies arrays that are not writable: base would take twice as
    long to load and 385 MiB more.
    """
    try:
        blob = (SealedFile(path) if content is None else content).array
        tensor = openvino_library().Tensor(blob, shared_memory=True)
        compiled = shared_core().import_model(tensor, DEVICE, library_options(options))
        compiled.blob = blob
        return compiled
    except (OSError, ValueError, RuntimeError) as error:
        raise IncompatibleEngineError(
            f"OpenVINO cannot load {path}: {one_line(error)}; {_remedy(str(error))}"
        ) from error


def _remedy(message: str) -> str:
    """What to do about a blob that was refused."""
    if re.search(r"\bov=\d{1,3}[^\d;]\d{3}\.", message):  # 2.026.4.1: the year of the version as a number of thousands
        return (
            "the global C++ locale of this program groups digits, also in the library's version; set "
            "std::locale::global(std::locale::classic()) before the engine is loaded"
        )
    return "build it again with `mvde build`"
