"""A GPU as the steps of gpu_acceptance.py use it: memory, both kernels, CUDA graphs and times."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_RUNS, _WARM_UP = 30, 5


class Device:
    """The GPU with one stream and both kernels; tests replace it by one in host memory."""

    def __init__(self) -> None:
        from mvde.cuda.launch import PostprocessKernels, PreprocessKernels
        from mvde.cuda.memory import CudaDevice

        self.cuda = CudaDevice()
        self.stream = self.cuda.create_stream()
        cache = Path(tempfile.mkdtemp(prefix="mvde-cubin-"))  # compiled anew: the cache is not what is tested
        self.kernels = PostprocessKernels(self.cuda.core_device, cache)
        self._preprocess = PreprocessKernels(self.cuda.core_device, cache)

    def put(self, array: Any) -> Any:
        """Copy an array to new device memory."""
        contiguous = np.ascontiguousarray(array)
        pinned = self.cuda.pinned(contiguous.shape, contiguous.dtype)
        np.copyto(pinned.array, contiguous)
        buffer = self.cuda.allocate(contiguous.nbytes, self.stream)
        self.cuda.upload(buffer.address, pinned.array, self.stream)
        self.cuda.synchronize(self.stream)
        return buffer

    def get(self, buffer: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """Copy device memory to a new array, after all work so far."""
        pinned = self.cuda.pinned(shape, dtype)
        self.cuda.download(pinned.array, buffer.address, self.stream)
        self.cuda.synchronize(self.stream)
        return pinned.array.copy()

    def postprocess(self, params: Any, dtype: str) -> None:
        """Enqueue the kernel of depth and statistics."""
        self.kernels.enqueue(params, dtype, self.stream)

    def preprocess(self, params: Any) -> None:
        """Enqueue the kernel of pictures."""
        self._preprocess.enqueue(params, self.stream)

    def copy(self, target: Any, source: Any) -> None:
        """Enqueue a copy within device memory."""
        self.cuda.copy(target.address, source.address, source.size_bytes, self.stream)

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture ``work`` into a CUDA graph; returns what launches it."""
        graph = self.cuda.capture(self.stream, work)
        return lambda: graph.launch(self.stream)

    def time_ms(self, work: Callable[[], None]) -> float:
        """Median device time of ``work`` in milliseconds."""
        for _ in range(_WARM_UP):
            work()
        marks = [self.cuda.time_mark(self.stream)]
        for _ in range(_RUNS):
            work()
            marks.append(self.cuda.time_mark(self.stream))
        self.cuda.synchronize(self.stream)
        return statistics.median(self.cuda.elapsed_ms(a, b) for a, b in itertools.pairwise(marks))
