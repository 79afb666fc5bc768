"""Ordered rendering of numbered scenes in a pool of child processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mvde.datasets.synth.builder import FloatArray
from mvde.datasets.synth.clip_renderer import ClipRenderer, RenderedClip
from mvde.datasets.synth.develop import develop
from mvde.datasets.synth.filming import Filming
from mvde.datasets.synth.renderer import Renderer
from mvde.datasets.synth.scene import Scene, build_scene
from mvde.datasets.synth.textures import build_textures
from mvde.datasets.synth.views import is_good_view, sample_view
from mvde.errors import BackendError

VIEWS_PER_SCENE = 8
MAX_DEPTH_M = 10.0
_MAX_TRIES = 40

T = TypeVar("T")

# RGB uint8 (n, H, W, 3), depth in millimetres uint16 (n, H, W), intrinsics float32 (n, 4).
SceneFrames: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], FloatArray]
RenderedFrame: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16], FloatArray]


class FrameRenderer:
    """Renderer of scenes by number, as uint8 pictures and millimetre depth; holds one OpenGL context."""

    def __init__(self, stream: tuple[int, int], size: tuple[int, int]) -> None:
        """Create a context for frames of ``size`` (height, width); ``stream`` seeds the random numbers."""
        self._stream = stream
        self._size = size
        self._textures = build_textures()
        self._renderer = Renderer(self._textures, size)

    def scene(self, number: int) -> SceneFrames:
        """Return the eight frames of a scene: RGB, depth in millimetres, intrinsics."""
        # A scene without enough good views is replaced by the next of the same number's random stream.
        for attempt in range(_MAX_TRIES):
            key = (*self._stream, number, attempt)
            self._renderer.set_scene(scene := build_scene(np.random.default_rng(key), self._textures.groups))
            frames = []
            for view_number in range(VIEWS_PER_SCENE):
                frame = self._frame(scene, np.random.default_rng((*key, view_number)))
                if frame is None:
                    break
                frames.append(frame)
            else:
                rgb, depth_mm, intrinsics = (np.stack(part) for part in zip(*frames, strict=True))
                return rgb, depth_mm, intrinsics
        raise BackendError(
            f"scene {number} of seed {self._stream[0]} has no good view after {_MAX_TRIES} tries; use another seed"
        )

    def _frame(self, scene: Scene, rng: np.random.Generator) -> RenderedFrame | None:
        for _ in range(_MAX_TRIES):
            view = sample_view(rng, scene)
            if is_good_view(self._renderer.probe(view)):
                linear, depth_m = self._renderer.render(view)
                return develop(linear, rng), millimetres_from_metres(depth_m), view.intrinsics(self._size)
        return None


def millimetres_from_metres(depth_m: FloatArray) -> npt.NDArray[np.uint16]:
    """Convert depth to whole millimetres, uint16, with 0 (unknown) beyond 10 m."""
    valid = (depth_m > 0.0) & (depth_m <= MAX_DEPTH_M)
    return np.where(valid, np.round(depth_m * 1000.0), 0.0).astype(np.uint16)


_worker: Callable[[int], Any] | None = None


def _start_worker(make: Callable[[], Callable[[int], Any]]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which stops the workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker = make()


def _exit_with_parent() -> None:
    """Exit when the parent is killed; the worker would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _render(number: int) -> Any:
    assert _worker is not None
    return _worker(number)


def _scene_renderer(stream: tuple[int, int], size: tuple[int, int]) -> Callable[[int], SceneFrames]:
    return FrameRenderer(stream, size).scene


def _clip_renderer(stream: tuple[int, int], filming: Filming) -> Callable[[int], RenderedClip]:
    return ClipRenderer(stream, filming).clip


@contextmanager
def _single_threaded_llvmpipe() -> Iterator[None]:
    """Disable llvmpipe's threads in child processes, where they would oversubscribe the cores."""
    previous = os.environ.get("LP_NUM_THREADS")
    os.environ["LP_NUM_THREADS"] = "0"
    try:
        yield
    finally:
        if previous is None:
            del os.environ["LP_NUM_THREADS"]
        else:
            os.environ["LP_NUM_THREADS"] = previous


def render_scenes(
    stream: tuple[int, int], size: tuple[int, int], numbers: Iterable[int], num_workers: int
) -> Generator[SceneFrames, None, None]:
    """Yield each scene's frames, in the order of ``numbers``, rendered by ``num_workers`` processes.

    Raises BackendError if a worker dies or OpenGL is unavailable.
    """
    return _rendered(partial(_scene_renderer, stream, size), numbers, num_workers, 4 * num_workers)


def render_clips(
    stream: tuple[int, int], filming: Filming, numbers: Iterable[int], num_workers: int
) -> Generator[RenderedClip, None, None]:
    """Yield the clips of ``numbers`` in order; otherwise as :func:`render_scenes`."""
    return _rendered(partial(_clip_renderer, stream, filming), numbers, num_workers, num_workers + 1)


def _rendered(
    make: Callable[[], Callable[[int], T]], numbers: Iterable[int], num_workers: int, most_pending: int
) -> Generator[T, None, None]:
    """Yield what the renderers that ``make`` starts return for each number; ``most_pending`` bounds the memory."""
    context = multiprocessing.get_context("spawn")  # an OpenGL context does not survive a fork
    with _single_threaded_llvmpipe():
        pool = ProcessPoolExecutor(num_workers, context, _start_worker, (make,))
        pending: deque[Future[T]] = deque()
        try:
            for number in numbers:
                pending.append(pool.submit(_render, number))
                if len(pending) >= most_pending:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise BackendError(
                "a rendering process ended early (killed, out of memory, or without OpenGL);"
                " run the same command again to resume"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
