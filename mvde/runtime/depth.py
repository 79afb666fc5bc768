"""DepthRuntime: camera images of any size → depth in the image's pixels and statistics per patch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.artifact import ENGINE_DIR
from mvde.engines.base import DeviceEngine, Engine, EngineInfo, StatsEngine
from mvde.engines.store import find, load_engine
from mvde.errors import ImageError, UsageError
from mvde.image import check_image
from mvde.manifest import EngineManifest
from mvde.runtime.device_fitter import DeviceFitter, DeviceResult, enqueue_frame
from mvde.runtime.fitter import Fitted, FrameFitter, check_array
from mvde.runtime.placement import Fit, check_fit, clear_bars, has_bars
from mvde.runtime.stream import pipeline
from mvde.stats import depth_to_patch_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one call: fitting the image in, the engine, and mapping back with the statistics."""

    pre_ms: float
    infer_ms: float
    post_ms: float

    @property
    def total_ms(self) -> float:
        """Sum of the three stages."""
        return self.pre_ms + self.infer_ms + self.post_ms


@dataclass(frozen=True)
class DepthResult:
    """Depth in metres (or the model's relative unit) and patch statistics.

    ``depth`` is (H, W), float32, at the input image's pixels; 0 marks pixels that the model did not see
    (``fit="crop"``). ``stats`` is (N, S), float32, on the model's patch grid, row-major: one column per name in
    ``stat_names``; patches that lie in the bars of ``fit="letterbox"`` are 0. ``grid`` is (rows, columns) with N their
    product. For a batch, ``depth`` is (B, H, W) and ``stats`` (B, N, S), and the timings are the whole batch's; in a
    stream over an engine with a batch every frame has its share of them.
    """

    depth: NDArray[np.float32]
    stats: NDArray[np.float32]
    grid: tuple[int, int]
    timings: Timings
    stat_names: tuple[str, ...]


@dataclass(frozen=True)
class _Prepared:
    """A batch on its way through: the engine's input (padded to its batch) and where each image went."""

    images: NDArray[np.uint8]
    fitted: list[Fitted]
    pre_ms: float


@dataclass(frozen=True)
class _Ran:
    """The batch behind the engine: depth (B, H, W), and its statistics where the engine computed them."""

    prepared: _Prepared
    depth: NDArray[np.float32]
    stats: NDArray[np.float32] | None
    infer_ms: float


class DepthRuntime:
    """An engine with everything around it.

    Safe to share between threads: :meth:`infer` keeps no state between calls, engines give every thread that is inside
    its own buffers, and results belong to the caller. :meth:`close` must wait until no thread is inside. A
    :meth:`stream` belongs to the thread that iterates it; several may run on one runtime.
    """

    def __init__(self, engine: Engine, manifest: EngineManifest) -> None:
        """A runtime over an engine that is already loaded; :meth:`load` is the usual way in."""
        self._engine = engine
        self._manifest = manifest
        self._fitter = FrameFitter(engine.info.resolution)
        self._device_fitter: DeviceFitter | None = None

    @classmethod
    def load(
        cls,
        source: Engine | str | Path | None = None,
        *,
        name: str | None = None,
        resolution: tuple[int, int] | None = None,
        batch: int | None = None,
        engine_dir: str | Path = ENGINE_DIR,
        manifest: EngineManifest | None = None,
    ) -> DepthRuntime:
        """Runtime over the engine at a path, of an id (``"fp16"``, ``"openvino:bf16"``), or over a loaded engine.

        An id is looked up in ``engine_dir``, with the model's ``name``, ``resolution`` (H, W) and ``batch`` where
        several match; ``None`` takes the only engine there is. A loaded engine needs its ``manifest``.

        Raises :class:`ArtifactError` when there is none, :class:`IncompatibleEngineError` when it was built for another
        machine or library version, :class:`HashMismatchError` when it is truncated or was replaced.
        """
        if source is None or isinstance(source, (str, Path)):
            found = find(source, name=name, resolution=resolution, batch=batch, root=Path(engine_dir))
            return cls(*load_engine(found))
        if manifest is None:
            raise UsageError("DepthRuntime.load got a loaded engine without a manifest; pass manifest= too, or a path")
        return cls(source, manifest)

    @property
    def info(self) -> EngineInfo:
        """What runs: backend, precision asked for and executed, device, resolution, batch."""
        return self._engine.info

    @property
    def engine(self) -> Engine:
        """The engine itself, for measuring it without what is around it; closing it is the runtime's."""
        return self._engine

    @property
    def manifest(self) -> EngineManifest:
        """What the engine was made from and how far it is from it."""
        return self._manifest

    def infer(self, image: NDArray[np.uint8], fit: Fit | str = Fit.STRETCH) -> DepthResult:
        """Depth and patch statistics of an RGB image (H, W, 3), uint8, of any size, or a batch (B, H, W, 3).

        ``fit`` says how an image of another shape goes into the model: ``"stretch"``, ``"letterbox"`` (bars) or
        ``"crop"`` (the middle; depth is 0 outside it). A batch of any length runs in chunks of the engine's batch.

        Raises :class:`ImageError` for an image that is not 8-bit RGB, :class:`UsageError` for an unknown ``fit``.
        """
        images, is_batch = _as_batch(image)
        results = []
        for start in range(0, len(images), self.info.batch):
            prepared = self._prepare(images[start : start + self.info.batch], fit)
            results += self._finish(self._run(prepared))
        return _stacked(results) if is_batch else results[0]

    def patch_stats(self, image: NDArray[np.uint8], fit: Fit | str = Fit.STRETCH) -> NDArray[np.float32]:
        """Patch statistics (N, S) of an image, or (B, N, S) of a batch, alone: what :meth:`infer` gives as ``stats``.

        On a GPU nothing but these floats is copied back, and depth is not mapped to the image's pixels.
        """
        images, is_batch = _as_batch(image)
        parts = []
        for start in range(0, len(images), self.info.batch):
            prepared = self._prepare(images[start : start + self.info.batch], fit)
            parts.append(self._stats_alone(prepared))
        stats = np.concatenate(parts)
        return stats if is_batch else stats[0]

    def infer_device(self, frame: Any, *, stream: Any = None, fit: Fit | str = Fit.STRETCH) -> DeviceResult:
        """Depth and statistics of a frame that is in device memory, left there; nothing is awaited.

        ``frame`` is RGB (H, W, 3), uint8, of any size (resized on the GPU), or a batch (B, H, W, 3) at the model's
        resolution; it has ``__dlpack__`` or ``__cuda_array_interface__`` (torch, CuPy, and others). The work goes to
        ``stream``: a handle, or an object with ``__cuda_stream__``; by default a stream of the engine's own.

        Raises :class:`UsageError` for an engine that is not on a GPU, :class:`ImageError` for another kind of frame.
        """
        engine = self._engine
        if not isinstance(engine, DeviceEngine):
            raise UsageError(f"infer_device needs an engine on a GPU, but this is {self.info.id}; use infer")
        self._device_fitter = self._device_fitter or DeviceFitter(engine.device, self.info.resolution)
        depth, stats = enqueue_frame(engine, self._device_fitter, frame, fit, engine.stream_of(stream))
        return DeviceResult(depth, stats, self._manifest.grid, self._manifest.stats)

    def stream(self, frames: Iterable[NDArray[np.uint8]], fit: Fit | str = Fit.STRETCH) -> Iterator[DepthResult]:
        """Results of single frames (H, W, 3), in order, one per frame, with resize, inference and post-processing of
        neighbouring frames overlapped in threads.

        At most a few frames are in flight, so a slow consumer slows the source. An error (of the source, or for a
        frame) is raised where its result would have come; closing the iterator early stops the threads. An engine
        with a batch takes that many frames at once.
        """
        return pipeline(
            _chunks(frames, self.info.batch),
            lambda chunk: self._prepare(chunk, fit, parallel=False),
            self._run,
            lambda ran: self._finish(ran, parallel=False),
        )

    def close(self) -> None:
        """Free the engine and what is around it."""
        if self._device_fitter is not None:
            self._device_fitter.close()
        self._engine.close()
        self._fitter.close()

    def __enter__(self) -> DepthRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, images: Sequence[NDArray[np.uint8]], fit: Fit | str, parallel: bool = True) -> _Prepared:
        started, fit = time.perf_counter(), check_fit(fit)
        height, width = self.info.resolution
        batch = np.empty((self.info.batch, height, width, 3), np.uint8)
        fitted = [self._fitter.fit(one, fit, batch[index], parallel=parallel) for index, one in enumerate(images)]
        batch[len(images) :] = batch[len(images) - 1]  # a short batch is filled up; the copies' results are dropped
        return _Prepared(batch, fitted, _ms_since(started))

    def _run(self, prepared: _Prepared) -> _Ran:
        started = time.perf_counter()
        count = len(prepared.fitted)
        if (engine := self._stats_engine(prepared)) is not None:
            depth, stats = engine.infer_with_stats(prepared.images)
            return _Ran(prepared, depth[:count], stats[:count], _ms_since(started))
        return _Ran(prepared, self._engine.infer(prepared.images)[:count], None, _ms_since(started))

    def _stats_engine(self, prepared: _Prepared) -> StatsEngine | None:
        """The engine, if its own statistics are right: where it has some, but for the bars of a letterbox."""
        engine = self._engine
        if not isinstance(engine, StatsEngine) or not engine.has_stats:
            return None
        return None if any(has_bars(one.placement) for one in prepared.fitted) else engine

    def _stats_alone(self, prepared: _Prepared) -> NDArray[np.float32]:
        count = len(prepared.fitted)
        if (engine := self._stats_engine(prepared)) is not None:
            return engine.patch_stats(prepared.images)[:count]
        return self._stats_of(prepared.fitted, self._engine.infer(prepared.images)[:count])

    def _stats_of(self, fitted: Sequence[Fitted], depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Statistics (B, N, S) on the CPU, with the bars of a letterbox left out."""
        if any(has_bars(one.placement) for one in fitted):
            depth = np.stack([clear_bars(one, where.placement) for one, where in zip(depth, fitted, strict=True)])
        return depth_to_patch_stats(depth, self._manifest.stats_patch, self._manifest.stats)

    def _finish(self, ran: _Ran, parallel: bool = True) -> list[DepthResult]:
        """One result per image; each has its share of the batch's times."""
        started = time.perf_counter()
        prepared, depth = ran.prepared, ran.depth
        manifest, fitted = self._manifest, prepared.fitted
        stats = ran.stats if ran.stats is not None else self._stats_of(fitted, depth)
        both = zip(depth, fitted, strict=True)
        mapped = [self._fitter.depth_to_source(one, where, parallel=parallel) for one, where in both]
        count = len(fitted)
        timings = Timings(prepared.pre_ms / count, ran.infer_ms / count, _ms_since(started) / count)
        return [
            DepthResult(one, one_stats, manifest.grid, timings, manifest.stats)
            for one, one_stats in zip(mapped, stats, strict=True)
        ]


def _as_batch(image: Any) -> tuple[Sequence[NDArray[np.uint8]], bool]:
    """Images to run one by one, and whether the caller gave a batch."""
    check_array(image)
    if getattr(image, "ndim", None) != 4:
        check_image(image)
        return [image], False
    if len(image) == 0:
        raise ImageError(f"the batch is empty (shape {image.shape}); expected at least one image")
    return image, True


def _stacked(results: list[DepthResult]) -> DepthResult:
    """One result with a leading batch axis; the times are sums."""
    times = [result.timings for result in results]
    timings = Timings(
        sum(one.pre_ms for one in times), sum(one.infer_ms for one in times), sum(one.post_ms for one in times)
    )
    depth, stats = np.stack([result.depth for result in results]), np.stack([result.stats for result in results])
    return DepthResult(depth, stats, results[0].grid, timings, results[0].stat_names)


def _chunks(frames: Iterable[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    chunk: list[NDArray[np.uint8]] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
