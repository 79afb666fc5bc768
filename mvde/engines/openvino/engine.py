"""A compiled model of OpenVINO as an engine, read from its blob."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.engines.base import EngineInfo, check_images, closed_error, one_line
from mvde.engines.float_environment import in_default_float_environment
from mvde.engines.machine import cpu_name
from mvde.engines.openvino import attention
from mvde.engines.openvino.library import DEVICE, executed_precision, library_version, openvino_library, shared_core
from mvde.engines.process import ProcessGuard
from mvde.engines.sealed import SealedFile
from mvde.engines.stored_options import check_stored
from mvde.errors import BackendError, IncompatibleEngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.opened import OpenedEngine


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
    attention.OPTION: f"{attention.OURS}|{attention.LIBRARYS}",
}
"""What a build and its tuning set: everything that the library is given of a manifest, with its values."""


class OpenVinoEngine:
    """A compiled model as an :class:`~mvde.engines.base.Engine`; every thread that is inside has its own request."""

    def __init__(self, compiled: Any, info: EngineInfo) -> None:
        self._compiled = compiled
        self._blob = compiled.blob  # closing the engine must not take it from a call that is inside
        self._info = info
        self._process = ProcessGuard(self, "OpenVINO")
        self._lock = threading.Lock()
        self._idle: list[Any] = []

    @property
    def info(self) -> EngineInfo:
        """What runs, and on what."""
        return self._info

    @in_default_float_environment
    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth (B, H, W), float32, of RGB images (B, H, W, 3), uint8; see :class:`~mvde.engines.base.Engine`."""
        self._process.check(f"engine {self._info.id}")
        check_images(images, self._info)
        request = self._take()
        try:
            # Copied in and out: the tensors belong to the request, which the next call reuses.
            request.infer([np.ascontiguousarray(images)], share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed to run {self._info.id}: {one_line(error)}") from error
        finally:
            with self._lock:
                self._idle.append(request)

    def layers(self) -> str:
        """An empty text: what the executed graph says is in the manifest already."""
        return ""

    def close(self) -> None:
        """Free the compiled model and its requests; in a fork of the process that loaded it, leave them alone."""
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
    """The engine that was opened, which :func:`mvde.engines.store.load_engine` has checked against this machine.

    Raises :class:`IncompatibleEngineError` where the library refuses it, or computes in another precision than it did.
    """
    path, manifest = opened.path, opened.manifest
    record = manifest.engine
    options = checked_options(record.options, path)
    attention.require(shared_core(), record, library_version(), path)
    compiled = import_blob(path, options, opened.content)
    executed = executed_precision(compiled)
    if executed != record.executed_precision:
        raise IncompatibleEngineError(
            f"{path} was built to compute in {record.executed_precision}, but computes in {executed} here; "
            f"build it again: mvde build --engine {record.id}"
        )
    return OpenVinoEngine(compiled, EngineInfo.of(manifest, device=cpu_name(), library_version=library_version()))


def checked_options(options: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The options of a manifest for the engine at ``where``, each one that mvde sets.

    Raises :class:`IncompatibleEngineError` for another one: ``CACHE_DIR``, say, makes the library write files.
    """
    check_stored(options, _OPTIONS, str(where))
    return dict(options)


def import_blob(path: Path, options: Mapping[str, Any], content: SealedFile | None = None) -> Any:
    """Compiled model that reads its weights from a map of the blob's sealed content, so that they are not held twice.

    Without ``content`` the file at ``path`` is read. The map is the model's ``blob``, which has to live as long as it
    does, and is private to the process instead of read-only, since OpenVINO shares no array that cannot be written:
    base would take twice the time to load, and 385 MiB more.
    """
    try:
        blob = (SealedFile(path) if content is None else content).array
        tensor = openvino_library().Tensor(blob, shared_memory=True)
        compiled = shared_core().import_model(tensor, DEVICE, attention.library_options(options))
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
