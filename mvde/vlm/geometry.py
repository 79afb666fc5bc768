"""Which pixel of a picture each value that a vision tower sees comes from, by replaying the model's image processor.

A vision-language model resizes, crops, pads and tiles a picture in a way of its own. Instead of describing each way
once more, three pictures take the place of the real one in the very call that the processor made, with
nearest-neighbour resampling and without normalisation. The colours of two are coordinates, the third is noise::

    rows       (row // 256, row % 256, picture % 128)
    columns    (column // 256, column % 256, picture // 128 + 128)

Their third channel tells pixels of a picture from what the processor filled in: a constant has the same value in both,
and cannot be below 128 and above 127. All image processors work on whole rows and columns, so what comes out must be
the product of one list of rows and one list of columns, and the noise must be found where they say, pixel by pixel. A
processor that blends pixels, or an unknown arrangement of patches, is refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SIDE = 1 << 16
"""Two bytes hold a coordinate."""
MAX_PICTURES = 1 << 14
"""Seven bits in each of the two pictures number the pictures of one call."""

_REAL = 128
_REPLAY = {"do_rescale": False, "do_normalize": False, "resample": 0, "return_tensors": "pt"}
_PATCH_KEYS = ("encoder_patch_size", "patch_size")  # of LFM2-VL, of the others
_WAY_OUT = "compute depth_stats yourself for this processor, one row per patch that its tower sees"


@dataclass(frozen=True)
class TracedMap:
    """Where one map of pixels comes from that a tower sees as one picture: a picture, a crop or a tile of it.

    ``picture`` is the number of the picture in the call, -1 for a tile that is only padding; ``rows`` (H,) and
    ``columns`` (W,), int32, are the source pixels of the map's rows and columns, -1 where the processor padded.
    """

    picture: int
    rows: NDArray[np.int32]
    columns: NDArray[np.int32]

    @property
    def size(self) -> tuple[int, int]:
        """Size (H, W) of the map in pixels of the tower's input."""
        return len(self.rows), len(self.columns)

    def sampled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (H, W) float32 of a map over the source picture, NaN where the processor padded."""
        inside = np.ix_(np.maximum(self.rows, 0), np.maximum(self.columns, 0))
        sampled: NDArray[np.float32] = values[inside].astype(np.float32)
        sampled[self.rows < 0] = np.nan
        sampled[:, self.columns < 0] = np.nan
        return sampled


class Arrangement(str, Enum):
    """How ``pixel_values`` hold what the tower sees."""

    TILES = "tiles"
    """Pictures, crops or tiles, (tiles, 3, H, W), or (images, tiles, 3, H, W) with empty ones at the end."""
    CROPPED = "cropped"
    """Padded to one size, of which the tower sees each picture's own corner (Pixtral)."""
    FLAT_PATCHES = "flat patches"
    """Patches of all pictures, one after the other (Qwen2-VL and its relatives)."""
    PADDED_PATCHES = "padded patches"
    """Patches of each picture, padded to one number (SigLIP 2 NaFlex)."""


@dataclass(frozen=True)
class Geometry:
    """Maps that a tower sees in one call, in its order, and how their patches become rows of the statistics.

    ``orders`` holds for each map the raster index of the patch that each row belongs to. ``num_rows`` is the number of
    rows that a picture's patches are padded to, ``None`` without padding. ``shape`` is that of ``pixel_values``.
    """

    arrangement: Arrangement
    patch_size: int
    maps: tuple[TracedMap, ...]
    orders: tuple[NDArray[np.intp], ...]
    shape: tuple[int, ...]
    num_rows: int | None = None


def trace(image_processor: Any, images: Any, options: Mapping[str, Any], patch_size: int | None) -> Geometry:
    """Trace what ``image_processor(images, **options)`` does with pictures of these sizes.

    ``images`` is the argument of the call, a picture or nested lists of pictures (of Pillow, or arrays (H, W, 3)); its
    contents are not read. ``patch_size`` is that of the tower, for processors that do not cut patches themselves.

    Raises :class:`UsageError` for a processor whose geometry cannot be replayed, or pictures that are too large.
    """
    name = type(image_processor).__name__
    probes = [_probe(number, size_of(image)) for number, image in enumerate(leaves(images))]
    nearest = copy.copy(image_processor)
    nearest.resample = _REPLAY["resample"]  # DeepSeek-VL's takes a 0 of the call for no value, and its own instead
    outputs = []
    for pictures in zip(*probes, strict=True):
        try:
            outputs.append(nearest(_replaced(images, iter(pictures)), **{**options, **_REPLAY}))
        except Exception as error:  # any of the libraries below it
            raise UsageError(
                f"{name} cannot be replayed with nearest-neighbour resampling ({type(error).__name__}: {error}); "
                f"{_WAY_OUT}"
            ) from error
    return _Reader(name, [probe[-1] for probe in probes]).read(image_processor, options, outputs, patch_size)


def _probe(number: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Three pictures (H, W, 3) uint8 in place of the picture of this ``number``: rows, columns and noise."""
    if max(size) > MAX_SIDE or number >= MAX_PICTURES:
        raise UsageError(
            f"picture {number} has {size[0]}x{size[1]} pixels, but at most {MAX_SIDE} a side and {MAX_PICTURES} "
            "pictures in a call can be traced; resize it, or split the batch"
        )
    by_row, by_column = np.empty((*size, 3), np.uint8), np.empty((*size, 3), np.uint8)
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])[None]
    by_row[..., 0], by_row[..., 1], by_row[..., 2] = rows >> 8, rows & 255, number % _REAL
    by_column[..., 0], by_column[..., 1], by_column[..., 2] = columns >> 8, columns & 255, number // _REAL + _REAL
    return by_row, by_column, np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def leaves(images: Any) -> list[Any]:
    """Pictures of nested lists, in order."""
    if isinstance(images, (list, tuple)):
        return [leaf for inner in images for leaf in leaves(inner)]
    return [images]


def size_of(image: Any) -> tuple[int, int]:
    """Size (H, W) of a picture of Pillow or an array (H, W, 3)."""
    if isinstance(image, np.ndarray):
        return int(image.shape[0]), int(image.shape[1])
    return int(image.height), int(image.width)


def nested_sizes(images: Any) -> Any:
    """Sizes (H, W) of pictures in the same nesting, as tuples: what a geometry depends on."""
    if isinstance(images, (list, tuple)):
        return ("nest", *(nested_sizes(inner) for inner in images))
    return size_of(images)


def _replaced(images: Any, pictures: Iterator[NDArray[np.uint8]]) -> Any:
    """Nested lists with the next of ``pictures`` in place of each picture, of the same type."""
    if isinstance(images, (list, tuple)):
        return [_replaced(inner, pictures) for inner in images]
    if isinstance(images, np.ndarray):
        return next(pictures)
    from PIL import Image

    return Image.fromarray(next(pictures))


@dataclass(frozen=True)
class _Reader:
    """Reads the outputs of a replay; ``noise`` are the third pictures (H, W, 3), by number."""

    name: str
    noise: Sequence[NDArray[np.uint8]]

    def read(
        self, image_processor: Any, options: Mapping[str, Any], outputs: Sequence[Any], patch_size: int | None
    ) -> Geometry:
        """Geometry of the outputs of the three replays."""
        output = outputs[0]
        if "pixel_values" not in output:
            raise UsageError(f"{self.name} gives {', '.join(output)}, and no pixel_values; {_WAY_OUT}")
        values = np.stack([_as_array(one["pixel_values"]) for one in outputs])
        is_cut = "image_grid_thw" in output or "spatial_shapes" in output
        own = next(
            (_option(key, image_processor, options) for key in _PATCH_KEYS if hasattr(image_processor, key)), None
        )
        patch = self._patch_size(own, is_cut, patch_size)
        if "image_grid_thw" in output:
            merge = int(_option("merge_size", image_processor, options) or 1)
            return self._flat_patches(values, _sizes(output, "image_grid_thw"), patch, merge)
        if "spatial_shapes" in output:
            return self._padded_patches(values, _sizes(output, "spatial_shapes"), patch)
        if values.ndim not in (5, 6) or values.shape[-3] != 3:
            raise UsageError(
                f"{self.name} gives pixel_values of {values.shape[1:]}, which are neither tiles (…, 3, H, W) nor "
                f"patches with image_grid_thw or spatial_shapes; {_WAY_OUT}"
            )
        pixels = np.moveaxis(values, -3, -1)
        tiles = list(np.moveaxis(pixels.reshape(len(pixels), -1, *pixels.shape[-3:]), 1, 0))
        if values.ndim == 6 or "image_sizes" not in output:
            return self._tiles(Arrangement.TILES, tiles, patch, values)
        own = [tile[:, : size[0], : size[1]] for tile, size in zip(tiles, _sizes(output, "image_sizes"), strict=True)]
        return self._tiles(Arrangement.CROPPED, own, patch, values)

    def _patch_size(self, own: Any, is_cut: bool, given: int | None) -> int:
        """Side of the tower's patches: the processor's own if it cuts them, else the given one."""
        if given is None and not (is_cut and own is not None):
            raise UsageError(
                f"{self.name} does not say how large the patches of the tower are; give patch_size, that of the "
                "model's vision_config"
            )
        side = _side(own if is_cut and own is not None else given)
        if given not in (None, side):
            raise UsageError(f"{self.name} cuts patches of {side} pixels, but patch_size is {given}; leave it out")
        return side

    def _tiles(
        self, arrangement: Arrangement, tiles: Sequence[NDArray[np.float32]], patch: int, values: NDArray[np.float32]
    ) -> Geometry:
        """Geometry of whole pictures, crops or tiles (3 replays, H, W, 3)."""
        maps = tuple(self._decoded(*tile) for tile in tiles)
        orders = tuple(np.arange((one.size[0] // patch) * (one.size[1] // patch)) for one in maps)
        return Geometry(arrangement, patch, maps, orders, values.shape[1:])

    def _flat_patches(
        self, values: NDArray[np.float32], grids: Sequence[tuple[int, ...]], patch: int, merge: int
    ) -> Geometry:
        """Geometry of patches of pictures one after the other, blocks of ``merge`` x ``merge`` together."""
        joined, start = [], 0
        for grid in grids:
            stop = start + math.prod(grid)
            joined.append(self._joined(values[:, start:stop], (grid[-2], grid[-1]), patch, (merge, 1)))
            start = stop
        maps, orders = zip(*joined, strict=True)
        return Geometry(Arrangement.FLAT_PATCHES, patch, maps, orders, values.shape[1:])

    def _padded_patches(self, values: NDArray[np.float32], grids: Sequence[tuple[int, ...]], patch: int) -> Geometry:
        """Geometry of patches in raster order, of which each picture fills the first ones."""
        joined = [
            self._joined(values[:, image, : math.prod(grid)], (grid[0], grid[1]), patch, (1,))
            for image, grid in enumerate(grids)
        ]
        maps, orders = zip(*joined, strict=True)
        return Geometry(Arrangement.PADDED_PATCHES, patch, maps, orders, values.shape[1:], num_rows=values.shape[2])

    def _joined(
        self, patches: NDArray[np.float32], grid: tuple[int, int], patch: int, merges: Sequence[int]
    ) -> tuple[TracedMap, NDArray[np.intp]]:
        """Map that patches (3 replays, N, …) of a ``grid`` were cut from, and the raster index of each of them.

        Processors put the channel first or last, and patches in blocks or in raster order: the arrangement that gives
        the noise back is the right one.
        """
        problem = UsageError(f"{self.name} gives a grid of {grid} patches in blocks of {merges[0]}; {_WAY_OUT}")
        for merge in merges:
            if grid[0] % merge or grid[1] % merge:
                continue
            order = _block_order(grid, merge)
            for channels_first in (True, False):
                try:
                    replays = [_picture_of(one, order, grid, patch, channels_first) for one in patches]
                    return self._decoded(*replays), order
                except UsageError as error:
                    problem = error
        raise problem

    def _decoded(
        self, by_row: NDArray[np.float32], by_column: NDArray[np.float32], noise: NDArray[np.float32]
    ) -> TracedMap:
        """Map of the replays (H, W, 3) each. Raises :class:`UsageError` if the noise is not where it says."""
        real = _is_real(by_row, by_column)
        in_rows, in_columns = np.asarray(real.any(1)), np.asarray(real.any(0))
        if not in_rows.any():
            return TracedMap(-1, np.full(len(in_rows), -1, np.int32), np.full(len(in_columns), -1, np.int32))
        top, left = int(in_rows.argmax()), int(in_columns.argmax())
        rows = np.where(in_rows, by_row[:, left, 0] * 256 + by_row[:, left, 1], -1).astype(np.int32)
        columns = np.where(in_columns, by_column[top, :, 0] * 256 + by_column[top, :, 1], -1).astype(np.int32)
        number = int(by_row[top, left, 2] + (by_column[top, left, 2] - _REAL) * _REAL)
        traced = TracedMap(number, rows, columns)
        if not (np.array_equal(real, in_rows[:, None] & in_columns) and self._finds(traced, noise)):
            raise UsageError(
                f"{self.name} does not give each pixel of a picture as it was when it is asked for nearest-neighbour "
                f"resampling, so its geometry cannot be replayed; {_WAY_OUT}"
            )
        return traced

    def _finds(self, traced: TracedMap, noise: NDArray[np.float32]) -> bool:
        """Whether each pixel of the replayed ``noise`` (H, W, 3) is the one that the map names."""
        if traced.picture >= len(self.noise):
            return False
        source, rows, columns = self.noise[traced.picture], traced.rows, traced.columns
        if rows.max() >= source.shape[0] or columns.max() >= source.shape[1]:
            return False
        is_real = np.ix_(rows >= 0, columns >= 0)
        return np.array_equal(noise[is_real], source[np.ix_(rows[rows >= 0], columns[columns >= 0])])


def _as_array(values: Any) -> NDArray[np.float32]:
    """Tensor or array as float32; the coordinates, at most 255, are exact in bfloat16."""
    return np.asarray(values.float() if hasattr(values, "float") else values, dtype=np.float32)


def _sizes(output: Mapping[str, Any], key: str) -> list[tuple[int, ...]]:
    """Rows of a table of sizes as tuples."""
    return [tuple(map(int, row)) for row in np.asarray(output[key])]


def _option(key: str, image_processor: Any, options: Mapping[str, Any]) -> Any:
    """Value of an option in a call: of the call, or the processor's own."""
    given = options.get(key)
    return getattr(image_processor, key, None) if given is None else given


def _side(patch_size: Any) -> int:
    """Side of a patch that is stated as a number, or as height and width."""
    if isinstance(patch_size, Mapping):
        patch_size = (patch_size["height"], patch_size["width"])
    sides = set(patch_size) if isinstance(patch_size, (list, tuple)) else {patch_size}
    if len(sides) != 1:
        raise UsageError(f"patches of {tuple(patch_size)} pixels are not square; {_WAY_OUT}")
    return int(sides.pop())


def _is_real(by_row: NDArray[np.float32], by_column: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (H, W) of the replays (H, W, 3) that come from a picture."""
    real: NDArray[np.bool_] = (by_row[..., 2] < _REAL) & (by_column[..., 2] >= _REAL)
    return real


def _block_order(grid: tuple[int, int], merge: int) -> NDArray[np.intp]:
    """Raster index of each patch in an order that keeps blocks of ``merge`` x ``merge`` patches together."""
    raster = np.arange(grid[0] * grid[1]).reshape(grid[0] // merge, merge, grid[1] // merge, merge)
    return raster.transpose(0, 2, 1, 3).reshape(-1)


def _picture_of(
    patches: NDArray[np.float32], order: NDArray[np.intp], grid: tuple[int, int], patch: int, channels_first: bool
) -> NDArray[np.float32]:
    """Picture (H, W, 3) of patches (N, …); those of several frames hold copies of one."""
    patches = patches.reshape(len(patches), -1)
    if patches.shape[1] % (3 * patch * patch):
        raise UsageError(
            f"patches of {patch} pixels a side have {3 * patch * patch} values a frame, but got {patches.shape[1]}; "
            f"{_WAY_OUT}"
        )
    raster = np.empty_like(patches)
    raster[order] = patches
    if channels_first:  # (channel, frame, row, column)
        pixels = np.moveaxis(raster.reshape(len(raster), 3, -1, patch, patch)[:, :, 0], 1, -1)
    else:  # (frame, row, column, channel)
        pixels = raster.reshape(len(raster), -1, patch, patch, 3)[:, 0]
    joined = pixels.reshape(*grid, patch, patch, 3).transpose(0, 2, 1, 3, 4)
    return joined.reshape(grid[0] * patch, grid[1] * patch, 3)
