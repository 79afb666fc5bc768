"""The Engine protocol, what an engine says of itself, and the engine-id grammar ``[backend:]precision``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mvde.engines.tensorrt.options import TensorRtOptions
from mvde.errors import EngineIdError, UsageError
from mvde.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mvde.records import CudaRecord, LoweringRecord

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
PRECISIONS = tuple(Precision)

OnProgress = Callable[[str, int, int], None]
"""Told what a build is at: the phase's name, the steps of it that are done, and how many it has."""

GRAMMAR = f"[BACKEND:]PRECISION with BACKEND one of {', '.join(BACKENDS)} and PRECISION one of {', '.join(PRECISIONS)}"


@dataclass(frozen=True)
class EngineId:
    """A backend (``None``: the best one on this machine) and the precision of the graph it executes."""

    backend: str | None
    precision: Precision

    @classmethod
    def parse(cls, text: str) -> EngineId:
        """Engine id from ``"fp16"`` or ``"openvino:bf16"``. Raises :class:`EngineIdError` stating the grammar."""
        backend, colon, precision = text.strip().lower().rpartition(":")
        if precision not in PRECISIONS or (colon and backend not in BACKENDS):
            raise EngineIdError(f"engine id {text!r} is not known; expected {GRAMMAR}, such as fp16 or openvino:bf16")
        return cls(backend=backend or None, precision=Precision(precision))

    @classmethod
    def matches_grammar(cls, text: str) -> bool:
        """Whether ``text`` is an engine id (and not, say, a path)."""
        try:
            cls.parse(text)
        except EngineIdError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}" if self.backend else self.precision


@dataclass(frozen=True)
class EngineInfo:
    """What runs: ``precision`` is the graph's, ``executed_precision`` what the backend says it computes in.

    ``resolution`` is (height, width) in pixels, ``batch`` the number of images per call, ``device`` the hardware.
    """

    id: str
    backend: str
    precision: str
    executed_precision: str
    device: str
    resolution: tuple[int, int]
    batch: int
    library_version: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """A compiled model. ``infer`` may be called from several threads at once; ``close`` when none is left inside."""

    @property
    def info(self) -> EngineInfo:
        """What runs, and on what."""
        ...

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth (B, H, W), float32, metres for a metric model, of RGB images (B, H, W, 3), uint8, 0 to 255.

        B, H and W are those of :attr:`info`. The result belongs to the caller. Raises :class:`UsageError` for another
        shape or dtype, :class:`BackendError` where the library fails.
        """
        ...

    def close(self) -> None:
        """Nothing; frees the library's memory. Safe to call twice; ``infer`` afterwards raises UsageError."""
        ...


@runtime_checkable
class DeviceEngine(Protocol):
    """What an :class:`Engine` on a device of its own (a GPU) may offer besides; ``mvde bench`` asks for it by these
    names, and measures from the host alone without them."""

    def device_times_ms(self, images: NDArray[np.uint8], count: int) -> list[float]:
        """Milliseconds of each of ``count`` runs on the device alone, in order, after the last one has finished.

        Each is the time between two CUDA events recorded on the engine's own stream, around the network and without the
        copies from and to the host; the stream is synchronised before the events are read.
        """
        ...

    def device_memory_bytes(self) -> int:
        """Bytes of device memory that the engine holds now: weights, activations and its own buffers."""
        ...


@dataclass(frozen=True)
class Graph:
    """An ONNX file, the files of external data that it names, and what it promises, if its dtypes were lowered."""

    path: Path
    companions: tuple[Path, ...] = ()
    precision: LoweringRecord | None = None


@dataclass(frozen=True)
class BuildOptions:
    """What a user may choose for an engine; ``None`` leaves the choice to the backend.

    ``without_device`` builds for another machine's GPU and leaves the engine unproved; ``num_builds`` are built and
    must agree before one is kept; ``accept_known_bad`` builds where the list of known errors says not to. ``rest`` is
    what the nodes of an int8 graph that are not quantised compute in, where the backend can choose. ``library``
    are further settings of a backend on the CPU, in its library's own words, and ``tune_s`` is how many seconds to
    spend on measuring which of them are fastest here.
    """

    num_threads: int | None = None
    provider: str | None = None
    tensorrt: TensorRtOptions = field(default_factory=TensorRtOptions)
    without_device: bool = False
    num_builds: int = 1
    accept_known_bad: bool = False
    rest: str | None = None
    on_progress: OnProgress | None = None
    library: Mapping[str, Any] = field(default_factory=dict)
    tune_s: float | None = None


@dataclass(frozen=True)
class Compiled:
    """What a backend wrote: the file names (the engine itself first) and how it was made.

    ``rewrites`` and ``cuda`` are as in :class:`mvde.records.EngineRecord`; ``uses_cpu`` says that the engine depends on
    this CPU's features.
    """

    file_names: tuple[str, ...]
    executed_precision: str
    device: str
    options: dict[str, Any]
    rewrites: dict[str, str] = field(default_factory=dict)
    cuda: CudaRecord | None = None
    uses_cpu: bool = True


@dataclass(frozen=True)
class Support:
    """Whether an engine id would work on this machine, what it would compute in, and the reason if it would not."""

    works: bool
    note: str


def check_images(images: NDArray[np.uint8], info: EngineInfo) -> None:
    """Nothing, if ``images`` is what the engine takes. Raises :class:`UsageError` with the two shapes if not."""
    expected = (info.batch, *info.resolution, 3)
    shape, dtype = getattr(images, "shape", None), str(getattr(images, "dtype", type(images).__name__))
    if shape != expected or dtype != "uint8":
        raise UsageError(
            f"engine {info.id} takes RGB images of shape {expected} and dtype uint8, but got shape {shape} and dtype "
            f"{dtype}; DepthRuntime resizes and batches images of any size"
        )


def closed_error(info: EngineInfo) -> UsageError:
    """The error of using an engine after ``close``."""
    return UsageError(f"engine {info.id} is closed; load it again with DepthRuntime.load")
