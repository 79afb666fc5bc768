"""Arrays in device memory: what others hand in, and what results are handed out as, by both protocols there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from mvde.cuda.memory import DeviceBuffer


@dataclass(frozen=True)
class DeviceView:
    """Somebody else's array in device memory: address, shape, strides in elements (``None``: dense), dtype."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: str


@dataclass(frozen=True)
class DeviceArray:
    """A dense result in device memory. ``torch.from_dlpack``, ``cupy.asarray`` and others take it without a copy.

    It is complete when the work of the stream it was made on is; that stream is told to whoever asks through
    ``__cuda_array_interface__``, and a consumer's stream is made to wait for it through DLPack. The memory lives as
    long as this object or a consumer of it. ``make_wait`` makes the stream of a handle wait for the result.
    """

    buffer: DeviceBuffer
    shape: tuple[int, ...]
    stream_handle: int
    dtype: str = "float32"
    make_wait: Callable[[int], None] | None = None

    @property
    def address(self) -> int:
        """Address of the first element."""
        return self.buffer.address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the protocol (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html)."""
        return {
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": self.stream_handle or 1,  # 0 is not allowed; 1 is the default stream
        }

    def __dlpack__(self, *, stream: int | None = None, **arguments: Any) -> Any:
        """Capsule of DLPack; the consumer's ``stream`` waits for the result (``None``: the default; -1: no wait)."""
        self.wait_on(stream)
        return self._view().__dlpack__(stream=-1, **arguments)

    def wait_on(self, stream: int | None) -> None:
        """Make a stream wait for the result: DLPack's numbers, 1 and 2 being CUDA's two default streams."""
        handle = 1 if stream is None else stream
        if self.make_wait is not None and handle not in (-1, self.stream_handle):
            self.make_wait(handle)

    def __dlpack_device__(self) -> tuple[int, int]:
        """(2, 0): CUDA, the first device."""
        kind, index = self._view().__dlpack_device__()
        return int(kind), int(index)

    def _view(self) -> Any:
        return _views().from_buffer(self.buffer.owner, self.shape, dtype=np.dtype(self.dtype))


def view_of(array: Any, stream_handle: int) -> DeviceView:
    """View of an array that has ``__dlpack__`` or ``__cuda_array_interface__``, ready for work on the stream.

    The array's own stream is made to precede ``stream_handle``. Raises :class:`UsageError` for anything else, or for
    an array that the GPU cannot reach.
    """
    if not (hasattr(array, "__dlpack__") or hasattr(array, "__cuda_array_interface__")):
        raise UsageError(
            f"got a {type(array).__name__}; expected an array in device memory with __dlpack__ or "
            "__cuda_array_interface__ (use infer for arrays of NumPy)"
        )
    try:
        found = _views().from_any_interface(array, stream_ptr=stream_handle)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"cannot use the {type(array).__name__} as a device array: {error}") from error
    if not found.is_device_accessible:
        raise UsageError(f"the {type(array).__name__} is not in device memory; use infer, or move it to the GPU")
    strides = None if found.strides is None else tuple(found.strides)
    return DeviceView(int(found.ptr), tuple(found.shape), strides, str(found.dtype))


def check_dense(view: DeviceView) -> None:
    """Raise :class:`UsageError`, naming the strides, unless the view's elements follow each other."""
    if view.strides is None:
        return
    dense = tuple(int(np.prod(view.shape[axis + 1 :])) for axis in range(len(view.shape)))
    differing = [a != b for a, b, size in zip(view.strides, dense, view.shape, strict=True) if size != 1]
    if any(differing):
        raise UsageError(f"the array has strides {view.strides}; expected a contiguous one, with strides {dense}")


def _views() -> Any:
    try:
        from cuda.core.utils import StridedMemoryView
    except ImportError as error:
        raise MissingDependencyError.for_extra("cuda-core", "cuda", "arrays in device memory") from error
    return StridedMemoryView
