"""Build a plan from a network, with progress, Ctrl-C and a timing cache."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.cache import tensorrt_cache_dir
from mvde.errors import BackendError, OutputError
from mvde.files import atomic_write

if TYPE_CHECKING:
    from mvde.cuda.gpu import Gpu
    from mvde.engines.base import OnProgress
    from mvde.engines.tensorrt.api import Api
    from mvde.engines.tensorrt.choices import TensorRtOptions

_HARDWARE = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
_INTEGRATED_WORKSPACE_SHARE = 0.25
"""Fraction of a Jetson's memory, which is shared with cameras and other processes."""


def build_plan(
    api: Api,
    builder: Any,
    network: Any,
    options: TensorRtOptions,
    gpu: Gpu | None,
    capabilities: tuple[str, ...],
    on_progress: OnProgress | None = None,
) -> bytes:
    """Build and serialise the plan.

    ``capabilities`` are TensorRT-RTX's targets. Raises :class:`KeyboardInterrupt` soon after Ctrl-C,
    :class:`BackendError` with the library's reason on failure.
    """
    config = builder.create_builder_config()
    _set_flags(api, config, options)
    _set_limits(api, config, options, gpu)
    if api.is_rtx:
        _set_capabilities(api, config, capabilities)
    cache = _attach_timing_cache(api, config, gpu) if options.timing_cache and gpu is not None else None
    with _interruptible(api, on_progress) as monitor:
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    monitor.raise_what_stopped_it()
    if plan is None:
        raise BackendError(f"{api.library.title} {api.version} could not build the engine: {api.complaint()}")
    if cache is not None:
        _save_timing_cache(config, cache)
    return bytes(memoryview(plan))


def timing_cache_path(api: Api, gpu: Gpu) -> Path:
    """Timing cache file of this GPU, driver and version, in the user's cache folder.

    Timings of another GPU or version are rejected or give slow engines, so each combination has its own file.
    """
    key = f"{api.library.backend} {api.version} {gpu.name} {gpu.compute_capability} {gpu.driver_cuda}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    name = f"{api.library.backend}-{api.version}-sm{gpu.compute_capability}-{digest}.cache"
    return tensorrt_cache_dir() / "timing" / name


def chosen_flags(options: TensorRtOptions, gpu: Gpu | None) -> dict[str, Any]:
    """Effective build options for the manifest: the user's, or else mvde's defaults."""
    return {
        "tf32": False,
        "optimization_level": options.optimization_level if options.optimization_level is not None else "default",
        "workspace_mib": _workspace_mib(options, gpu) or "default",
        "num_aux_streams": _num_aux_streams(options, gpu) if _num_aux_streams(options, gpu) is not None else "default",
        "version_compatible": options.version_compatible,
        "hardware": options.hardware,
    }


def _set_flags(api: Api, config: Any, options: TensorRtOptions) -> None:
    flags = api.module.BuilderFlag
    config.clear_flag(flags.TF32)  # on by default: an fp32 engine would compute with 10 bits of significand
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if api.is_rtx:
        config.set_flag(flags.REQUIRE_USER_ALLOCATION)  # required for capture into a CUDA graph
    elif not options.timing_cache:
        config.set_flag(flags.DISABLE_TIMING_CACHE)
    config.profiling_verbosity = api.module.ProfilingVerbosity.DETAILED  # for the inspector; no run-time cost
    if options.hardware != "none":
        level = getattr(api.module.HardwareCompatibilityLevel, _HARDWARE[options.hardware], None)
        if level is None or api.is_rtx:
            raise BackendError(
                f"{api.library.title} {api.version} has no hardware compatibility {options.hardware!r}"
                + ("; name --set compute_capability=CC[,CC] for each GPU instead" if api.is_rtx else "")
            )
        config.hardware_compatibility_level = level


def _set_limits(api: Api, config: Any, options: TensorRtOptions, gpu: Gpu | None) -> None:
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    workspace_mib = _workspace_mib(options, gpu)
    if workspace_mib is not None:
        config.set_memory_pool_limit(api.module.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    num_aux_streams = _num_aux_streams(options, gpu)
    if num_aux_streams is not None:
        config.max_aux_streams = num_aux_streams


def _workspace_mib(options: TensorRtOptions, gpu: Gpu | None) -> int | None:
    if options.workspace_mib is None and gpu is not None and gpu.is_integrated:
        return int(gpu.memory_bytes * _INTEGRATED_WORKSPACE_SHARE) >> 20
    return options.workspace_mib


def _num_aux_streams(options: TensorRtOptions, gpu: Gpu | None) -> int | None:
    """0 on integrated GPUs: one image's layers fill them, and each stream needs its own activation memory."""
    if options.num_aux_streams is None and gpu is not None and gpu.is_integrated:
        return 0
    return options.num_aux_streams


def _set_capabilities(api: Api, config: Any, capabilities: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(capabilities)
    for index, text in enumerate(capabilities):
        if not config.set_compute_capability(api.capability_value(text), index):
            raise BackendError(f"{api.library.title} refuses compute capability {text}: {api.complaint()}")


def _attach_timing_cache(api: Api, config: Any, gpu: Gpu) -> Path | None:
    """Attach a timing cache and return its path; unreadable or foreign ones count as empty. None for TensorRT-RTX."""
    if api.is_rtx:  # compiles on the target; no timing at build
        return None
    path = timing_cache_path(api, gpu)
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    cache = config.create_timing_cache(content) or config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return path


def _save_timing_cache(config: Any, path: Path) -> None:
    """Write the cache. A failure is ignored; it only slows the next build."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    with contextlib.suppress(OutputError, OSError), atomic_write(path) as temporary:
        temporary.write_bytes(bytes(memoryview(cache.serialize())))


class _Stop:
    """Reason for stopping a build: Ctrl-C, or an exception from the progress callback."""

    def __init__(self) -> None:
        self.interrupted = False
        self.error: BaseException | None = None

    def raise_what_stopped_it(self) -> None:
        if self.error is not None:
            raise self.error
        if self.interrupted:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interruptible(api: Api, on_progress: OnProgress | None) -> Iterator[Any]:
    """Progress monitor that turns Ctrl-C into a stop request, instead of raising inside C++."""
    monitor = _monitor(api, _Stop(), on_progress)
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield monitor
        return

    def stop(number: int, frame: Any) -> None:
        monitor.stop.interrupted = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield monitor
    finally:
        signal.signal(signal.SIGINT, before)


def _monitor(api: Api, stop: _Stop, on_progress: OnProgress | None) -> Any:
    base = api.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        """Forward progress; exceptions must not cross the library, so they are stored and raised afterwards."""

        def __init__(self) -> None:
            base.__init__(self)
            self.stop = stop
            self._num_steps: dict[str, int] = {}

        def raise_what_stopped_it(self) -> None:
            self.stop.raise_what_stopped_it()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._num_steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not self.stop.interrupted and self.stop.error is None

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._num_steps.get(phase_name, 0))

        def _tell(self, phase_name: str, num_done: int) -> None:
            if on_progress is None or self.stop.error is not None:
                return
            try:
                on_progress(phase_name, num_done, self._num_steps.get(phase_name, num_done))
            except BaseException as error:  # noqa: BLE001 - re-raised after the build
                self.stop.error = error

    return Monitor()
