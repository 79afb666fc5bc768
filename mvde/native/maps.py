"""Arrays (B, H, W) as maps of the C interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import UsageError
from mvde.native import abi

if TYPE_CHECKING:
    from numpy.typing import NDArray


def companion(array: NDArray[Any] | None, name: str, shape: tuple[int, ...]) -> tuple[NDArray[Any], abi.CMap] | None:
    """Return the array, which must outlive the call, and its map; None without one."""
    if array is None:
        return None
    if array.shape != shape:
        raise UsageError(f"{name} has shape {array.shape}: expected that of raw, {shape}")
    kept = readable(array)
    return kept, map_of(kept, name_of(kept.dtype))


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, or a copy if the C interface cannot read it: misaligned or broadcast."""
    if array.ndim != 3:
        raise UsageError(f"got an array of shape {array.shape}: expected (B, H, W)")
    # An axis of length 1 may have stride 0 too; copying is then unnecessary but cheap, and rare.
    return array if array.flags.aligned and 0 not in array.strides else array.copy()


def address(array: NDArray[Any]) -> int:
    """Return the address of the first element."""
    # array.ctypes.data creates an object, which would be half the cost of a small call.
    first: int = array.__array_interface__["data"][0]
    return first


# dtype.name builds its string on every access, which takes longer than the C call.
_DTYPE_NAMES = {np.dtype(name): name for name in ("float32", "float16", "uint16")}


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype, such as ``"float32"``."""
    return _DTYPE_NAMES.get(dtype) or dtype.name


def map_of(array: NDArray[Any], dtype: str) -> abi.CMap:
    """Return the C view of an array (B, H, W) with elements of ``dtype``."""
    # Stride 0, possible for an axis of length 1, means "dense" in C, which is equivalent here.
    return abi.CMap(address(array), enum(abi.DTYPES, dtype, "dtype"), 0, *array.shape, *array.strides)


def enum(values: dict[str, int], name: str, argument: str) -> int:
    """Return the value of ``name``; raise :class:`UsageError` that lists the names otherwise."""
    if name not in values:
        raise UsageError(f"{argument} is {name!r}: expected one of {', '.join(values)}")
    return values[name]
