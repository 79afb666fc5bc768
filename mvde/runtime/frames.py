"""Frames into the model's resolution and depth back to their pixels, by libmvde where it is, else by Pillow.

Both give the same bits (a test holds them to it); libmvde is faster, and writes into the engine's input directly.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde import native
from mvde.runtime.image import Fit, Placement, check_image, depth_to_source, fit_image, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_IDLE = 8  # resizers kept, each with its tables for one size of frame: a few cameras, or a few threads


@dataclass(frozen=True)
class Fitted:
    """How a frame went into the model's input, which is all that the way back needs."""

    placement: Placement
    fit: Fit


class FrameFitter:
    """Both ways between frames of any size and one resolution. Safe to share between threads."""

    def __init__(self, resolution: tuple[int, int]) -> None:
        """``resolution`` is the model's (H, W) in pixels."""
        self._resolution = resolution
        self._idle: deque[tuple[tuple[int, int], Fit, native.Resizer]] = deque()
        self._lock = threading.Lock()

    def fit(self, image: NDArray[np.uint8], fit: Fit, out: NDArray[np.uint8]) -> Fitted:
        """How the RGB image (H, W, 3), uint8, was put into ``out``, of the model's resolution and contiguous.

        Raises :class:`ImageError` for an image that is not 8-bit RGB, :class:`UsageError` for an unknown ``fit``.
        """
        check_image(image)
        placement = place((image.shape[0], image.shape[1]), self._resolution, fit)
        if placement.source_size == self._resolution or not native.is_available():
            out[...] = fit_image(image, placement)
        else:
            with self._resizer(placement.source_size, fit) as resizer:
                resizer.resize(image, out=out)
        return Fitted(placement, fit)

    def depth_to_source(self, depth: NDArray[np.float32], fitted: Fitted) -> NDArray[np.float32]:
        """Depth (H, W), float32, at the frame's own pixels; 0 (invalid) where the model did not see the frame."""
        placement = fitted.placement
        if placement.source_size == self._resolution or not native.is_available():
            return depth_to_source(depth, placement)
        with self._resizer(placement.source_size, fitted.fit) as resizer:
            return resizer.depth_to_source(depth)

    def close(self) -> None:
        """Frees the tables of the frame sizes seen so far."""
        while self._idle:
            self._idle.popleft()[2].close()

    @contextlib.contextmanager
    def _resizer(self, source_size: tuple[int, int], fit: Fit) -> Iterator[native.Resizer]:
        """A resizer that no other thread has."""
        resizer = self._take(source_size, fit) or native.Resizer(source_size, self._resolution, fit)
        try:
            yield resizer
        finally:
            with self._lock:
                self._idle.append((source_size, fit, resizer))
                dropped = self._idle.popleft() if len(self._idle) > _MAX_IDLE else None
            if dropped is not None:
                dropped[2].close()

    def _take(self, source_size: tuple[int, int], fit: Fit) -> native.Resizer | None:
        with self._lock:
            for index, (size, kind, resizer) in enumerate(self._idle):
                if (size, kind) == (source_size, fit):
                    del self._idle[index]
                    return resizer
        return None
