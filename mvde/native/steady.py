"""Binding to libmvde's stabilizer: steady depth, bit-identical to :mod:`mvde.runtime.stabilize`."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import UsageError
from mvde.native import _check, _Handle, abi
from mvde.native.maps import address

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray


class Stabilizer(_Handle):
    """State of one stream of frames; not thread-safe."""

    def __init__(self, kind: str, settings: Sequence[float]) -> None:
        """``kind`` is a :class:`mvde.contract.DepthKind`.

        ``settings`` are those of :class:`mvde.runtime.stabilize.Stabilization`, in its order.
        """
        chosen = abi.CStabilization(ctypes.sizeof(abi.CStabilization), *settings)
        super().__init__("mvde_stabilizer_create", "mvde_stabilizer_destroy", abi.DEPTH_KINDS[kind], chosen)
        self.num_frames = 0
        self._view: Hashable = None
        self._num_views = 0

    def reset(self) -> None:
        """Forget the past: the next frame begins anew."""
        _check(self._library, self._library.mvde_stabilizer_reset(self.handle))
        self.num_frames = 0

    def update(
        self,
        picture: NDArray[np.uint8],
        depth: NDArray[np.float32],
        *,
        view: Hashable = None,
        time_s: float | None = None,
    ) -> NDArray[np.float32]:
        """Return the steady map (H, W) float32 of the next frame, as :meth:`mvde.runtime.stabilize.Stabilizer.update`.

        ``picture`` (H', W', 3), uint8 RGB, and ``depth`` (H, W), float32, are of these types.

        Raises :class:`UsageError` for a time that is not after the one before.
        """
        if time_s is not None and not math.isfinite(time_s):  # to libmvde, NaN is a time that is not known
            raise UsageError(f"a frame has the time {time_s}; expected seconds, or None where it is not known")
        if view != self._view:
            self._view, self._num_views = view, self._num_views + 1
        is_dense = picture.strides[1:] == (3, 1) and picture.strides[0] >= 3 * picture.shape[1]
        image = picture if is_dense else np.ascontiguousarray(picture)
        source = np.ascontiguousarray(depth)
        out, back = np.empty_like(source), ctypes.c_int32()
        frame = abi.CSteadyFrame(
            ctypes.sizeof(abi.CSteadyFrame),
            0,
            address(image),
            *image.shape[:2],
            image.strides[0],
            address(source),
            *source.shape,
            0,
            self._num_views,
            math.nan if time_s is None else time_s,
        )
        _check(self._library, self._library.mvde_stabilize(self.handle, frame, address(out), 0, ctypes.byref(back)))
        self.num_frames = back.value
        return out
