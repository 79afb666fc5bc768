"""Which engine each frame of a stream gets: the whole CPU's, or one for two calls at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from mvde.contract import OutputRole
from mvde.engines.base import Engine
from mvde.engines.openvino import engine as openvino_engine
from mvde.runtime import lanes
from mvde.runtime.batches import Prepared
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.lanes import Lanes, SecondEngine

pytest.importorskip("openvino")


class _Whole:
    """An engine whose depth is ``depth``, and which has ``second`` for two calls."""

    def __init__(self, depth: float, second: _Whole | None = None) -> None:
        self._depth, self._second = depth, second
        self.is_closed = False

    def info(self) -> None:
        """Never asked for."""

    layers = info

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.infer_maps(images)[OutputRole.DEPTH]

    def infer_maps(self, images: np.ndarray) -> dict[OutputRole, np.ndarray]:
        return {OutputRole.DEPTH: np.full(images.shape[:3], self._depth, np.float32)}

    def for_two_calls(self) -> _Whole | None:
        return self._second

    def close(self) -> None:
        self.is_closed = True


def _frame() -> Prepared:
    return Prepared(np.zeros((1, 4, 4, 3), np.uint8), [], [], 0.0, None)


def _engines(whole: _Whole, num_waiting: int, monkeypatch: pytest.MonkeyPatch, after_s: float = 0.0) -> list[Any]:
    """Engines of frames that run one by one, of which so many are announced at once."""
    monkeypatch.setattr(lanes, "OPEN_AFTER_S", after_s)
    second = SecondEngine(cast(Engine, whole))
    chosen = Lanes(cast(Engine, whole), second)
    frames = [chosen.announced(_frame()) for _ in range(num_waiting)]
    found = [chosen.run(frame, lambda _, engine: cast(Any, engine)) for frame in frames]
    second.close()
    return found


def test_waiting_frames_share_the_cpu_and_the_last_one_has_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    second = _Whole(np.nan)
    whole = _Whole(np.nan, second)
    assert _engines(whole, 3, monkeypatch) == [second, second, whole]
    assert second.is_closed


def test_a_frame_alone_has_the_whole_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _Whole(1.0, _Whole(1.0))
    assert _engines(whole, 1, monkeypatch) == [whole]


def test_a_second_engine_is_not_loaded_for_a_short_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _Whole(1.0, _Whole(1.0))
    assert _engines(whole, 5, monkeypatch, after_s=60) == [whole] * 5


@pytest.mark.parametrize("depth", [np.nextafter(np.float32(1), np.float32(2)), -1.0])
def test_a_second_engine_that_rounds_otherwise_is_not_used(depth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    second = _Whole(depth)
    whole = _Whole(1.0, second)
    assert _engines(whole, 3, monkeypatch) == [whole] * 3
    assert second.is_closed


def test_an_engine_without_a_second_one_is_used_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _Whole(1.0)
    assert _engines(whole, 3, monkeypatch) == [whole] * 3


def test_a_failed_frame_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _Whole(1.0, _Whole(1.0))
    monkeypatch.setattr(lanes, "OPEN_AFTER_S", 0.0)
    chosen = Lanes(cast(Engine, whole), SecondEngine(cast(Engine, whole)))
    frame = chosen.announced(_frame())
    with pytest.raises(ZeroDivisionError):
        chosen.run(frame, lambda *_: cast(Any, 1 // 0))
    assert cast(Any, chosen.run(chosen.announced(_frame()), lambda _, engine: cast(Any, engine))) is whole


def test_a_stream_on_two_engines_gives_what_infer_gives(
    engine_folder: Path, random_images: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO's second engine computes most frames of a stream, with the bits of the first."""
    used: set[tuple[Any, ...]] = set()
    run = openvino_engine.OpenVinoEngine._run

    def recorded(self: Any, *given: Any) -> Any:
        used.add(
            (int(self._compiled.get_property("NUM_STREAMS")), self._compiled.get_property("INFERENCE_NUM_THREADS"))
        )
        return run(self, *given)

    monkeypatch.setattr(lanes, "OPEN_AFTER_S", 0.0)
    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_run", recorded)
    frames = [random_images(40 + seed % 3, 50, 3, seed=seed) for seed in range(40)]
    with DepthRuntime.load(engine_folder, threads=2) as runtime:
        results = list(runtime.stream(frames))
        assert used == {(1, 2), (2, 2)}
        for frame, result in zip(frames, results, strict=True):
            alone = runtime.infer(frame)
            np.testing.assert_array_equal(result.depth, alone.depth)
            np.testing.assert_array_equal(result.stats, alone.stats)


def test_no_second_engine_on_one_thread_or_of_a_large_network(
    engine_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DepthRuntime.load(engine_folder, threads=1) as runtime:
        assert cast(Any, runtime.engine).for_two_calls() is None
    monkeypatch.setattr(openvino_engine, "_LARGEST_FOR_TWO", 100)
    with DepthRuntime.load(engine_folder, threads=2) as runtime:
        assert cast(Any, runtime.engine).for_two_calls() is None
