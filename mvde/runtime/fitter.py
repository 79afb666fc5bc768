"""Resize frames to the model's resolution and depth back, with libmvde if available, else with Pillow and NumPy.

Both give bit-identical results (tested); libmvde is faster and writes directly into the engine's input.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde import native
from mvde.engines.machine import num_cpus
from mvde.errors import ImageError
from mvde.image import check_image
from mvde.resampling import DEFAULT_RESAMPLING, Resampling
from mvde.runtime.placement import Fit, Placement, depth_to_source, fit_image, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_IDLE = 8  # cached resizers, each with tables for one frame size: a few cameras or threads
_MAX_THREADS = 4  # per resizer; a frame takes about 1 ms, so more threads cost more in wake-ups than they gain


@dataclass(frozen=True)
class Fitted:
    """How a frame was fitted into the model's input; sufficient for the inverse mapping."""

    placement: Placement
    fit: Fit


@dataclass
class _PooledResizer:
    """A resizer for one frame size with its worker threads; used by one caller at a time."""

    source_size: tuple[int, int]
    fit: Fit
    resizer: native.Resizer
    threads: native.Workers | None = None

    def workers(self, parallel: bool) -> native.Workers | None:
        """Worker threads, started on first use; ``None`` to run in the caller's thread only."""
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
    """Raise :class:`ImageError` for an array of a library other than NumPy."""
    if isinstance(image, np.ndarray) or not hasattr(image, "__dlpack__"):
        return  # check_image reports anything that is not an array
    raise ImageError(
        f"expected a NumPy array, (H, W, 3) or (B, H, W, 3) of dtype uint8, but got a {type(image).__name__}; "
        "use np.from_dlpack(image) (from a GPU: image.cpu(), or infer_device)"
    )


class _Pool:
    """Idle resizers and the process that created them."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.idle: deque[_PooledResizer] = deque()
        self.lock = threading.Lock()


class FrameFitter:
    """Maps frames of any size to one resolution, and depth back. Thread-safe.

    ``parallel`` splits a frame's work among threads, for a caller that waits for it; with inference running
    concurrently it would only compete for CPUs. Results are bit-identical.
    """

    def __init__(self, resolution: tuple[int, int], resampling: Resampling = DEFAULT_RESAMPLING) -> None:
        """``resolution`` is the model's (H, W) in pixels."""
        self._resolution = resolution
        self._resampling = resampling
        self._pool = _Pool()

    def fit(self, image: NDArray[np.uint8], fit: Fit, out: NDArray[np.uint8], *, parallel: bool = True) -> Fitted:
        """Resize an RGB image (H, W, 3), uint8, into ``out``, contiguous and of the model's resolution.

        Raises :class:`ImageError` for an image that is not 8-bit RGB, :class:`UsageError` for an unknown ``fit``.
        """
        check_array(image)
        check_image(image)
        placement = place((image.shape[0], image.shape[1]), self._resolution, fit, self._resampling)
        if placement.source_size == self._resolution or not native.is_available():
            out[...] = fit_image(image, placement)
        else:
            with self._borrowed(placement.source_size, fit) as pooled:
                pooled.resizer.resize(image, out=out, workers=pooled.workers(parallel))
        return Fitted(placement, fit)

    def depth_to_source(
        self, depth: NDArray[np.float32], fitted: Fitted, invalid: float = math.nan, *, parallel: bool = True
    ) -> NDArray[np.float32]:
        """Return depth (H, W), float32, at the frame's resolution: :func:`mvde.runtime.placement.depth_to_source`."""
        placement = fitted.placement
        if placement.source_size == self._resolution or not native.is_available():
            return depth_to_source(depth, placement, invalid)
        with self._borrowed(placement.source_size, fitted.fit) as pooled:
            return pooled.resizer.depth_to_source(depth, invalid_m=invalid, workers=pooled.workers(parallel))

    def close(self) -> None:
        """Free all idle resizers and their threads."""
        idle = self._own_pool().idle
        while idle:
            idle.popleft().close()

    @contextlib.contextmanager
    def _borrowed(self, source_size: tuple[int, int], fit: Fit) -> Iterator[_PooledResizer]:
        """Borrow a resizer for exclusive use."""
        pooled = self._take_idle(source_size, fit)
        if pooled is None:
            resizer = native.Resizer(source_size, self._resolution, fit, resampling=self._resampling)
            pooled = _PooledResizer(source_size, fit, resizer)
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
        """The pool of this process: after a fork, the inherited lock may be held by a thread that no longer exists."""
        if self._pool.process != os.getpid():
            self._pool = _Pool()
        return self._pool


def as_batch(image: Any) -> tuple[Sequence[NDArray[np.uint8]], bool]:
    """Split into single images; also return whether the input was a batch."""
    check_array(image)
    if getattr(image, "ndim", None) != 4:
        check_image(image)
        return [image], False
    if len(image) == 0:
        raise ImageError(f"the batch is empty (shape {image.shape}); expected at least one image")
    return image, True
