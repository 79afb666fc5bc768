"""The protocols of engines and backends, what an engine says of itself, and the grammar of ids ``[backend:]precision``.

A backend is one object that answers every question of :class:`Backend`, with an empty answer where it has nothing to
say. The runtime asks an engine for :class:`DeviceEngine` or :class:`StatsEngine`, never for a class of one backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mvde.engines.backends import backend_names
from mvde.errors import EngineIdError, UsageError
from mvde.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mvde.cuda.array import DeviceArray, DeviceView
    from mvde.cuda.memory import CudaDevice
    from mvde.engines.opened import OpenedEngine
    from mvde.engines.settings import Setting
    from mvde.manifest import EngineManifest, Manifest
    from mvde.records import CudaRecord, DeviceRecord, EngineRecord, LoweringRecord

OnProgress = Callable[[str, int, int], None]
"""Told what a build is at: the phase's name, the steps of it that are done, and how many it has."""


@dataclass(frozen=True)
class EngineId:
    """A backend (``None``: the best one on this machine) and the precision of the graph it executes."""

    backend: str | None
    precision: Precision

    @classmethod
    def parse(cls, text: str) -> EngineId:
        """Engine id from ``"fp16"`` or ``"openvino:bf16"``. Raises :class:`EngineIdError` stating the grammar."""
        backend, colon, precision = text.strip().lower().rpartition(":")
        if precision not in list(Precision) or (colon and backend not in backend_names()):
            grammar = (
                f"[BACKEND:]PRECISION with BACKEND one of {', '.join(sorted(backend_names()))} and PRECISION one of "
                f"{', '.join(Precision)}"
            )
            raise EngineIdError(f"engine id {text!r} is not known; expected {grammar}, such as fp16 or openvino:bf16")
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
        return f"{self.backend}:{self.precision}" if self.backend else str(self.precision)


@dataclass(frozen=True)
class EngineInfo:
    """What runs: ``precision`` is the graph's, ``executed_precision`` what the backend says it computes in.

    ``resolution`` is (height, width) in pixels, ``batch`` the number of images per call, ``device`` the hardware.
    ``rewrites`` is what mvde put in the place of the library's own (``"attention"``, ``"linear_layers"``).
    """

    id: str
    backend: str
    precision: Precision
    executed_precision: str
    device: str
    resolution: tuple[int, int]
    batch: int
    library_version: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rewrites: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, manifest: EngineManifest, *, device: str, library_version: str, options: Mapping[str, Any] | None = None
    ) -> EngineInfo:
        """What an engine's manifest says, on the device and with the library version that are here.

        ``options`` are told besides those in the manifest.
        """
        record = manifest.engine
        return cls(
            id=record.id,
            backend=record.backend,
            precision=record.precision,
            executed_precision=record.executed_precision,
            device=device,
            resolution=manifest.resolution,
            batch=manifest.batch,
            library_version=library_version,
            options={**record.options, **(options or {})},
            rewrites=dict(record.rewrites),
        )

    @property
    def main_precision(self) -> Precision | None:
        """The precision that most products compute in; ``None`` for one that mvde has no name for."""
        first = self.executed_precision.split("+")[0]
        return next((precision for precision in Precision if precision == first), None)


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

    def layers(self) -> str:
        """What the library says of the layers as it fused them, JSON; empty where it says nothing."""
        ...

    def close(self) -> None:
        """Free the library's memory. Safe to call twice; ``infer`` afterwards raises UsageError."""
        ...


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine on a device of its own (a GPU): it takes what is in the device's memory and leaves results there."""

    @property
    def device(self) -> CudaDevice:
        """The GPU that the engine is on."""
        ...

    def stream_of(self, caller: Any = None) -> Any:
        """The caller's stream as one of the device; the engine's own where there is none."""
        ...

    def enqueue(self, images: DeviceView, on: Any) -> tuple[DeviceArray, DeviceArray | None]:
        """Depth (B, H, W) and, where the engine has statistics, (B, N, S), in device memory of the caller's own.

        Both are complete on the stream ``on``, which :meth:`stream_of` gave; nothing is awaited. ``images`` are
        (B, H, W, 3), uint8, RGB, dense. Raises :class:`UsageError` for other images.
        """
        ...

    def device_times_ms(self, images: NDArray[np.uint8], count: int) -> list[float]:
        """Milliseconds of each of ``count`` runs on the device alone, in order, after the last one has finished.

        Each is the time between two CUDA events recorded on the engine's own stream, around the network and without the
        copies from and to the host; the stream is synchronised before the events are read.
        """
        ...

    def device_memory_bytes(self) -> int:
        """Bytes of device memory that the engine holds now: weights, activations and its own buffers."""
        ...


@runtime_checkable
class StatsEngine(Engine, Protocol):
    """An engine that can compute the patch statistics beside the depth, where the depth lies."""

    @property
    def has_stats(self) -> bool:
        """Whether it does so here; without, the two methods below must not be called."""
        ...

    def infer_with_stats(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Depth (B, H, W) and its statistics (B, N, S), both float32; images as in :meth:`Engine.infer`."""
        ...

    def patch_stats(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The statistics (B, N, S), float32, alone."""
        ...


@dataclass(frozen=True)
class Graph:
    """An ONNX file, the files of external data that it names, and what it promises, if its dtypes were lowered."""

    path: Path
    companions: tuple[Path, ...] = ()
    lowering: LoweringRecord | None = None


@dataclass(frozen=True)
class BuildOptions:
    """What a user may choose for an engine; ``None`` leaves the choice to the backend.

    ``rest`` is what the nodes that an int8 or fp8 engine does not quantise compute in (see :meth:`Backend.rests`), and
    ``settings`` are those of the backend alone, as ``--set NAME=VALUE`` gives them (see :meth:`Backend.settings`).
    ``tune_s`` is how many seconds to spend on measuring which of the library's settings are fastest here, and
    ``library`` are such settings in the library's own words. ``without_device`` builds for another machine's GPU and
    leaves the engine unproved; ``num_builds`` are built and must agree before one is kept; ``accept_known_bad`` builds
    where the list of known errors says not to.
    """

    num_threads: int | None = None
    rest: Precision | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    tune_s: float | None = None
    num_builds: int = 1
    without_device: bool = False
    accept_known_bad: bool = False
    on_progress: OnProgress | None = None
    library: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.without_device and self.num_builds > 1:
            raise UsageError("--verify-builds compares what engines compute, which needs the device; leave it out")


@dataclass(frozen=True)
class Compiled:
    """What a backend wrote: the file names (the engine itself first) and how it was made.

    ``rewrites`` and ``cuda`` go into the manifest as they are; ``uses_cpu`` says that the engine depends on this CPU's
    features.
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


class Backend(Protocol):
    """An inference library, as an object that builds engines and loads them.

    Where its library is not installed, methods that need it raise :class:`MissingDependencyError`.
    """

    @property
    def name(self) -> str:
        """The name in engine ids."""
        ...

    @property
    def preferred_precisions(self) -> tuple[Precision, ...]:
        """What to build where no engine is named, the first that works here; empty where that is another's to serve."""
        ...

    @property
    def lowered_precisions(self) -> tuple[Precision, ...]:
        """Precisions for which it takes the graph in that precision; it lowers the fp32 graph to others itself."""
        ...

    @property
    def proves_per_device(self) -> bool:
        """Whether a measured parity holds for one kind of device alone, so that the reference goes with the engine."""
        ...

    def library_version(self) -> str:
        """Version of the installed library."""
        ...

    def support(self, precision: Precision) -> Support:
        """Whether an engine in that precision would work on this machine."""
        ...

    def rests(self, precision: Precision) -> tuple[Precision, ...]:
        """What the nodes that an engine does not quantise may compute in, the default first; empty for floats."""
        ...

    def graph_rest(self, rest: Precision) -> Precision:
        """What of that rest has to be written into the graph; fp32 where the library lowers it itself."""
        ...

    def settings(self) -> tuple[Setting, ...]:
        """What ``--set`` takes; answered without the library and without NumPy."""
        ...

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        """Settings of the library that are worth measuring on this machine, each alone.

        Raises :class:`UsageError` where engines are not tuned by mvde.
        """
        ...

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        """Warnings about a build into ``folder`` that is about to start.

        Raises :class:`UsageError` for options that do not go with the backend, and whatever else is known to stop the
        build before minutes are spent.
        """
        ...

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        """A key of what decides the engine's content, so that several lie side by side; empty where one is enough."""
        ...

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        """What was written to ``folder``.

        Raises :class:`BackendError` where the library refuses the graph or would compute in another precision.
        """
        ...

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        """Options of a further build that shall show whether builds agree: the same, but without what one remembers."""
        ...

    def mismatch(self, record: EngineRecord) -> str | None:
        """Why an engine cannot run on this machine with the installed library, or ``None``."""
        ...

    def device_facts(self) -> DeviceRecord | None:
        """The device here that a measured parity holds for; ``None`` on a CPU, and where there is no device."""
        ...

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        """A call that computes ``count`` chained products of square matrices of ``size`` by constant weights.

        It says what this machine's CPU can compute at most. ``None`` where the backend does not run on it, or not in
        that precision.
        """
        ...

    def load(self, opened: OpenedEngine) -> Engine:
        """The engine over the bytes that were opened, and which the store has checked against this machine.

        Its file is not read again: it may have been replaced since.

        Raises :class:`IncompatibleEngineError` where the library cannot load it.
        """
        ...


def check_images(images: NDArray[np.uint8], info: EngineInfo) -> None:
    """Raise :class:`UsageError` with the two shapes unless ``images`` is what the engine takes."""
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


def one_line(error: BaseException) -> str:
    """What a library's error says, on one line of at most 500 characters."""
    return " ".join(str(error).split())[:500]
