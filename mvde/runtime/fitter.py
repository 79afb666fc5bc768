"""Frames into the model's resolution and depth back to their pixels, by libmvde where it is, else by Pillow.

Both give the same bits (a test holds them to it); libmvde is faster, and writes into the engine's input directly.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde import native
from mvde.engines.machine import num_cpus
from mvde.errors import ImageError
from mvde.image import check_image
from mvde.runtime.placement import Fit, Placement, depth_to_source, fit_image, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_IDLE = 8  # resizers kept, each with its tables for one size of frame: a few cameras, or a few threads
_MAX_THREADS = 4  # of a resizer; a frame is a millisecond of work, and beyond that it is spent on waking threads


@dataclass(frozen=True)
class Fitted:
    """How a frame went into the model's input, which is all that the way back needs."""

    placement: Placement
    fit: Fit


@dataclass
class _PooledResizer:
    """A resizer between frames of one size and the resolution, with its threads; for one caller at a time."""

    source_size: tuple[int, int]
    fit: Fit
    resizer: native.Resizer
    threads: native.Workers | None = None

    def workers(self, parallel: bool) -> native.Workers | None:
        """Threads that share the work, started when they are first asked for; ``None`` for the caller's alone."""
        count = min(num_cpus(), _MAX_THREADS)
        if not parallel or count == 1:
            return None
        self.threads = self.threads or native.Workers(count)
        return self.threads

    def close(self) -> None:
        """Free tables and threads."""
        self.resizer.close()
        if self.threads is not None:
            self.threads.close()


def check_array(image: Any) -> None:
    """Raise :class:`ImageError` unless the image is an array of NumPy, and not another library's."""
    if isinstance(image, np.ndarray) or not hasattr(image, "__dlpack__"):
        return  # what has no array in it is for check_image to name
    raise ImageError(
        f"an image is an array of NumPy, (H, W, 3) or (B, H, W, 3) of dtype uint8, but got a {type(image).__name__}; "
        "use np.from_dlpack(image) (from a GPU: image.cpu(), or infer_device)"
    )


class _Pool:
    """The resizers that nobody uses now, in the process that made them."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.idle: deque[_PooledResizer] = deque()
        self.lock = threading.Lock()


class FrameFitter:
    """Both ways between frames of any size and one resolution. Safe to share between threads.

    ``parallel`` shares a frame's work between threads, for a caller that waits for it; beside an engine that runs at
    the same time it would only take its CPUs away. The bits are the same.
    """

    def __init__(self, resolution: tuple[int, int]) -> None:
        """``resolution`` is the model's (H, W) in pixels."""
        self._resolution = resolution
        self._pool = _Pool()

    def fit(self, image: NDArray[np.uint8], fit: Fit, out: NDArray[np.uint8], *, parallel: bool = True) -> Fitted:
        """How the RGB image (H, W, 3), uint8, was put into ``out``, of the model's resolution and contiguous.

        Raises :class:`ImageError` for an image that is not 8-bit RGB, :class:`UsageError` for an unknown ``fit``.
        """
        check_array(image)
        check_image(image)
        placement = place((image.shape[0], image.shape[1]), self._resolution, fit)
        if placement.source_size == self._resolution or not native.is_available():
            out[...] = fit_image(image, placement)
        else:
            with self._borrowed(placement.source_size, fit) as pooled:
                pooled.resizer.resize(image, out=out, workers=pooled.workers(parallel))
        return Fitted(placement, fit)

    def depth_to_source(
        self, depth: NDArray[np.float32], fitted: Fitted, *, parallel: bool = True
    ) -> NDArray[np.float32]:
        """Depth (H, W), float32, at the frame's own pixels; 0 (invalid) where the model did not see the frame."""
        placement = fitted.placement
        if placement.source_size == self._resolution or not native.is_available():
            return depth_to_source(depth, placement)
        with self._borrowed(placement.source_size, fitted.fit) as pooled:
            return pooled.resizer.depth_to_source(depth, workers=pooled.workers(parallel))

    def close(self) -> None:
        """Free the tables of the frame sizes seen so far, and their threads."""
        idle = self._own_pool().idle
        while idle:
            idle.popleft().close()

    @contextlib.contextmanager
    def _borrowed(self, source_size: tuple[int, int], fit: Fit) -> Iterator[_PooledResizer]:
        """A resizer that no other thread has."""
        pooled = self._take_idle(source_size, fit)
        if pooled is None:
            pooled = _PooledResizer(source_size, fit, native.Resizer(source_size, self._resolution, fit))
        try:
            yield pooled
        finally:
            pool = self._own_pool()
            with pool.lock:
                pool.idle.append(pooled)
                dropped = pool.idle.popleft() if len(pool.idle) > _MAX_IDLE else None
            if dropped is not None:
                dropped.close()

    def _take_idle(self, source_size: tuple[int, int], fit: Fit) -> _PooledResizer | None:
        pool = self._own_pool()
        with pool.lock:
            for index, pooled in enumerate(pool.idle):
                if (pooled.source_size, pooled.fit) == (source_size, fit):
                    del pool.idle[index]
                    return pooled
        return None

    def _own_pool(self) -> _Pool:
        """The pool of this process: in a fork, a thread that is not there may hold the parent's lock for ever."""
        if self._pool.process != os.getpid():
            self._pool = _Pool()
        return self._pool
