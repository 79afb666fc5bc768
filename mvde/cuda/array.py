"""Arrays in device memory, exchanged through DLPack and ``__cuda_array_interface__``."""

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
    """Non-owning view of device memory: address, shape, strides in elements (``None``: dense), dtype."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: str


@dataclass(frozen=True)
class DeviceArray:
    """A dense result in device memory, for zero-copy use by ``torch.from_dlpack``, ``cupy.asarray`` and others.

    It is complete once the work on its stream is. ``__cuda_array_interface__`` exposes that stream; with DLPack the
    consumer's stream waits for it. The memory lives as long as this object or any consumer. ``make_wait`` makes the
    stream with a given handle wait for the result.
    """

    buffer: DeviceBuffer
    shape: tuple[int, ...]
    stream_handle: int
    dtype: str = "float32"
    make_wait: Callable[[int], None] | None = None

    @property
    def address(self) -> int:
        """Device address of the first element."""
        return self.buffer.address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Protocol version 3 (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html)."""
        return {
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": self.stream_handle or 1,  # 0 is not allowed; 1 is the default stream
        }

    def __dlpack__(self, *, stream: int | None = None, **arguments: Any) -> Any:
        """DLPack capsule; the consumer's ``stream`` waits for the result (``None``: default stream; -1: no wait)."""
        self.wait_on(stream)
        return self._view().__dlpack__(stream=-1, **arguments)

    def wait_on(self, stream: int | None) -> None:
        """Make a stream wait for the result, in DLPack's numbering: 1 and 2 are CUDA's default streams."""
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
    """Create a view of an array with ``__dlpack__`` or ``__cuda_array_interface__`` for use on a stream.

    ``stream_handle`` waits for the array's own stream. Raises :class:`UsageError` for anything else, or for an array
    that the GPU cannot access.
    """
    if not (hasattr(array, "__dlpack__") or hasattr(array, "__cuda_array_interface__")):
        raise UsageError(
            f"got a {type(array).__name__}; expected an array in device memory with __dlpack__ or "
            "__cuda_array_interface__ (use infer for NumPy arrays)"
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
    """Raise :class:`UsageError` stating the strides unless the view is contiguous."""
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
