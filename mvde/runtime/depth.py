"""DepthRuntime: camera images of any size to depth at the image's resolution and per-patch statistics."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.artifact import ENGINE_DIR
from mvde.calibration.interval_columns import IntervalColumns, base_columns
from mvde.calibration.record import Calibration, Calibrations, calibration_for
from mvde.camera import Camera
from mvde.contract import OutputRole
from mvde.cuda.array import view_of
from mvde.engines.base import DeviceEngine, Engine, EngineInfo, StatsEngine
from mvde.engines.store import find, load_engine
from mvde.errors import UsageError
from mvde.manifest import EngineManifest
from mvde.resampling import Resampling
from mvde.runtime.batches import Prepared, Ran, Taken
from mvde.runtime.device_fitter import DeviceFitter, DeviceResult, device_placement, enqueue_frame
from mvde.runtime.finisher import Finisher
from mvde.runtime.fitter import FrameFitter, as_batch
from mvde.runtime.frame_camera import CameraOf, camera_of
from mvde.runtime.frame_floor import FrameFloor
from mvde.runtime.frame_scanner import FrameScanner
from mvde.runtime.lanes import Lanes, SecondEngine
from mvde.runtime.masks import needs_maps, value_of_invalid
from mvde.runtime.mounting import Mounting
from mvde.runtime.placement import Fit, Placement, check_fit, has_bars, place
from mvde.runtime.result import DepthResult, stacked
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.steady_stream import SteadyMaps, images_of, taken_of, timed
from mvde.runtime.stream import chunks, pipeline
from mvde.runtime.view import Anchor, View, calibrated, check_anchors, frame_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.base import Maps
    from mvde.runtime.stabilize import Stabilization


class DepthRuntime:
    """An engine with pre- and postprocessing.

    Thread-safe: :meth:`infer` keeps no state between calls, concurrent calls have separate buffers, and the caller owns
    the results. Call :meth:`close` only when no call is in progress. A :meth:`stream` belongs to the thread that
    iterates it; several may run on one runtime.
    """

    def __init__(
        self,
        engine: Engine,
        manifest: EngineManifest,
        camera: Camera | CameraOf | None = None,
        stats: Sequence[str] | None = None,
        invalid: str = "nan",
        calibration: Calibrations | None = None,
        scan: ScanSettings | str | Path | None = None,
        floor: Mounting | str | Path | None = None,
    ) -> None:
        """Wrap an already loaded engine; usually called through :meth:`load`."""
        self._engine, self._second = engine, SecondEngine(engine)
        self._camera = camera
        self._calibration = None if calibration is None else calibration_for(manifest, calibration)
        self._columns = IntervalColumns(manifest, stats, self._calibration)
        self._stat_names = self._columns.base
        self._needs_maps = needs_maps(manifest, self._stat_names)
        self._manifest, self._mounting = manifest, Mounting.of(floor)
        self._resampling = Resampling.of(manifest.preprocess)
        self._fitter = FrameFitter(engine.info.resolution, self._resampling)
        self._finisher = Finisher(
            manifest, self._columns, self._fitter, FrameScanner.of(scan), value_of_invalid(invalid)
        )
        self._device_fitter: DeviceFitter | None = None

    @classmethod
    def load(
        cls,
        source: Engine | str | Path | Sequence[str | Path] | None = None,
        *,
        deadline_ms: float | None = None,
        grid: tuple[int, int] | None = None,
        name: str | None = None,
        resolution: tuple[int, int] | None = None,
        batch: int | None = None,
        engine_dir: str | Path = ENGINE_DIR,
        manifest: EngineManifest | None = None,
        camera: Camera | CameraOf | None = None,
        stats: Sequence[str] | None = None,
        invalid: str = "nan",
        calibration: Calibrations | None = None,
        threads: int | None = None,
        scan: ScanSettings | str | Path | None = None,
        floor: Mounting | str | Path | None = None,
    ) -> DepthRuntime:
        """Load an engine by path or id (``"fp16"``, ``"openvino:bf16"``), or wrap a loaded one.

        An id is looked up in ``engine_dir``; ``name``, ``resolution`` (H, W) and ``batch`` disambiguate. ``None`` loads
        the only engine. A loaded engine needs its ``manifest``. ``camera`` is that of the frames, or a function from
        their size (H, W) to it; it matters to kinds with a canonical camera. ``stats`` are the columns of the
        statistics, some of :data:`mvde.stats.STATS`, and with a calibration that has intervals of
        :data:`mvde.stats.INTERVALS`; default: those of the manifest. ``invalid`` is what depth holds
        where the network saw nothing: ``"nan"`` or ``"zero"``. ``calibration`` is a file of ``mvde calibrate``: depth
        is metric then, for frames of its size, fit and camera, which is also the default of ``camera``. ``threads`` is
        the number of threads of an engine on the CPU, for a process per core; default: as it was built. ``floor`` is
        how the camera is mounted, or a file of it: the floor that a frame shows gives its metres their scale then.

        A list of engines of one model at several resolutions, with a ``deadline_ms`` in milliseconds, is one runtime
        (:class:`mvde.runtime.on_time.OnTimeRuntime`): each frame has the largest resolution that is in time. ``grid``
        is that of its statistics, (rows, columns), which divides all of them into square patches; default: near the
        smallest engine's. ``calibration`` is a list then, of one for each engine, or the folder that holds them.

        Raises :class:`ArtifactError` if there is no such engine, :class:`IncompatibleEngineError` if it was built for
        another machine or library version, :class:`HashMismatchError` if it is truncated or was replaced,
        :class:`UsageError` for an unknown statistic, ``invalid`` or settings of a scan, or engines that do not belong
        together, :class:`CalibrationError` for a malformed calibration or one of another graph.
        """
        if deadline_ms is not None or (isinstance(source, Sequence) and not isinstance(source, str)):
            from mvde.runtime.on_time import load_on_time

            return load_on_time(
                source, deadline_ms, grid=grid, name=name, resolution=resolution, batch=batch, engine_dir=engine_dir,
                camera=camera, stats=stats, invalid=invalid, calibration=calibration, threads=threads, scan=scan,
                floor=floor,
            )  # fmt: skip
        if source is None or isinstance(source, (str, Path)):
            found = find(source, name=name, resolution=resolution, batch=batch, root=Path(engine_dir))
            return cls(
                *load_engine(found, base_columns(stats), threads), camera, stats, invalid, calibration, scan, floor
            )
        elif manifest is None:
            raise UsageError("DepthRuntime.load got a loaded engine without a manifest; pass manifest= too, or a path")
        return cls(source, manifest, camera, stats, invalid, calibration, scan, floor)

    @property
    def info(self) -> EngineInfo:
        """Backend, requested and executed precision, device, resolution and batch."""
        return self._engine.info

    @property
    def engine(self) -> Engine:
        """The bare engine, for benchmarks; owned and closed by the runtime."""
        return self._engine

    @property
    def manifest(self) -> EngineManifest:
        """The engine's manifest: its origin and measured parity."""
        return self._manifest

    @property
    def calibration(self) -> Calibration | None:
        """The calibration it was loaded with."""
        return self._calibration

    def infer(
        self,
        image: NDArray[np.uint8],
        fit: Fit | str | None = None,
        *,
        camera: Camera | CameraOf | None = None,
        anchors: Sequence[Anchor] | None = None,
        mounting: Mounting | None = None,
    ) -> DepthResult:
        """Infer depth and patch statistics of an RGB image (H, W, 3), uint8, of any size, or a batch (B, H, W, 3).

        ``fit`` selects how an image of another aspect ratio is resized: ``"stretch"``, ``"letterbox"`` (bars) or
        ``"crop"`` (centre; depth is NaN outside it); default: as the manifest says. ``camera`` is the image's; default:
        the runtime's. ``anchors`` are known depths (x, y, metres along the optical axis) in pixels of a single image,
        which give it metres in place of a calibration: one or more, for ``inverse_relative`` two or more at distances
        that differ. ``mounting`` is the camera's over the floor at this moment; default: the runtime's ``floor``. A
        batch of any length runs in chunks of the engine's batch.

        Raises :class:`ImageError` for an image that is not 8-bit RGB, :class:`UsageError` for an unknown ``fit``, a
        camera of frames of another size or an anchor outside the image, :class:`CalibrationError` for anchors that do
        not determine the scale, or a frame that the calibration is not of.
        """
        images, is_batch = as_batch(image)
        if anchors is not None:
            if is_batch:
                raise UsageError("anchors are those of one image; give images of a batch one by one")
            check_anchors(anchors, images[0].shape[:2])
        results, floor = [], FrameFloor(self._manifest, self._columns, mounting or self._mounting)
        for start in range(0, len(images), self.info.batch):
            prepared = self._prepare(images[start : start + self.info.batch], fit, camera, anchors=anchors)
            results += self._finish(floor.scaled(self._run(floor.mounted(prepared))))
        return stacked(results) if is_batch else results[0]

    def patch_stats(
        self, image: NDArray[np.uint8], fit: Fit | str | None = None, *, camera: Camera | CameraOf | None = None
    ) -> NDArray[np.float32]:
        """Infer only the patch statistics (N, S) of an image, or (B, N, S) of a batch, as in :meth:`infer`.

        On a GPU only these floats are copied to the host, and depth is not resized to the image.
        """
        if self._mounting is not None:
            return self.infer(image, fit, camera=camera).stats  # the floor is measured in the map
        images, is_batch = as_batch(image)
        parts = []
        for start in range(0, len(images), self.info.batch):
            prepared = self._prepare(images[start : start + self.info.batch], fit, camera)
            parts.append(self._stats_alone(prepared))
        return np.concatenate(parts) if is_batch else parts[0][0]

    def infer_device(
        self, frame: Any, *, stream: Any = None, fit: Fit | str | None = None, camera: Camera | CameraOf | None = None
    ) -> DeviceResult:
        """Enqueue inference on a frame in device memory; the results stay there. Asynchronous.

        ``frame`` is RGB (H, W, 3), uint8, of any size (resized on the GPU), or a batch (B, H, W, 3) at the model's
        resolution, with ``__dlpack__`` or ``__cuda_array_interface__`` (torch, CuPy and others). ``stream`` is a handle
        or an object with ``__cuda_stream__``; default: the engine's own stream. ``fit`` and ``camera`` are as in
        :meth:`infer`.

        Raises :class:`UsageError` if the engine is not on a GPU or the camera is of frames of another size,
        :class:`ImageError` for another kind of frame.
        """
        engine = self._engine
        if not isinstance(engine, DeviceEngine):
            raise UsageError(f"infer_device needs an engine on a GPU, but this is {self.info.id}; use infer")
        if self._mounting is not None:
            raise UsageError("infer_device leaves the map on the GPU, but the floor is measured on the host; use infer")
        if self._needs_maps:
            others, name = ", ".join(list(self._manifest.output_names)[1:]), self._manifest.name
            raise UsageError(f"infer_device reads depth alone, but {name} also has {others}; use infer")
        fitter = self._device_fitter = self._device_fitter or DeviceFitter(
            engine.device, self.info.resolution, resampling=self._resampling
        )
        self._columns.check_device()
        stream, fit, manifest = engine.stream_of(stream), self._fit(fit), self._manifest
        image = view_of(frame, int(stream.handle))
        placement = device_placement(image, self.info, fit, self._resampling)
        view = self._view(placement, fit, camera)
        if not view.is_scaling:
            raise UsageError(
                f"infer_device scales maps, but this calibration of {manifest.depth_kind} does more: use infer"
            )
        depth, stats = enqueue_frame(engine, fitter, image, fit, stream)
        names = engine.stat_names if isinstance(engine, StatsEngine) else self._stat_names
        if view.scale != 1:
            depth, stats = fitter.scale(depth, stats, view, manifest.stats_patch, names, stream)
        return DeviceResult(depth, stats, manifest.grid, names, *view.meaning(placement))

    def stream(
        self,
        frames: Iterable[NDArray[np.uint8]],
        fit: Fit | str | None = None,
        *,
        camera: Camera | CameraOf | None = None,
        stabilize: Stabilization | None = None,
        times_s: Iterable[float] | None = None,
        sources: Iterable[Hashable] | None = None,
        mountings: Iterable[Mounting | None] | None = None,
    ) -> Iterator[DepthResult]:
        """Yield one result per frame (H, W, 3), in order, overlapping the stages of neighbouring frames in threads.

        At most ten batches are in flight, so a slow consumer throttles the source. An error of the source or a frame
        is raised in place of its result; closing the iterator early stops the threads. Frames are grouped into the
        engine's batch. While frames wait for a small engine of OpenVINO for a second, it is loaded again to run two at
        a time on half of the CPU each (:mod:`mvde.runtime.lanes`). ``fit`` and ``camera`` are as in :meth:`infer`.

        ``stabilize`` makes depth and statistics steady over time
        (:class:`mvde.runtime.stabilize.Stabilization`). It begins anew after a cut, where the frames' size or camera
        changes, and after a long gap in ``times_s``: when the frames were taken, in seconds, which must increase.
        ``sources`` says of each frame which camera took it, where there are several: each is steady in itself.

        ``mountings`` are the camera's over the floor at each frame, ``None`` where it is not known; default: the
        runtime's ``floor``. With ``stabilize`` the floor's scale is steady too, and held where no floor is seen.
        """
        floor = FrameFloor(self._manifest, self._columns, self._mounting, mountings)
        steady = None if stabilize is None else SteadyMaps(self._manifest.depth_kind, stabilize)
        lanes = Lanes(self._engine, self._second)
        return pipeline(
            map(lanes.announced, chunks(timed(frames, times_s, sources), self.info.batch)),
            lambda chunk: floor.mounted(self._prepare(images_of(chunk), fit, camera, False, None, taken_of(chunk))),
            lambda prepared: lanes.run(prepared, self._run),
            lambda ran: self._finish(floor.scaled(ran if steady is None else steady.steadied(ran)), parallel=False),
            self._second.num_lanes,
        )

    def infer_next(
        self,
        image: NDArray[np.uint8],
        steady: SteadyMaps,
        fit: Fit | str | None = None,
        time_s: float | None = None,
    ) -> DepthResult:
        """Infer the next frame (H, W, 3) of a live source, without the delay of :meth:`stream`, steady as there."""
        floor = FrameFloor(self._manifest, self._columns, self._mounting, scales=steady.scales)
        prepared = floor.mounted(self._prepare([image], fit, None, taken=[Taken(time_s)]))
        return self._finish(floor.scaled(steady.steadied(self._run(prepared))))[0]

    def placement(self, size: tuple[int, int], fit: Fit | str | None = None) -> Placement:
        """Compute how a frame of ``size`` (H, W) enters the model's input; ``fit`` as in :meth:`infer`."""
        return place(size, self.info.resolution, self._fit(fit), self._resampling)

    def close(self) -> None:
        """Free the engine and all buffers."""
        if self._device_fitter is not None:
            self._device_fitter.close()
        self._second.close()
        self._engine.close()
        self._fitter.close()

    def __enter__(self) -> DepthRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(
        self,
        images: Sequence[NDArray[np.uint8]],
        fit: Fit | str | None,
        camera: Camera | CameraOf | None,
        parallel: bool = True,
        anchors: Sequence[Anchor] | None = None,
        taken: Sequence[Taken] = (),
    ) -> Prepared:
        started, fit = time.perf_counter(), self._fit(fit)
        height, width = self.info.resolution
        batch = np.empty((self.info.batch, height, width, 3), np.uint8)
        fitted = [self._fitter.fit(one, fit, batch[index], parallel=parallel) for index, one in enumerate(images)]
        batch[len(images) :] = batch[len(images) - 1]  # pad a short batch; the padding's results are dropped
        views = [self._view(one.placement, fit, camera, anchors) for one in fitted]
        return Prepared(batch, fitted, views, _ms_since(started), anchors, taken)

    def _view(
        self,
        placement: Placement,
        fit: Fit,
        camera: Camera | CameraOf | None,
        anchors: Sequence[Anchor] | None = None,
    ) -> View:
        """View of a frame at ``placement``; ``anchors`` take the place of the calibration."""
        given, calibration = self._camera if camera is None else camera, self._calibration
        if given is None and calibration is not None:
            given = calibration.frame_camera
        known = camera_of(given, placement.source_size)
        view = frame_view(self._manifest, placement, known)
        self._columns.check_frame(known, view.factor, anchors)
        if calibration is None or anchors is not None:
            return view
        calibration.check_frame(placement.source_size, str(fit), known)
        return calibrated(view, calibration)

    def _fit(self, fit: Fit | str | None) -> Fit:
        """The caller's choice, or the manifest's."""
        return check_fit(self._manifest.preprocess.fit if fit is None else fit)

    def _run(self, prepared: Prepared, on: Engine | None = None) -> Ran:
        started, count = time.perf_counter(), len(prepared.fitted)
        if (engine := self._stats_engine(prepared)) is not None:
            depth, stats = engine.infer_with_stats(prepared.images)
            return Ran(prepared, [{OutputRole.DEPTH: one} for one in depth[:count]], stats[:count], _ms_since(started))
        return Ran(prepared, self._maps_of(prepared, on or self._engine), None, _ms_since(started))

    def _maps_of(self, prepared: Prepared, engine: Engine) -> list[Maps]:
        """Outputs (H, W) of each image: all of them where depth alone does not do."""
        if self._needs_maps:
            maps = engine.infer_maps(prepared.images)
        else:
            maps = {OutputRole.DEPTH: engine.infer(prepared.images)}
        return [{role: one[index] for role, one in maps.items()} for index in range(len(prepared.fitted))]

    def _stats_engine(self, prepared: Prepared) -> StatsEngine | None:
        """The engine if it computes these statistics for this batch; letterbox bars and reciprocals need the CPU."""
        engine = self._engine
        if self._needs_maps or not isinstance(engine, StatsEngine) or not engine.has_stats:
            return None
        if engine.stat_names != self._stat_names:
            return None
        is_scaling = prepared.anchors is None and all(view.is_scaling for view in prepared.views)
        return engine if is_scaling and not any(has_bars(one.placement) for one in prepared.fitted) else None

    def _stats_alone(self, prepared: Prepared) -> NDArray[np.float32]:
        count = len(prepared.fitted)
        if (engine := self._stats_engine(prepared)) is not None:
            stats = engine.patch_stats(prepared.images)[:count]
            scaled = [view.scaled(rows, self._stat_names) for rows, view in zip(stats, prepared.views, strict=True)]
            return np.stack([self._columns.of(rows) for rows in scaled])
        frames = zip(self._maps_of(prepared, self._engine), prepared.fitted, prepared.views, strict=True)
        return np.stack([self._columns.of(self._finisher.postprocessed(*frame).stats) for frame in frames])

    def _finish(self, ran: Ran, parallel: bool = True) -> list[DepthResult]:
        return self._finisher.finish(ran, parallel=parallel)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
