"""The engine of a stream: the whole CPU for a frame alone, half of it for each of two frames at a time.

Threads that share a frame wait for each other after every layer, and two frames at a time wait less: twice as many
results come in less than twice the time. A frame then takes longer, so that this is done only while frames wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from mvde.engines.base import Engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.batches import Prepared, Ran

T = TypeVar("T")

OPEN_AFTER_S = 1.0
"""Seconds for which frames have to wait before the second engine is loaded, which takes 0.1 to 0.3 s and memory."""


@runtime_checkable
class TwoCallEngine(Engine, Protocol):
    """An engine on the CPU that may be opened again for two calls at a time."""

    def for_two_calls(self) -> Engine | None:
        """Open the same network for two concurrent calls, each on half of this one's threads.

        Two calls take less time there than one after the other here. ``None`` where that does not pay: on one thread,
        and for a large network, whose memory it doubles for a few per cent of time.
        """
        ...


class SecondEngine:
    """A runtime's engine for two calls at a time, opened when it is first worth it, and kept."""

    def __init__(self, whole: Engine | None) -> None:
        self._whole = whole
        self._engine: Engine | None = None
        self._is_decided = not isinstance(whole, TwoCallEngine)
        self._lock = threading.Lock()

    @property
    def num_lanes(self) -> int:
        """Number of threads of a stream that call an engine: two where there may be one for two calls."""
        return 2 if isinstance(self._whole, TwoCallEngine) else 1

    def get(self, images: NDArray[np.uint8], *, may_open: bool) -> Engine | None:
        """The engine if it is open, or ``None``; with ``may_open`` it is opened and tried on ``images``."""
        if self._is_decided or not may_open or not self._lock.acquire(blocking=False):
            return self._engine
        try:
            if not self._is_decided:
                self._engine = self._opened(images)
                self._is_decided = True
            return self._engine
        finally:
            self._lock.release()

    def close(self) -> None:
        """Free the engine."""
        if self._engine is not None:
            self._engine.close()

    def _opened(self, images: NDArray[np.uint8]) -> Engine | None:
        """The engine, if there is one and it gives the bits of the whole CPU's for ``images``."""
        assert isinstance(self._whole, TwoCallEngine)
        engine = self._whole.for_two_calls()
        if engine is None:
            return None
        expected, got = self._whole.infer_maps(images), engine.infer_maps(images)
        if all(one.tobytes() == got[role].tobytes() for role, one in expected.items()):
            return engine
        engine.close()
        return None


class Lanes:
    """Chooses the engine of each frame of one stream."""

    def __init__(self, whole: Engine, second: SecondEngine) -> None:
        self._whole, self._second = whole, second
        self._lock = threading.Lock()
        self._num_unfinished = 0
        self._busy_since_s: float | None = None

    def announced(self, frame: T) -> T:
        """The same frame, which waits for an engine from now on."""
        with self._lock:
            self._num_unfinished += 1
        return frame

    def run(self, prepared: Prepared, run: Callable[[Prepared, Engine], Ran]) -> Ran:
        """Run an announced frame on its engine."""
        try:
            return run(prepared, self._engine_of(prepared))
        finally:
            with self._lock:
                self._num_unfinished -= 1

    def _engine_of(self, prepared: Prepared) -> Engine:
        """The whole CPU's for a frame beside which none waits or runs."""
        with self._lock:
            if self._num_unfinished == 1:
                self._busy_since_s = None
                return self._whole
            now_s = time.monotonic()
            self._busy_since_s = now_s if self._busy_since_s is None else self._busy_since_s
            may_open = now_s - self._busy_since_s >= OPEN_AFTER_S
        return self._second.get(prepared.images, may_open=may_open) or self._whole
