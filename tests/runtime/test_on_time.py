"""One runtime over several engines: resolutions, statistics of one grid, switches, streams, and bad input."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.calibration.record import Calibration, write_calibration
from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.engines.store import find, load_engine
from mvde.errors import CalibrationError, UsageError
from mvde.runtime.deadline import HOLD_FRAMES, UNHELD_FRAMES
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.floor import FloorStatus
from mvde.runtime.mounting import Mounting
from mvde.runtime.on_time import OnTimeRuntime
from mvde.runtime.stabilize import Stabilization
from mvde.runtime.steady_stream import SteadyMaps
from mvde.stats import depth_to_patch_stats
from tests.runtime.floor_rooms import room_depth
from tests.runtime.test_calibrated import calibration_of
from tests.runtime.test_interval_columns import INTERVALS, RECORD

SMALL, LARGE = (32, 48), (64, 96)
STATS = ("mean", "var", "grad", "min", "max", "valid")


@pytest.fixture(scope="session")
def folders(engines_of_two_sizes: list[Path]) -> list[Path]:
    """Engines of one model at two resolutions, the larger one first."""
    return engines_of_two_sizes[::-1]


@pytest.fixture
def runtime(folders: list[Path]) -> Iterator[OnTimeRuntime]:
    """Both engines with a deadline that the larger one holds by far."""
    with DepthRuntime.load(folders, deadline_ms=2000, stats=STATS) as made:
        assert isinstance(made, OnTimeRuntime)
        yield made


class _Clock(threading.local):
    """A clock that stands still but for what engines are said to take, in each thread."""

    now_s = 1.0

    def perf_counter(self) -> float:
        return self.now_s


class _Timed:
    """The engine ``inner``, said to take ``cost_ms``, and ``slow_ms`` from call ``slow_from`` up to ``until``."""

    def __init__(self, inner: object, clock: _Clock, cost_ms: float) -> None:
        self._inner, self._clock, self.cost_ms = inner, clock, cost_ms
        self.calls, self.slow_from, self.until, self.slow_ms = 0, 1 << 30, 1 << 30, 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        self._clock.now_s += (self.slow_ms if self.slow_from <= self.calls < self.until else self.cost_ms) / 1000
        return self._inner.infer(images)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def timed(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OnTimeRuntime, _Timed]]:
    """A runtime with a deadline of 33 ms whose engines are said to take 8 and 20 ms, and the larger engine."""
    clock, engines, members = _Clock(), [], []
    for module in ("on_time", "depth", "finisher", "frame_floor", "steady_stream"):
        monkeypatch.setattr(f"mvde.runtime.{module}.time", clock)
    for folder, cost_ms in zip(reversed(folders), (8, 20), strict=True):
        engine, manifest = load_engine(find(folder))
        engines.append(_Timed(engine, clock, cost_ms))
        manifest = dataclasses.replace(manifest, grid=(2, 3), stats_patch=manifest.resolution[0] // 2)
        members.append(DepthRuntime(engines[-1], manifest))  # type: ignore[arg-type]
    with OnTimeRuntime(members, 33) as made:
        engines[1].calls = 0
        yield made, engines[1]


def sizes(results: object) -> list[tuple[int, int]]:
    """Resolution of each result."""
    return [one.placement.target_size for one in results]  # type: ignore[attr-defined]


def test_the_largest_in_time_gives_what_it_gives_alone(
    runtime: OnTimeRuntime, folders: list[Path], random_images: Callable[..., np.ndarray]
) -> None:
    image = random_images(50, 70, 3)
    result = runtime.infer(image)
    with DepthRuntime.load(folders[0]) as alone:
        np.testing.assert_array_equal(result.depth, alone.infer(image).depth)
    assert result.placement.target_size == LARGE
    assert [one.info.resolution for one in runtime.members] == [SMALL, LARGE]
    assert [one.num_frames for one in runtime.members] == [0, 1]


def test_statistics_are_of_one_grid_and_exact_whatever_the_engine(
    runtime: OnTimeRuntime, folders: list[Path], random_images: Callable[..., np.ndarray]
) -> None:
    image = random_images(64, 96, 3)
    large, small = runtime.infer(image), runtime.infer(image, age_ms=1999)  # no time left: the smallest
    assert sizes([large, small]) == [LARGE, SMALL]
    assert large.grid == small.grid == (2, 3)
    assert large.stats.shape == small.stats.shape == (6, len(STATS))
    expected = depth_to_patch_stats(large.depth[None], 32, stats=STATS)[0]
    expected[:, STATS.index("grad")] *= 2  # per pixel of the smallest resolution, which is two pixels here
    np.testing.assert_allclose(large.stats, expected, rtol=1e-5, atol=1e-6)
    with DepthRuntime.load(folders[1], stats=STATS) as alone:
        np.testing.assert_array_equal(small.stats, alone.infer(image).stats)


def test_a_declared_grid_is_that_of_every_result(folders: list[Path], random_images: Callable[..., np.ndarray]) -> None:
    with DepthRuntime.load(folders, deadline_ms=2000, grid=(4, 6)) as runtime:
        results = [runtime.infer(random_images(32, 48, 3)), runtime.infer(random_images(2, 32, 48, 3), age_ms=1999)]  # type: ignore[call-arg]
    assert [one.grid for one in results] == [(4, 6), (4, 6)]
    assert [one.stats.shape for one in results] == [(24, 3), (2, 24, 3)]


def test_a_slow_down_is_answered_within_two_frames_and_undone(
    timed: tuple[OnTimeRuntime, _Timed], random_images: Callable[..., np.ndarray]
) -> None:
    runtime, large = timed
    image = random_images(32, 48, 3)
    large.slow_from, large.until, large.slow_ms = 101, 102, 40
    found = sizes([runtime.infer(image) for _ in range(200)])
    assert found[:101] == [LARGE] * 101
    assert found[101] == SMALL
    assert found[101 : found.index(LARGE, 101)] == [SMALL] * HOLD_FRAMES
    assert found[-1] == LARGE
    counts = runtime.counts
    assert (counts.num_late, counts.num_unheld, counts.num_switches) == (1, 0, 2)
    assert counts.num_frames == sum(one.num_frames for one in runtime.members) == 200


def test_a_stream_switches_in_flight_and_stays_steady(
    timed: tuple[OnTimeRuntime, _Timed], random_images: Callable[..., np.ndarray]
) -> None:
    runtime, large = timed
    large.slow_from, large.slow_ms = 7, 40
    results = list(runtime.stream([random_images(32, 48, 3)] * 12, stabilize=Stabilization()))
    assert sizes(results) == [LARGE] * 7 + [SMALL] * 5
    assert [one.num_steady for one in results] == list(range(1, 13)), "a switch does not begin anew"
    assert {one.stats.shape for one in results} == {(6, 3)}


def test_a_deadline_that_no_engine_holds_is_logged_once_and_counted(
    folders: list[Path], random_images: Callable[..., np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    with DepthRuntime.load(folders, deadline_ms=1e-3) as runtime, caplog.at_level(logging.WARNING, "mvde.runtime"):
        for _ in range(2 * UNHELD_FRAMES):
            runtime.infer(random_images(32, 48, 3))
        counts = runtime.counts  # type: ignore[attr-defined]
    assert counts.num_unheld == counts.num_late == 2 * UNHELD_FRAMES
    assert len(caplog.messages) == 1
    assert "no engine holds the deadline of 0.001 ms: the smallest, 32x48, took" in caplog.messages[0]


def test_memory_of_every_engine_is_reported(runtime: OnTimeRuntime) -> None:
    assert all(one.memory_bytes >= 0 and one.cost_ms > 0 for one in runtime.members)
    assert [one.device_memory_bytes for one in runtime.members] == [None, None]


def test_a_single_engine_may_have_a_deadline(folders: list[Path], random_images: Callable[..., np.ndarray]) -> None:
    with DepthRuntime.load(folders[0], deadline_ms=2000) as runtime:
        assert runtime.infer(random_images(32, 48, 3)).placement.target_size == LARGE
        assert runtime.manifest.stats_patch == 16


def test_the_camera_of_a_frame_is_asked_for_once_although_it_is_prepared_twice(
    timed: tuple[OnTimeRuntime, _Timed], random_images: Callable[..., np.ndarray]
) -> None:
    runtime, large = timed
    large.slow_from, large.slow_ms = 3, 40
    cameras = iter([Camera(50.0 + number, 50.0, 23.5, 15.5, (32, 48)) for number in range(8)])
    results = list(runtime.stream([random_images(32, 48, 3)] * 8, camera=lambda _: next(cameras)))
    assert sizes(results) == [LARGE] * 3 + [SMALL] * 5
    assert [one.camera.fx for one in results if one.camera is not None] == [50.0 + number for number in range(8)]


def test_engines_that_do_not_belong_together_are_refused(
    folders: list[Path],
    build_tiny: Callable[..., Path],
    edit_manifest: Callable[..., None],
    tmp_path: Path,
) -> None:
    other = build_tiny(tmp_path, name="other", resolution=(96, 144))
    with pytest.raises(UsageError, match=r"tiny 64x96 openvino:fp32 and other 96x144 openvino:fp32 differ in model"):
        DepthRuntime.load([folders[0], other], deadline_ms=33)
    with pytest.raises(UsageError, match="two engines are of 64x96; give one of each resolution"):
        DepthRuntime.load([folders[0], folders[0]], deadline_ms=33)
    edit_manifest(
        other / "engine.json",
        lambda plain: plain.update(name="tiny", depth_kind=str(DepthKind.SCALE_INVARIANT), unit="1"),
    )
    with pytest.raises(
        UsageError, match="differ in kind: metric and scale_invariant; engines with a deadline are of one"
    ):
        DepthRuntime.load([folders[0], other], deadline_ms=33)
    edit_manifest(other / "engine.json", lambda plain: plain.update(depth_kind="metric", unit="m"))
    edit_manifest(other / "engine.json", lambda plain: plain["source"].update(sha256="1" * 64))
    with pytest.raises(UsageError, match="differ in weights: 000000000000 and 111111111111"):
        DepthRuntime.load([folders[0], other], deadline_ms=33)


def test_sizes_that_share_no_grid_and_batches_are_refused(
    folders: list[Path], build_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    square, batch = build_tiny(tmp_path, resolution=(64, 64)), build_tiny(tmp_path, resolution=(96, 144), batch=2)
    with pytest.raises(UsageError, match="64x64 and 64x96 differ in aspect, so no grid of square patches fits both"):
        DepthRuntime.load([folders[0], square], deadline_ms=33)
    with pytest.raises(UsageError, match="has batch 2; a deadline is of single frames"):
        DepthRuntime.load([folders[0], batch], deadline_ms=33)
    with pytest.raises(
        UsageError, match=r"a grid of 3x3 does not divide 32x48, 64x96 .* the nearest that do: 4x6, 2x3, 8x12"
    ):
        DepthRuntime.load(folders, deadline_ms=33, grid=(3, 3))


def test_a_list_without_a_deadline_and_what_does_not_go_with_one_are_refused(
    folders: list[Path], runtime: OnTimeRuntime
) -> None:
    with pytest.raises(UsageError, match="2 engines were given, and nothing to choose by; give deadline_ms= too"):
        DepthRuntime.load(folders)
    with pytest.raises(UsageError, match="a deadline is a number of milliseconds above 0, but got 0"):
        DepthRuntime.load(folders, deadline_ms=0)
    with pytest.raises(UsageError, match="engines with a deadline are paths or ids, in a list, but got"):
        DepthRuntime.load([], deadline_ms=33)
    with pytest.raises(UsageError, match="infer_device is asynchronous"):
        runtime.infer_device(np.zeros((32, 48, 3), np.uint8))


def test_the_floor_gives_the_scale_at_each_resolution(folders: list[Path]) -> None:
    camera, mounting = Camera.from_fov(60.0, None, (64, 96)), Mounting(0.6, 15.0)
    depth_m = np.maximum(room_depth(camera, mounting, wall_m=4.0) * 0.8, 0.5)
    total = np.rint((depth_m - 0.5) / 4.0 * 255 * 3).astype(int)  # the tiny engine's depth is the brightness
    image = np.stack([(total + channel) // 3 for channel in range(3)], -1).astype(np.uint8)
    with DepthRuntime.load(folders, deadline_ms=2000, camera=camera, floor=mounting) as runtime:
        assert isinstance(runtime, OnTimeRuntime)
        steady = SteadyMaps(runtime.manifest.depth_kind, Stabilization())
        results = [runtime.infer(image), *runtime.stream([image]), runtime.infer_next(image, steady)]
        results += [runtime.infer_next(image, steady, age_ms=1999), runtime.infer(image), *runtime.stream([image])]
    assert sizes(results) == [LARGE] * 3 + [SMALL] * 3
    for result in results:
        assert result.floors[0].status is FloorStatus.USED
        assert result.floors[0].scale == pytest.approx(1 / 0.8, rel=0.02)


def calibrations(folders: list[Path], *scales: float, **fields: Any) -> list[Calibration]:
    """One calibration for each engine, of frames of 64x96."""
    manifests = [find(folder).manifest for folder in folders]
    return [calibration_of(one, scale=scale, **fields) for one, scale in zip(manifests, scales, strict=True)]


def test_each_engine_has_the_calibration_of_its_graph(
    folders: list[Path], tmp_path: Path, random_images: Callable[..., np.ndarray]
) -> None:
    image, own = random_images(64, 96, 3), calibrations(folders, 2.0, 3.0)
    for one in own:
        write_calibration(one, tmp_path / f"tiny-{one.resolution[0]}x{one.resolution[1]}.calibration.json")
    with DepthRuntime.load(folders[0], calibration=own[0]) as alone:
        large = alone.infer(image).depth
    with DepthRuntime.load(folders[1], calibration=own[1]) as alone:
        small = alone.infer(image).depth
    ways: list[Any] = [own[::-1], tmp_path, [tmp_path / "tiny-32x48.calibration.json", own[0]]]
    for given in ways:
        with DepthRuntime.load(folders, deadline_ms=2000, calibration=given) as runtime:
            results = [runtime.infer(image), runtime.infer(image, age_ms=1999)]  # type: ignore[call-arg]
        assert sizes(results) == [LARGE, SMALL]
        assert [one.calibrated for one in results] == ["one scale"] * 2
        np.testing.assert_array_equal(results[0].depth, large)
        np.testing.assert_array_equal(results[1].depth, small)


def test_intervals_are_those_of_the_engine_that_was_used(
    folders: list[Path], random_images: Callable[..., np.ndarray]
) -> None:
    wide = dataclasses.replace(INTERVALS, mean=dataclasses.replace(INTERVALS.mean, hi=(2.0, 2.0, 2.0)))
    large, small = calibrations(folders, 1.0, 1.0, camera=RECORD, intervals=INTERVALS)
    given = [large, dataclasses.replace(small, intervals=wide)]
    image = random_images(64, 96, 3)
    with DepthRuntime.load(folders, deadline_ms=2000, calibration=given, stats=("mean", "hi", "near")) as runtime:
        results = [runtime.infer(image), runtime.infer(image, age_ms=1999)]  # type: ignore[call-arg]
        assert runtime.calibration == given[1]
        with pytest.raises(UsageError, match="the floor gives depth another scale"):
            list(runtime.stream([image], mountings=[Mounting(0.6, 15.0)]))
    assert [one.stat_names for one in results] == [("mean", "hi", "near")] * 2
    np.testing.assert_allclose(results[1].stats[:, 1], 2 * results[1].stats[:, 0], rtol=1e-6)
    assert (results[0].stats[:, 1] < 1.6 * results[0].stats[:, 0]).all()
    with pytest.raises(CalibrationError, match="stats has 'hi', but the calibration has no intervals"):
        DepthRuntime.load(folders, deadline_ms=33, calibration=calibrations(folders, 1, 1), stats=("hi",))


@pytest.mark.parametrize("kind", [DepthKind.METRIC, DepthKind.INVERSE_RELATIVE])
def test_steady_depth_keeps_its_metres_over_a_switch_between_calibrations(
    folders: list[Path], edit_manifest: Callable[..., None], tmp_path: Path, kind: DepthKind
) -> None:
    """Both engines have the same map, so that calibrations that differ stand for engines whose maps do."""
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in folders]
    fields = {"depth_kind": str(kind), "unit": kind.unit}
    for folder in copies:
        edit_manifest(folder / "engine.json", lambda plain: plain.update(fields))
    large, small = calibrations(copies, 1.1, 1.0, shift=0.0)
    given = [dataclasses.replace(large, shift=0.05 if kind.is_inverse else 0.0), small]
    image = np.tile(np.linspace(60, 200, 96, dtype=np.uint8)[None, :, None], (64, 1, 3))
    with DepthRuntime.load(copies, deadline_ms=2000, calibration=given) as runtime:
        assert isinstance(runtime, OnTimeRuntime)
        steady = SteadyMaps(runtime.manifest.depth_kind, Stabilization())
        results = [runtime.infer_next(image, steady, age_ms=age_ms) for age_ms in (0, 0, 0, 1999, 1999)]
        raw = [runtime.infer(image, age_ms=1999).depth, results[0].depth]
    assert sizes(results) == [LARGE] * 3 + [SMALL] * 2
    assert [one.num_steady for one in results] == [1, 2, 3, 4, 5]
    change, jump = (abs(np.log(np.median(one / two))) for one, two in ((results[3].depth, results[2].depth), raw))
    assert jump > 0.09
    assert change < 0.6 * jump


def test_calibrations_that_are_not_one_for_each_engine_are_refused(folders: list[Path], tmp_path: Path) -> None:
    large, small = calibrations(folders, 2.0, 3.0)
    no_scale = dataclasses.replace(small, camera=RECORD, intervals=INTERVALS, scale=None, measured=None)
    wrong: list[tuple[Any, str]] = [
        ([large], r"tiny 32x48 openvino:fp32, of the fp32 graph .*, has no calibration: those given are of tiny 64x96"),
        ([], "has no calibration: those given are of none"),
        ([large, small, small], "2 calibrations are of the graph of tiny 32x48 openvino:fp32; give one of them"),
        (
            [large, small, dataclasses.replace(small, graph_sha256="1" * 64)],
            r"3 calibrations were given for 2 engines: .*, tiny 32x48 \(111111111111\.\.\.\); give one for each",
        ),
        ([large, dataclasses.replace(small, frame=(32, 48))], "differ in the size of the frames; calibrate engines"),
        ([large, dataclasses.replace(small, fit="crop")], "of tiny 32x48 and 64x96 differ in the fit"),
        ([large, dataclasses.replace(small, camera=RECORD)], "differ in the camera"),
        ([dataclasses.replace(large, camera=RECORD), no_scale], "differ in having a scale"),
        (large, "tiny 32x48 openvino:fp32, of the fp32 graph .*, has no calibration"),
        (tmp_path, r"tiny 32x48 openvino:fp32 has no calibration: there is no .*/tiny-32x48\.calibration\.json"),
    ]
    for given, message in wrong:
        with pytest.raises(CalibrationError, match=message):
            DepthRuntime.load(folders, deadline_ms=33, calibration=given)
    with pytest.raises(UsageError, match="an engine takes one calibration, but got"):
        DepthRuntime.load(folders[0], calibration=[large, small])
