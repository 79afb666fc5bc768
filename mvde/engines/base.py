"""Engine and backend protocols, engine information, and the engine-id grammar ``[backend:]precision``.

A backend is one object that implements every method of :class:`Backend`, returning an empty value where it does not
apply. The runtime checks for :class:`DeviceEngine` or :class:`StatsEngine`, never for a backend's own class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mvde.engines.backends import backend_names
from mvde.errors import EngineIdError, IncompatibleEngineError, UsageError
from mvde.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mvde.contract import OutputRole
    from mvde.cuda.array import DeviceArray, DeviceView
    from mvde.cuda.memory import CudaDevice
    from mvde.engines.opened import OpenedEngine
    from mvde.engines.settings import Setting
    from mvde.manifest import EngineManifest, Manifest
    from mvde.records import CudaRecord, DeviceRecord, EngineRecord, LoweringRecord

    Maps = dict[OutputRole, NDArray[np.float32]]
    """A network's outputs by role, depth first; each (B, H, W), float32."""

OnProgress = Callable[[str, int, int], None]
"""Build progress callback: (phase name, steps done, total steps)."""


@dataclass(frozen=True)
class EngineId:
    """A backend (``None``: the best on this machine) and the precision of the graph it executes."""

    backend: str | None
    precision: Precision

    @classmethod
    def parse(cls, text: str) -> EngineId:
        """Parse ``"fp16"`` or ``"openvino:bf16"``. Raises :class:`EngineIdError` stating the grammar."""
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
        """Whether ``text`` is an engine id (rather than, say, a path)."""
        try:
            cls.parse(text)
        except EngineIdError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}" if self.backend else str(self.precision)


@dataclass(frozen=True)
class EngineInfo:
    """Description of a loaded engine.

    ``precision`` is the graph's, ``executed_precision`` the one the backend reports computing in. ``resolution`` is
    (height, width) in pixels, ``batch`` the number of images per call, ``device`` the hardware. ``rewrites`` lists the
    library's operators that mvde replaced (``"attention"``, ``"linear_layers"``).
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
        """Build from an engine's manifest, for this device and the installed library version.

        ``options`` are added to those in the manifest.
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
        """Precision of most matrix products; ``None`` if mvde has no name for it."""
        first = self.executed_precision.split("+")[0]
        return next((precision for precision in Precision if precision == first), None)


class Engine(Protocol):
    """A compiled model. ``infer`` is thread-safe; call ``close`` only when no call is in progress."""

    @property
    def info(self) -> EngineInfo:
        """Backend, precision, device and shape of the engine."""
        ...

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Infer depth (B, H, W), float32 (metres for a metric model), from RGB images (B, H, W, 3), uint8, 0 to 255.

        B, H and W are those of :attr:`info`. The caller owns the result. Raises :class:`UsageError` for another shape
        or dtype, :class:`BackendError` if the library fails.
        """
        ...

    def infer_maps(self, images: NDArray[np.uint8]) -> Maps:
        """Infer all outputs of the manifest in one run: depth as in :meth:`infer`, and sky, mask or confidence."""
        ...

    def layers(self) -> str:
        """The library's report on the fused layers, as JSON; empty if it has none."""
        ...

    def close(self) -> None:
        """Free the engine's memory. Idempotent; ``infer`` afterwards raises UsageError."""
        ...


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine on a GPU that reads inputs from and leaves results in device memory."""

    @property
    def device(self) -> CudaDevice:
        """The GPU that the engine runs on."""
        ...

    def stream_of(self, caller: Any = None) -> Any:
        """Wrap the caller's stream; defaults to the engine's own stream."""
        ...

    def enqueue(self, images: DeviceView, on: Any) -> tuple[DeviceArray, DeviceArray | None]:
        """Enqueue inference; return depth (B, H, W) and, if available, statistics (B, N, S) in device memory.

        Asynchronous: results are complete in the order of the stream ``on``, from :meth:`stream_of`. The caller owns
        them. ``images`` are (B, H, W, 3), uint8, RGB, dense. Raises :class:`UsageError` for other images.
        """
        ...

    def device_times_ms(self, images: NDArray[np.uint8], count: int) -> list[float]:
        """Device time in milliseconds of each of ``count`` runs, in order.

        Measured between CUDA events on the engine's own stream, around the network and without host copies; the stream
        is synchronised before the events are read.
        """
        ...

    def device_memory_bytes(self) -> int:
        """Device memory held by the engine in bytes: weights, activations and buffers."""
        ...


@runtime_checkable
class StatsEngine(Engine, Protocol):
    """An engine that can compute patch statistics on the device together with the depth."""

    @property
    def has_stats(self) -> bool:
        """Whether statistics are available here; otherwise the two methods below must not be called."""
        ...

    @property
    def stat_names(self) -> tuple[str, ...]:
        """Columns of the statistics."""
        ...

    def infer_with_stats(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Infer depth (B, H, W) and statistics (B, N, S), both float32; images as in :meth:`Engine.infer`."""
        ...

    def patch_stats(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Infer the statistics (B, N, S), float32, only."""
        ...


@dataclass(frozen=True)
class Graph:
    """An ONNX file, its external data files, and its lowering record if its dtypes were lowered."""

    path: Path
    companions: tuple[Path, ...] = ()
    lowering: LoweringRecord | None = None


@dataclass(frozen=True)
class BuildOptions:
    """User options of an engine build; ``None`` leaves the choice to the backend.

    ``rest`` is the precision of nodes that an int8 or fp8 engine does not quantise (see :meth:`Backend.rests`);
    ``settings`` are backend-specific, from ``--set NAME=VALUE`` (see :meth:`Backend.settings`). ``tune_s`` is the time
    budget in seconds for tuning the library's settings, and ``library`` are such settings under the library's names.
    ``without_device`` builds for another machine's GPU and leaves the engine unproved; ``num_builds`` engines are built
    and must agree before one is kept; ``accept_known_bad`` overrides the list of known errors.
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
    """Result of a compilation: the file names (engine first) and how it was made.

    ``rewrites`` and ``cuda`` are copied into the manifest; ``uses_cpu`` means that the engine depends on this CPU's
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
    """Whether an engine id works on this machine; ``note`` says what it computes in, or why it does not work."""

    works: bool
    note: str


class Backend(Protocol):
    """An inference library that builds and loads engines.

    Methods that need the library raise :class:`MissingDependencyError` if it is not installed.
    """

    @property
    def name(self) -> str:
        """Name used in engine ids."""
        ...

    @property
    def preferred_precisions(self) -> tuple[Precision, ...]:
        """Precisions to try, in order, if the user names no engine; may be empty."""
        ...

    @property
    def lowered_precisions(self) -> tuple[Precision, ...]:
        """Precisions that need an already lowered graph; for others the library lowers the fp32 graph."""
        ...

    @property
    def proves_per_device(self) -> bool:
        """Whether parity is valid for one device model only, so that the reference is stored with the engine."""
        ...

    def library_version(self) -> str:
        """Version of the installed library."""
        ...

    def support(self, precision: Precision) -> Support:
        """Whether an engine in ``precision`` works on this machine."""
        ...

    def rests(self, precision: Precision) -> tuple[Precision, ...]:
        """Precisions for the nodes that are not quantised, default first; empty for float engines."""
        ...

    def graph_rest(self, rest: Precision) -> Precision:
        """Precision to write into the graph for ``rest``; fp32 if the library lowers it itself."""
        ...

    def cpu_features(self) -> tuple[str, ...]:
        """Features of this CPU that the library uses: below a cap, where it has one."""
        ...

    def weight_bits(self) -> int:
        """Bits of an int8 graph's weights that the library multiplies without saturation here: 8, or 7."""
        ...

    def settings(self) -> tuple[Setting, ...]:
        """Settings accepted by ``--set``; must not import the library or NumPy."""
        ...

    def tuning_settings(self, precision: Precision, options: BuildOptions) -> list[dict[str, Any]]:
        """Library settings to measure here, one at a time. Raises :class:`UsageError` if mvde does not tune it."""
        ...

    def thread_options(self, num_threads: int) -> Mapping[str, str]:
        """Stored options that have a built engine run with ``num_threads``; empty where it has no threads."""
        ...

    def check_source(self, manifest: Manifest, precision: Precision, options: BuildOptions, folder: Path) -> list[str]:
        """Check a build into ``folder`` before it starts; return warnings.

        Raises :class:`UsageError` for unsupported options, and any error that would make the build fail minutes later.
        """
        ...

    def content_key(self, manifest: Manifest, precision: Precision, options: BuildOptions) -> str:
        """Key of the engine's content, so that several variants can coexist; empty if there is only one."""
        ...

    def compile(self, graph: Graph, folder: Path, precision: Precision, options: BuildOptions) -> Compiled:
        """Compile ``graph`` into ``folder``.

        Raises :class:`BackendError` if the library rejects the graph or would compute in another precision.
        """
        ...

    def rebuild_options(self, options: BuildOptions) -> BuildOptions:
        """Options of a verification rebuild: the same, but without state kept between builds."""
        ...

    def mismatch(self, record: EngineRecord) -> str | None:
        """Why an engine cannot run on this machine with the installed library, or ``None``."""
        ...

    def device_facts(self) -> DeviceRecord | None:
        """The local device that measured parity is valid for; ``None`` on a CPU or without a device."""
        ...

    def products(self, precision: Precision, size: int, count: int) -> Callable[[], object] | None:
        """A run of ``count`` products of (``size``, ``size``) by constant weights, for the CPU's peak; None without."""
        ...

    def load(self, opened: OpenedEngine) -> Engine:
        """Load the engine from the opened bytes, which the store has checked against this machine.

        The file is not read again: it may have been replaced since. Raises :class:`IncompatibleEngineError` if the
        library cannot load it.
        """
        ...


def check_images(images: NDArray[np.uint8], info: EngineInfo) -> None:
    """Raise :class:`UsageError` with both shapes unless ``images`` has the engine's shape and dtype."""
    expected = (info.batch, *info.resolution, 3)
    shape, dtype = getattr(images, "shape", None), str(getattr(images, "dtype", type(images).__name__))
    if shape != expected or dtype != "uint8":
        raise UsageError(
            f"engine {info.id} takes RGB images of shape {expected} and dtype uint8, but got shape {shape} and dtype "
            f"{dtype}; DepthRuntime resizes and batches images of any size"
        )


def check_output_names(names: Sequence[str], manifest: EngineManifest, path: Path) -> None:
    """Raise :class:`IncompatibleEngineError` unless the engine at ``path`` has the outputs that its manifest states."""
    stated = [output.name for output in manifest.outputs]
    if list(names) != stated:
        raise IncompatibleEngineError(
            f"{path} has the outputs {list(names)}, but its manifest states {stated}; build it again: "
            f"mvde build --engine {manifest.engine.id}"
        )


def closed_error(info: EngineInfo) -> UsageError:
    """Error for using an engine after ``close``."""
    return UsageError(f"engine {info.id} is closed; load it again with DepthRuntime.load")


def one_line(error: BaseException) -> str:
    """Message of a library's error, on one line of at most 500 characters."""
    return " ".join(str(error).split())[:500]
