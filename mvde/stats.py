"""Per-patch depth statistics: the NumPy float64 reference, a differentiable torch version, and the native fast path.

A pixel is valid if it is finite, > 0, at most :data:`LARGEST_DEPTH_M` and within ``[min_depth, max_depth]``. Bounds
are first rounded to the dtype of the depth, so that depths clamped to a bound remain valid.

========  =======  ====================================================================================================
column    unit     over the valid pixels of a patch
========  =======  ====================================================================================================
mean      m        mean
var       m²       population variance
grad      m/px     mean of ``sqrt(gx² + gy²)``; central differences over the whole image with replicated borders; a
                   difference that involves an invalid pixel is 0
min, max  m        extremes
valid     1        fraction of valid pixels in the patch
conf      its own  mean of the network's confidence, where it gives one; a value that is not finite counts as 0
========  =======  ====================================================================================================

A patch without a valid pixel has 0 in every column. For relative and inverse depth the same holds in the map's unit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from mvde import native
from mvde.errors import ResolutionError, UsageError
from mvde.vector_math import resolve_vector_math

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

STATS = ("mean", "var", "grad", "min", "max", "valid")
CONFIDENCE = "conf"
INTERVALS = ("lo", "hi", "near")
"""Columns of a calibration with intervals, in metres: ends of an interval for the true mean of a patch, and a bound
below its true nearest point; :mod:`mvde.calibration.interval_columns` computes them from ``mean`` and ``min``."""
DEFAULT_STATS = ("mean", "var", "grad")

LARGEST_DEPTH_M = 1e16
"""Largest valid depth in metres, or in the unit of relative depth: its squares, summed over a patch of up to 1800
pixels a side, are finite in float32 in every implementation."""

_POWERS = {"mean": 1, "var": 2, "grad": 1, "min": 1, "max": 1, "valid": 0, CONFIDENCE: 0}
"""Power of the map's unit in each statistic's."""

# Image rows per step of the NumPy version: its float64 temporaries stay in the L2 cache, twice as fast as
# whole-image temporaries.
_BAND_ROWS = 32


class _Bounds(NamedTuple):
    """Closed interval of valid depths in metres, rounded to the dtype of the depth."""

    lower: float
    upper: float


@overload
def depth_to_patch_stats(
    depth: NDArray[Any],
    patch_size: int,
    stats: Sequence[str] = DEFAULT_STATS,
    *,
    min_depth: float | None = None,
    max_depth: float | None = None,
) -> NDArray[np.float32]: ...


@overload
def depth_to_patch_stats(
    depth: torch.Tensor,
    patch_size: int,
    stats: Sequence[str] = DEFAULT_STATS,
    *,
    min_depth: float | None = None,
    max_depth: float | None = None,
) -> torch.Tensor: ...


def depth_to_patch_stats(
    depth: Any,
    patch_size: int,
    stats: Sequence[str] = DEFAULT_STATS,
    *,
    min_depth: float | None = None,
    max_depth: float | None = None,
) -> Any:
    """Compute statistics of each patch, float32 (B, N, S) in m, m² or m/px, one column per name in ``stats``.

    ``depth`` is (B, H, W), float16, float32 or float64 (torch: also bfloat16), in metres; H and W are multiples of
    ``patch_size``. Patches are in row-major order, like the backbone's tokens. A torch tensor gives a differentiable
    tensor on the same device, an array gives an array. Masked pixels of a masked array are invalid.

    Raises :class:`ResolutionError` if the patches do not tile the image, :class:`UsageError` for an unknown statistic,
    another rank or dtype, or an empty depth interval.
    """
    _check_stats(stats)
    if isinstance(depth, np.ma.MaskedArray):
        depth = depth.filled(0)
    torch_module = sys.modules.get("torch")
    if torch_module is not None and isinstance(depth, torch_module.Tensor):
        _check_tensor(depth)
        _check_patch_grid(depth, patch_size)
        info = torch_module.finfo(depth.dtype)
        limits = torch_module.tensor(
            _check_bounds(min_depth, max_depth), dtype=torch_module.float64, device="cpu"
        ).clamp(0.0, info.max)
        bounds = _Bounds(*limits.to(depth.dtype).tolist())
        return _torch_patch_stats(depth, patch_size, stats, bounds).to(torch_module.float32)
    _check_patch_grid(depth, patch_size)
    if not isinstance(depth, np.ndarray):
        raise UsageError(
            f"depth is a {type(depth).__name__}: expected an array of NumPy or a tensor of torch; "
            "use np.asarray(depth), or np.from_dlpack(depth) or torch.from_dlpack(depth)"
        )
    if depth.dtype not in (np.float16, np.float32, np.float64):
        raise _wrong_dtype(depth.dtype)
    limits = _check_bounds(min_depth, max_depth)
    # libmvde computes in float32; use NumPy for float64 and for more columns.
    if depth.dtype != np.float64 and len(stats) <= native.abi.MAX_STATS and native.is_available():
        return native.patch_stats(depth, patch_size, stats, min_depth=limits[0], max_depth=limits[1])
    return numpy_patch_stats(depth, patch_size, stats, min_depth=min_depth, max_depth=max_depth)


def numpy_patch_stats(
    depth: NDArray[Any],
    patch_size: int,
    stats: Sequence[str] = DEFAULT_STATS,
    *,
    min_depth: float | None = None,
    max_depth: float | None = None,
    confidence: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Reference implementation of :func:`depth_to_patch_stats` in NumPy float64, for validated arguments.

    ``confidence`` (B, H, W), floating point, is that of the column ``conf``.
    """
    limits = np.clip(_check_bounds(min_depth, max_depth), 0.0, np.finfo(depth.dtype).max)
    bounds = _Bounds(*(float(limit) for limit in limits.astype(depth.dtype)))
    batch, height, width = depth.shape
    rows, columns = height // patch_size, width // patch_size
    band_rows = max(1, _BAND_ROWS // patch_size)
    out = np.empty((batch, rows, columns, len(stats)), np.float32)
    with np.errstate(invalid="ignore"):  # NaN and infinite pixels, which are masked below
        for index, (image, image_out) in enumerate(zip(depth, out, strict=True)):
            for row in range(0, rows, band_rows):
                stop = min(row + band_rows, rows)
                padded = _padded_band(image, row * patch_size, stop * patch_size)
                band = slice(row * patch_size, stop * patch_size)
                columns_by_name = _band_stats(
                    padded, patch_size, stats, bounds, None if confidence is None else confidence[index, band]
                )
                for column, name in enumerate(stats):
                    image_out[row:stop, :, column] = columns_by_name[name]
    return out.reshape(batch, rows * columns, len(stats))


def masked_depth(depth: NDArray[Any], mask: NDArray[Any], role: str, threshold: float) -> NDArray[Any]:
    """Depth with the pixels of a mask of the same shape: +inf at sky, NaN where it is not valid.

    A mask of ``role`` ``"sky"`` is sky at ``threshold`` and above, one of ``"mask"`` is valid there; NaN is neither.
    """
    reached = mask >= np.float32(threshold)
    dtype = depth.dtype.type
    masked: NDArray[Any] = (
        np.where(reached, dtype("inf"), depth) if role == "sky" else np.where(reached, depth, dtype("nan"))
    )
    return masked


def scale_stats(stats: NDArray[np.float32], names: Sequence[str], factor: float) -> NDArray[np.float32]:
    """Statistics (..., S) float32 of a map multiplied by ``factor`` > 0, from those of the map, by names of columns."""
    powers = np.array([factor ** _POWERS[name] for name in names], np.float32)
    scaled: NDArray[np.float32] = stats * powers
    return scaled


def check_stats(stats: Sequence[str], has_confidence: bool = False) -> tuple[str, ...]:
    """Columns of statistics as a tuple; raise :class:`UsageError` for an unknown, repeated or missing name.

    ``has_confidence``: the network gives one, so that ``conf`` is among them.
    """
    _check_stats(stats, has_confidence)
    if len(set(stats)) != len(stats):
        raise UsageError(f"stats names a column twice: {', '.join(stats)}; give each once")
    return tuple(stats)


def _padded_band(image: NDArray[Any], start: int, stop: int) -> NDArray[np.float64]:
    """Rows ``start`` to ``stop`` of the image with a one-pixel border, replicated at the edges of the image."""
    height, width = image.shape
    padded = np.empty((stop - start + 2, width + 2))
    padded[1:-1, 1:-1] = image[start:stop]
    padded[0, 1:-1] = image[max(start - 1, 0)]
    padded[-1, 1:-1] = image[min(stop, height - 1)]
    padded[:, 0] = padded[:, 1]
    padded[:, -1] = padded[:, -2]
    return padded


def _band_stats(
    padded: NDArray[np.float64],
    patch_size: int,
    stats: Sequence[str],
    bounds: _Bounds,
    confidence: NDArray[Any] | None,
) -> dict[str, NDArray[np.float64]]:
    """Statistics by name, each (rows, columns), of a band of whole patches with its one-pixel border."""
    valid = (padded > 0) & (padded >= bounds.lower) & (padded <= bounds.upper)
    all_valid = bool(valid.all())  # the usual case for network output, and three times as fast
    depth = padded if all_valid else np.where(valid, padded, 0.0)
    inner, inner_valid = depth[1:-1, 1:-1], valid[1:-1, 1:-1]
    area = float(patch_size * patch_size)
    shape = (inner.shape[0] // patch_size, inner.shape[1] // patch_size)
    num_valid = np.full(shape, area) if all_valid else _patch_sum(inner_valid.astype(np.float64), patch_size)
    divisor = np.maximum(num_valid, 1.0)
    mean = _patch_sum(inner, patch_size) / divisor
    result = {"mean": mean, "valid": num_valid / area}
    if "var" in stats:
        deviation = inner - mean.repeat(patch_size, 0).repeat(patch_size, 1)
        deviation *= deviation
        if not all_valid:
            deviation *= inner_valid
        result["var"] = _patch_sum(deviation, patch_size) / divisor
    if "grad" in stats:
        magnitude = _gradient_magnitude(depth, None if all_valid else valid)
        result["grad"] = _patch_sum(magnitude, patch_size) / divisor
    if "min" in stats:
        lowest = inner if all_valid else np.where(inner_valid, inner, np.inf)
        result["min"] = np.where(num_valid > 0, _patch_reduce(np.minimum, lowest, patch_size), 0.0)
    if "max" in stats:  # invalid pixels are 0 here, below any valid depth
        result["max"] = _patch_reduce(np.maximum, inner, patch_size)
    if confidence is not None:
        known = np.where(inner_valid & np.isfinite(confidence), confidence, 0.0)
        result[CONFIDENCE] = _patch_sum(known.astype(np.float64), patch_size) / divisor
    return result


def _gradient_magnitude(depth: NDArray[np.float64], valid: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """``sqrt(gx² + gy²)`` in m/px inside the border; 0 at invalid pixels. ``valid=None``: all are valid."""
    gx = depth[1:-1, 2:] - depth[1:-1, :-2]
    gy = depth[2:, 1:-1] - depth[:-2, 1:-1]
    if valid is not None:
        gx *= valid[1:-1, 2:] & valid[1:-1, :-2] & valid[1:-1, 1:-1]
        gy *= valid[2:, 1:-1] & valid[:-2, 1:-1] & valid[1:-1, 1:-1]
    gx *= gx
    gy *= gy
    gx += gy
    np.sqrt(gx, out=gx)
    gx *= 0.5
    return gx


def _patch_sum(values: NDArray[np.float64], patch_size: int) -> NDArray[np.float64]:
    return _patch_reduce(np.add, values, patch_size)


def _patch_reduce(ufunc: np.ufunc, values: NDArray[np.float64], patch_size: int) -> NDArray[np.float64]:
    """(H, W) → (H/p, W/p). Reduces rows first: that pass is contiguous and leaves little for the second."""
    height, width = values.shape
    by_rows = ufunc.reduce(values.reshape(height // patch_size, patch_size, width), axis=1)
    reduced: NDArray[np.float64] = ufunc.reduce(by_rows.reshape(height // patch_size, -1, patch_size), axis=2)
    return reduced


def _torch_patch_stats(depth: torch.Tensor, patch_size: int, stats: Sequence[str], bounds: _Bounds) -> torch.Tensor:
    """(B, H, W) → (B, N, S) in float32, or float64 for float64 input; differentiable in ``depth``."""
    import torch

    if not torch.compiler.is_compiling():
        resolve_vector_math()
    if depth.dtype in (torch.float16, torch.bfloat16):
        depth = depth.float()
    valid = (depth > 0) & (depth >= bounds.lower) & (depth <= bounds.upper)
    # Set invalid pixels to 0 before any arithmetic: 0 · NaN in the backward pass would spread over the whole patch.
    depth = torch.where(valid, depth, 0.0)
    patches, mask = _torch_patches(depth, patch_size), _torch_patches(valid, patch_size)  # (B, N, p·p)
    num_valid = mask.sum(-1).to(depth.dtype)
    divisor = num_valid.clamp(min=1.0)
    # Shift by a first estimate of the mean: the remaining sums are small and keep millimetres at an offset of 1e4 m.
    shift = (patches.detach().sum(-1) / divisor).unsqueeze(-1)
    deviation = torch.where(mask, patches - shift, 0.0)
    mean_deviation = deviation.sum(-1) / divisor
    result = {"mean": shift.squeeze(-1) + mean_deviation, "valid": num_valid / patch_size**2}
    if "var" in stats:
        centred = torch.where(mask, deviation - mean_deviation.unsqueeze(-1), 0.0)
        result["var"] = centred.square().sum(-1) / divisor
    if "grad" in stats:
        magnitude = _torch_gradient_magnitude(depth, valid)
        result["grad"] = _torch_patches(magnitude, patch_size).sum(-1) / divisor
    empty = num_valid == 0
    if "min" in stats:
        result["min"] = torch.where(empty, 0.0, torch.where(mask, patches, torch.inf).amin(-1))
    if "max" in stats:
        result["max"] = torch.where(empty, 0.0, torch.where(mask, patches, -torch.inf).amax(-1))
    return torch.stack([result[name] for name in stats], dim=-1)


def _torch_patches(image: torch.Tensor, patch_size: int) -> torch.Tensor:
    """(B, H, W) → (B, N, p·p)."""
    batch, height, width = image.shape
    grid = image.reshape(batch, height // patch_size, patch_size, width // patch_size, patch_size)
    num_patches = (height // patch_size) * (width // patch_size)  # -1 would be ambiguous in an empty batch
    return grid.transpose(2, 3).reshape(batch, num_patches, patch_size * patch_size)


def _torch_gradient_magnitude(depth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """``sqrt(gx² + gy²)`` in m/px, (B, H, W); 0 at invalid pixels; its derivative is 0 where the magnitude is 0."""
    import torch
    from torch.nn import functional

    padded = functional.pad(depth.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    known = functional.pad(valid.to(depth.dtype).unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1) > 0
    gx = torch.where(known[:, 1:-1, 2:] & known[:, 1:-1, :-2], padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], 0.0) / 2
    gy = torch.where(known[:, 2:, 1:-1] & known[:, :-2, 1:-1], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1], 0.0) / 2
    squared = gx.square() + gy.square()
    sloped = (squared > 0) & valid
    return torch.where(sloped, torch.where(sloped, squared, 1.0).sqrt(), 0.0)


def _check_stats(stats: Sequence[str], has_confidence: bool = False) -> None:
    is_sequence = isinstance(stats, Sequence) and not isinstance(stats, str)
    known = (*STATS, CONFIDENCE) if has_confidence else STATS
    if is_sequence and CONFIDENCE in stats and not has_confidence:
        raise UsageError(f"stats has 'conf', which needs a network's confidence: expected some of {', '.join(known)}")
    if is_sequence and (intervals := [name for name in stats if name in INTERVALS]):
        raise UsageError(
            f"stats has {intervals[0]!r}, which needs a calibration with intervals: make one with `mvde calibrate "
            "intervals`, and give it to DepthRuntime.load(calibration=)"
        )
    unknown = [name for name in stats if name not in known] if is_sequence else []
    if not is_sequence or unknown or not stats:
        got = ", ".join(map(repr, unknown)) or repr(stats)
        raise UsageError(
            f"stats has {got}: expected a sequence of names out of {', '.join(known)}; leave it out for "
            f"{', '.join(DEFAULT_STATS)}"
        )


def _check_tensor(depth: torch.Tensor) -> None:
    import torch

    if depth.is_nested or depth.layout is not torch.strided:
        kind = "nested" if depth.is_nested else str(depth.layout).removeprefix("torch.")
        way_out = "torch.stack of its maps" if depth.is_nested else "depth.to_dense()"
        raise UsageError(f"depth is a {kind} tensor: expected a dense one (B, H, W); use {way_out}")
    if depth.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise _wrong_dtype(depth.dtype)


def _check_patch_grid(depth: Any, patch_size: int) -> None:
    shape = tuple(getattr(depth, "shape", ()))
    if len(shape) != 3 or not hasattr(depth, "dtype"):
        got = f"shape {shape}" if hasattr(depth, "dtype") else f"a {type(depth).__name__}"
        raise UsageError(
            f"depth has {got}: expected an array or tensor (B, H, W) in metres; use depth[None] for a single map"
        )
    if isinstance(patch_size, bool) or not isinstance(patch_size, int | np.integer) or patch_size < 1:
        raise UsageError(f"patch_size is {patch_size!r}: expected a positive integer, such as 14 or 16")
    height, width = shape[1:]
    if height < patch_size or width < patch_size or height % patch_size or width % patch_size:
        nearest = " and ".join(f"{name} {_nearest(size, patch_size)}" for name, size in (("H", height), ("W", width)))
        raise ResolutionError(
            f"depth is {height}x{width} (HxW), which patches of {patch_size}x{patch_size} do not tile: "
            f"the nearest sizes that fit are {nearest}"
        )


def _nearest(size: int, patch_size: int) -> str:
    below = size // patch_size * patch_size
    if below == size > 0:
        return str(size)
    return f"{below} or {below + patch_size}" if below else str(patch_size)


def _check_bounds(min_depth: float | None, max_depth: float | None) -> tuple[float, float]:
    try:
        lower = 0.0 if min_depth is None else float(min_depth)
        upper = float("inf") if max_depth is None else float(max_depth)
    except (TypeError, ValueError):
        lower, upper = float("nan"), float("nan")
    upper = min(upper, LARGEST_DEPTH_M)  # NaN stays NaN, which is rejected below
    if not 0.0 <= lower < upper:
        raise UsageError(
            f"min_depth {min_depth} and max_depth {max_depth}: expected 0 <= min_depth < max_depth, in metres, with "
            f"min_depth below {LARGEST_DEPTH_M:g}"
        )
    return lower, upper


def _wrong_dtype(dtype: object) -> UsageError:
    return UsageError(
        f"depth has dtype {dtype}: expected floating-point metres in float16, float32 or float64 (torch: bfloat16 too)"
        "; use depth.astype('float32') (torch: depth.float()), and divide integer millimetres by 1000"
    )
