"""One runtime over several engines of a model: each frame at the largest resolution that holds a deadline."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.artifact import ENGINE_DIR
from mvde.calibration.interval_columns import base_columns
from mvde.engines.base import DeviceEngine, EngineInfo
from mvde.engines.machine import resident_bytes
from mvde.engines.opened import open_verified
from mvde.engines.store import find, load_engine
from mvde.errors import UsageError
from mvde.runtime.batches import Prepared, Ran, Taken
from mvde.runtime.deadline import DeadlinePolicy, check_deadline
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.engine_set import calibrations_of, check_one_model, common_grid, map_units
from mvde.runtime.frame_floor import FrameFloor
from mvde.runtime.lanes import SecondEngine
from mvde.runtime.result import DepthResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.artifact import EngineArtifact
    from mvde.calibration.record import Calibrations
    from mvde.camera import Camera
    from mvde.engines.base import Engine
    from mvde.runtime.device_fitter import DeviceResult
    from mvde.runtime.frame_camera import CameraOf
    from mvde.runtime.mounting import Mounting
    from mvde.runtime.placement import Fit
    from mvde.runtime.steady_stream import SteadyMaps
    from mvde.runtime.view import Anchor

_LOG = logging.getLogger("mvde.runtime")

_COST_ROUNDS = 5
_COST_S = 2.0
"""Longest time of measuring what the networks take; at least two rounds are measured."""


@dataclass(frozen=True)
class EngineOnTime:
    """An engine of a runtime with a deadline: what it is, takes and needs.

    ``cost_ms`` is the network's shortest time when it was loaded; ``memory_bytes`` is the process's growth from loading
    and running it, ``device_memory_bytes`` what it holds on a GPU. ``num_frames`` were inferred with it.
    """

    info: EngineInfo
    cost_ms: float
    memory_bytes: int
    device_memory_bytes: int | None
    num_frames: int


@dataclass(frozen=True)
class OnTimeCounts:
    """Frames inferred, late ones, of these the ones that no engine would have held, and switches of the engine."""

    num_frames: int
    num_late: int
    num_unheld: int
    num_switches: int


@dataclass(frozen=True)
class _Asked:
    """What a frame of a stream was prepared with, to prepare it anew for another engine."""

    images: Sequence[NDArray[np.uint8]]
    fit: Fit | str | None
    camera: Camera | CameraOf | None
    taken: Sequence[Taken]


@dataclass(frozen=True)
class _PreparedFor(Prepared):
    """A frame prepared for engine number ``index``."""

    index: int = 0
    asked: _Asked | None = None


class OnTimeRuntime(DepthRuntime):
    """A :class:`DepthRuntime` over several engines of one model, which chooses among them frame by frame.

    Each frame is inferred at the largest resolution that is expected to hold the deadline, from what the last frames
    took (:class:`mvde.runtime.deadline.DeadlinePolicy`). ``result.placement.target_size`` says at which. Statistics are
    of one grid of patches whatever the engine, and ``grad`` is per pixel of the smallest resolution. ``info``,
    ``manifest`` and ``engine`` are the smallest engine's.

    A frame's time counts from :meth:`infer` to its result, less ``age_ms``; in a :meth:`stream`, it is the sum of its
    stages, without waiting for its consumer. That no engine holds the deadline is logged once and counted.
    """

    def __init__(
        self,
        members: Sequence[DepthRuntime],
        deadline_ms: float,
        memory_bytes: Sequence[int] | None = None,
        floor: Mounting | str | Path | None = None,
    ) -> None:
        """Wrap runtimes of one grid, from the smallest resolution to the largest; usually called through ``load``."""
        smallest, given = members[0], [one.calibration for one in members if one.calibration is not None]
        columns, calibration = smallest._columns.names, smallest.calibration
        super().__init__(smallest.engine, smallest.manifest, stats=columns, calibration=calibration, floor=floor)
        self._second = SecondEngine(None)  # each frame's engine is chosen by its time
        self._members = list(members)
        self._map_units = map_units(given) if given else [(1.0, 0.0)] * len(members)
        self._policy = DeadlinePolicy(_costs_ms(self._members), deadline_ms)
        self._memory_bytes = list(memory_bytes or [0] * len(members))
        self._lock = threading.Lock()
        self._num_frames: Counter[int] = Counter()
        self._has_said = False
        self._finish_ms = 0.0

    @property
    def deadline_ms(self) -> float:
        """Deadline in milliseconds."""
        return self._policy.deadline_ms

    @property
    def members(self) -> list[EngineOnTime]:
        """The engines, from the smallest resolution to the largest."""
        return [
            EngineOnTime(
                one.info,
                cost_ms,
                memory,
                one.engine.device_memory_bytes() if isinstance(one.engine, DeviceEngine) else None,
                self._num_frames[index],
            )
            for index, (one, cost_ms, memory) in enumerate(
                zip(self._members, self._policy.costs_ms, self._memory_bytes, strict=True)
            )
        ]

    @property
    def counts(self) -> OnTimeCounts:
        """What became of the frames so far."""
        policy = self._policy
        return OnTimeCounts(policy.num_frames, policy.num_late, policy.num_unheld, policy.num_switches)

    def infer(
        self,
        image: NDArray[np.uint8],
        fit: Fit | str | None = None,
        *,
        camera: Camera | CameraOf | None = None,
        anchors: Sequence[Anchor] | None = None,
        mounting: Mounting | None = None,
        age_ms: float = 0.0,
    ) -> DepthResult:
        """Infer as :meth:`DepthRuntime.infer`, at one resolution; ``age_ms`` is how old the frame is already.

        The images of a batch each have the deadline, and share the mean of what they take.
        """
        index = self._choose(age_ms)
        started = time.perf_counter()
        mounting = mounting or self._mounting
        result = self._members[index].infer(image, fit, camera=camera, anchors=anchors, mounting=mounting)
        count = len(result.depth) if result.depth.ndim == 3 else 1
        spent_ms = (time.perf_counter() - started) * 1e3 / count
        self._observe(index, result.timings.infer_ms / count, spent_ms + age_ms, age_ms)
        return self._as_of_smallest(result, index)

    def infer_next(
        self,
        image: NDArray[np.uint8],
        steady: SteadyMaps,
        fit: Fit | str | None = None,
        time_s: float | None = None,
        age_ms: float = 0.0,
    ) -> DepthResult:
        """Infer the next frame of a live source as :meth:`DepthRuntime.infer_next`, ``age_ms`` old already."""
        index = self._choose(age_ms)
        started = time.perf_counter()
        member = self._members[index]
        floor = FrameFloor(member.manifest, self._columns, self._mounting, scales=steady.scales)
        prepared = self._in_one_unit(member._prepare([image], fit, None, taken=[Taken(time_s)]), index)
        ran = member._run(floor.mounted(prepared))
        (result,) = member._finish(floor.scaled(steady.steadied(ran)))
        self._observe(index, ran.infer_ms, (time.perf_counter() - started) * 1e3 + age_ms, age_ms)
        return self._as_of_smallest(result, index)

    def patch_stats(
        self, image: NDArray[np.uint8], fit: Fit | str | None = None, *, camera: Camera | CameraOf | None = None
    ) -> NDArray[np.float32]:
        """Infer only the patch statistics as :meth:`DepthRuntime.patch_stats`, at one resolution."""
        return self.infer(image, fit, camera=camera).stats

    def infer_device(
        self, frame: Any, *, stream: Any = None, fit: Fit | str | None = None, camera: Camera | CameraOf | None = None
    ) -> DeviceResult:
        """Raise :class:`UsageError`: what asynchronous work takes is not known when it is enqueued."""
        raise UsageError(
            "infer_device is asynchronous, so what a frame takes is not known to a runtime with a deadline; use infer, "
            "or load the engine alone"
        )

    def __enter__(self) -> OnTimeRuntime:
        return self

    def close(self) -> None:
        """Free all engines and buffers."""
        self._fitter.close()
        for member in self._members:
            member.close()

    def _prepare(
        self,
        images: Sequence[NDArray[np.uint8]],
        fit: Fit | str | None,
        camera: Camera | CameraOf | None,
        parallel: bool = True,
        anchors: Sequence[Anchor] | None = None,
        taken: Sequence[Taken] = (),
    ) -> Prepared:
        """Prepare a frame of a stream for the engine of now; :meth:`_run` may have to do so again."""
        if callable(camera):
            camera = functools.cache(camera)  # it may give the camera of the next frame whenever it is called
        return self._prepared(_Asked(images, fit, camera, taken), self._policy.level)

    def _prepared(self, asked: _Asked, index: int) -> _PreparedFor:
        made = self._members[index]._prepare(asked.images, asked.fit, asked.camera, False, None, asked.taken)
        return _PreparedFor(**vars(self._in_one_unit(made, index)), index=index, asked=asked)

    def _in_one_unit(self, prepared: Prepared, index: int) -> Prepared:
        """The frame with its map made steady in the unit of the smallest engine's, where calibrations differ."""
        unit = self._map_units[index]
        views = [dataclasses.replace(view, map_unit=unit) for view in prepared.views]
        return dataclasses.replace(prepared, views=views)

    def _run(self, prepared: Prepared, on: Engine | None = None) -> Ran:
        assert isinstance(prepared, _PreparedFor)
        assert prepared.asked is not None
        index = self._choose(0.0)
        if index != prepared.index:
            mountings = prepared.mountings
            prepared = dataclasses.replace(self._prepared(prepared.asked, index), mountings=mountings)
        ran = self._members[index]._run(prepared)
        # Told before its end, which the next frame does not wait for; the end is taken to be that of the last one.
        self._observe(index, ran.infer_ms, prepared.pre_ms + ran.infer_ms + self._finish_ms, 0.0)
        return ran

    def _finish(self, ran: Ran, parallel: bool = True) -> list[DepthResult]:
        assert isinstance(ran.prepared, _PreparedFor)
        index = ran.prepared.index
        results = self._members[index]._finish(ran, parallel)
        self._finish_ms = results[-1].timings.post_ms
        return [self._as_of_smallest(result, index) for result in results]

    def _choose(self, age_ms: float) -> int:
        with self._lock:
            return self._policy.choose(age_ms)

    def _observe(self, index: int, network_ms: float, latency_ms: float, age_ms: float) -> None:
        with self._lock:
            self._policy.observe(index, network_ms, latency_ms, age_ms)
            self._num_frames[index] += 1
            says = self._policy.is_unheld and not self._has_said
            self._has_said = self._has_said or says
        if says:
            rows, columns = self.info.resolution
            _LOG.warning(
                "no engine holds the deadline of %g ms: the smallest, %dx%d, took %.1f ms; frames after it are counted",
                self.deadline_ms, rows, columns, latency_ms,
            )  # fmt: skip

    def _as_of_smallest(self, result: DepthResult, index: int) -> DepthResult:
        """The result with ``grad`` per pixel of the smallest resolution, as the other columns are already."""
        if index == 0 or "grad" not in result.stat_names:
            return result
        pixels = self._members[index].manifest.stats_patch / self.manifest.stats_patch
        result.stats[..., result.stat_names.index("grad")] *= np.float32(pixels)
        return result


def load_on_time(
    source: Any,
    deadline_ms: float | None,
    *,
    grid: tuple[int, int] | None = None,
    name: str | None = None,
    resolution: tuple[int, int] | None = None,
    batch: int | None = None,
    engine_dir: str | Path = ENGINE_DIR,
    stats: Sequence[str] | None = None,
    threads: int | None = None,
    floor: Mounting | str | Path | None = None,
    calibration: Calibrations | None = None,
    **options: Any,
) -> OnTimeRuntime:
    """Load engines of one model, ``source``, as one runtime; ``options`` are further ones of ``DepthRuntime.load``.

    ``source`` is a list of paths or ids, or one of them. ``calibration`` is one for each engine: a list in any order,
    or the folder that ``mvde calibrate`` wrote them to.

    Raises as :meth:`DepthRuntime.load`, and :class:`UsageError` for engines that do not belong together and a list
    without a deadline, :class:`CalibrationError` for calibrations that are not of these engines or differ in frames.
    """
    sources = list(source) if isinstance(source, (list, tuple)) else [source]
    if not sources or any(one is not None and not isinstance(one, (str, Path)) for one in sources):
        raise UsageError(f"engines with a deadline are paths or ids, in a list, but got {source!r}")
    if deadline_ms is None:
        raise UsageError(f"{len(sources)} engines were given, and nothing to choose by; give deadline_ms= too")
    check_deadline(deadline_ms)
    found = [find(one, name=name, resolution=resolution, batch=batch, root=Path(engine_dir)) for one in sources]
    found.sort(key=lambda one: one.manifest.resolution)
    manifests = [one.manifest for one in found]
    check_one_model(manifests)
    shared = common_grid(manifests, grid)
    calibrations = [None] * len(found) if calibration is None else calibrations_of(manifests, calibration)
    with ExitStack() as stack:
        members, grown = [], []
        for artifact, own in zip(found, calibrations, strict=True):
            before = resident_bytes()
            member = _load(artifact, shared, stats, threads, {**options, "calibration": own})
            members.append(stack.enter_context(member))
            member.engine.infer(_blank(member))  # libraries allocate most of an engine's memory with its first frame
            grown.append(max(resident_bytes() - before, 0))
        made = OnTimeRuntime(members, deadline_ms, grown, floor)
        stack.pop_all()
        return made


def _load(
    artifact: EngineArtifact,
    grid: tuple[int, int],
    stats: Sequence[str] | None,
    threads: int | None,
    options: dict[str, Any],
) -> DepthRuntime:
    """Load an engine whose statistics are of ``grid``."""
    opened = open_verified(artifact.path)
    patch = opened.manifest.resolution[0] // grid[0]
    manifest = dataclasses.replace(opened.manifest, stats_patch=patch, grid=grid)
    opened = dataclasses.replace(opened, manifest=manifest)
    return DepthRuntime(*load_engine(opened, base_columns(stats), threads), stats=stats, **options)


def _blank(member: DepthRuntime) -> NDArray[np.uint8]:
    return np.zeros((member.info.batch, *member.info.resolution, 3), np.uint8)


def _costs_ms(members: Sequence[DepthRuntime]) -> list[float]:
    """Shortest time of each network in milliseconds, measured in turns: other work makes single ones longer."""
    images, until = [_blank(member) for member in members], time.perf_counter() + _COST_S
    times_ms: list[list[float]] = [[] for _ in members]
    for number in range(1 + _COST_ROUNDS):
        if number > 2 and time.perf_counter() > until:
            break
        for member, image, spent in zip(members, images, times_ms, strict=True):
            started = time.perf_counter()
            member.engine.infer(image)
            spent.append((time.perf_counter() - started) * 1e3)
    return [min(spent[1:]) for spent in times_ms]
