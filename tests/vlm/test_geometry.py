"""Replay of image processors: each row belongs to its patch, for every arrangement and both of transformers' backends.

The expected values come from the pixels themselves: a picture whose colours are ramps goes through the processor as it
is, with its own resampling and normalisation, and the mean colour of each patch must be that of its row.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import transformers
from numpy.typing import NDArray
from PIL import Image

from mvde.errors import UsageError
from mvde.vlm.geometry import MAX_SIDE, Arrangement, trace
from mvde.vlm.rows import PictureDepth, depth_rows

MEAN_STD = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]}
SQUARE = {"height": 96, "width": 96}
PINPOINTS = [[96, 192], [192, 96], [192, 192], [96, 288]]


@dataclass(frozen=True)
class Case:
    """An image processor with options that keep it small; ``patch`` is ``None`` if it cuts patches itself."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    patch: int | None = 16
    arrangement: Arrangement = Arrangement.TILES


CROP = {"size": {"shortest_edge": 96}, "crop_size": SQUARE}
FLAT = {"patch_size": 14, "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 32}}
CASES = [
    Case("SiglipImageProcessor", {"size": SQUARE}),
    Case("SiglipImageProcessor", {"size": {"height": 100, "width": 100}}, patch=14),
    Case("CLIPImageProcessor", CROP),
    Case("LlavaImageProcessor", {**CROP, "do_pad": True}),
    Case("LlavaNextImageProcessor", {**CROP, "image_grid_pinpoints": PINPOINTS}),
    Case("LlavaOnevisionImageProcessor", {"size": SQUARE, "image_grid_pinpoints": PINPOINTS}),
    Case("Idefics2ImageProcessor", {"size": {"shortest_edge": 96, "longest_edge": 192}}),
    Case("Idefics3ImageProcessor", {"size": {"longest_edge": 192}, "max_image_size": {"longest_edge": 96}}),
    Case("SmolVLMImageProcessor", {"size": {"longest_edge": 192}, "max_image_size": {"longest_edge": 96}}),
    Case(
        "Gemma3ImageProcessor",
        {
            "size": SQUARE,
            "do_pan_and_scan": True,
            "pan_and_scan_min_crop_size": 32,
            "pan_and_scan_max_num_crops": 4,
            "pan_and_scan_min_ratio_to_activate": 1.2,
        },
    ),
    Case("GotOcr2ImageProcessor", {"size": SQUARE, "crop_to_patches": True, "max_patches": 6}),
    Case("DeepseekVLImageProcessor", {"size": SQUARE}),
    Case("JanusImageProcessor", {"size": SQUARE}),
    Case("AriaImageProcessor", {"max_image_size": 490, "split_image": False}, patch=14),
    Case("Ovis2ImageProcessor", {"size": SQUARE, "crop_to_patches": True}),
    Case("Llama4ImageProcessor", {"size": SQUARE, "max_patches": 4}),
    Case("Cohere2VisionImageProcessor", {"size": SQUARE, "max_patches": 4}),
    Case("PixtralImageProcessor", {"size": {"longest_edge": 128}, "patch_size": 16}, 16, Arrangement.CROPPED),
    Case("Qwen2VLImageProcessor", FLAT, None, Arrangement.FLAT_PATCHES),
    Case("Glm4vImageProcessor", FLAT, None, Arrangement.FLAT_PATCHES),
    Case("VideoLlama3ImageProcessor", FLAT, None, Arrangement.FLAT_PATCHES),
    Case("PaddleOCRVLImageProcessor", FLAT, None, Arrangement.FLAT_PATCHES),
    Case("Siglip2ImageProcessor", {"max_num_patches": 64}, None, Arrangement.PADDED_PATCHES),
    Case(
        "Lfm2VlImageProcessor",
        {"min_image_tokens": 16, "max_image_tokens": 32, "do_image_splitting": False},
        None,
        Arrangement.PADDED_PATCHES,
    ),
]
HARD_CODED = ("GotOcr2ImageProcessor", "AriaImageProcessor", "Ovis2ImageProcessor")
SIZES = [(120, 160), (150, 131), (60, 200)]


@pytest.mark.parametrize("backend", ["Pil", ""])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.patch}")
def test_each_row_belongs_to_the_patch_that_shows_it(case: Case, backend: str) -> None:
    processor = image_processor(case, backend)
    sizes = SIZES if case.arrangement is not Arrangement.CROPPED else SIZES[:2]
    pictures = [ramps(size) for size in sizes]
    nested: Any = [[one] for one in pictures] if "defics" in case.name or "Smol" in case.name else pictures

    output = processor(nested, return_tensors="pt")
    geometry = trace(processor, nested, {}, case.patch)
    assert geometry.arrangement is case.arrangement
    assert geometry.shape == tuple(output["pixel_values"].shape)
    seen = pixels_of_patches(output, geometry.arrangement, geometry.patch_size) * MEAN_STD["image_std"]
    seen = (seen + MEAN_STD["image_mean"]) * 255
    for axis in (0, 1):
        depths = [PictureDepth((1 + np.indices(size)[axis]).astype(np.float32)) for size in sizes]
        rows = depth_rows(geometry, depths, ("mean", "valid", "max")).reshape(-1, 3)
        assert len(rows) == len(seen)
        is_whole, is_padding = rows[:, 1] == 1, rows[:, 1] == 0
        assert is_whole.sum() >= 12
        # A row's picture is told by its third colour; its ramp has 255 steps over the side.
        number = np.rint(seen[:, :, 2].mean(1) / 255 * 8 - 1).astype(int).clip(0, len(sizes) - 1)
        side = np.array([size[axis] for size in sizes])[number]
        colour = seen[:, :, axis].mean(1) / 255 * side
        error = np.abs(colour - (rows[:, 0] - 0.5))[is_whole]
        # Half a step of the ramp, half a pixel of nearest-neighbour sampling, and what bicubic kernels add at borders:
        # far below the 14 pixels or more from a patch to the next, at these scales.
        assert error.max() < 3.0, f"row {np.flatnonzero(is_whole)[error.argmax()]}"
        assert np.ptp(seen[is_padding], axis=1).max(initial=0) < 1e-3


def test_384_pixels_in_patches_of_14_give_729_rows() -> None:
    processor = image_processor(Case("SiglipImageProcessor", {"size": {"height": 384, "width": 384}}), "Pil")
    geometry = trace(processor, [ramps((480, 640))], {}, 14)
    depth = np.zeros((480, 640), np.float32)
    depth[:, -7:] = 1  # six columns of the tower's input, 378 to 383, are past the last whole patch
    assert depth_rows(geometry, [PictureDepth(depth)], ("mean",)).shape == (1, 729, 1)
    assert not depth_rows(geometry, [PictureDepth(depth)], ("mean",)).any()


def test_the_tiles_of_a_smaller_picture_are_padded_with_empty_ones() -> None:
    case = Case("LlavaNextImageProcessor", {**CROP, "image_grid_pinpoints": PINPOINTS})
    geometry = trace(image_processor(case, "Pil"), [ramps((96, 300)), ramps((190, 190))], {}, 16)
    rows = depth_rows(
        geometry, [PictureDepth(np.ones(size, np.float32)) for size in ((96, 300), (190, 190))], ("valid",)
    )
    assert rows.shape == (2, 5, 36, 1)
    assert (rows[0, 4] == 0).all()
    assert (rows[1] > 0).any(axis=(1, 2)).all()


def test_constant_padding_of_any_colour_is_no_depth() -> None:
    for colour in ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.48, 0.46, 0.41]):
        case = Case("LlavaImageProcessor", {**CROP, "do_pad": True, "image_mean": colour})
        geometry = trace(image_processor(case, "Pil"), [ramps((48, 96))], {}, 16)
        valid = depth_rows(geometry, [PictureDepth(np.ones((48, 96), np.float32))], ("valid",))[0, :, 0].reshape(6, 6)
        assert valid.mean(1).tolist() == [0, 0.5, 1, 1, 0.5, 0]


def test_a_processor_that_blends_pixels_is_refused() -> None:
    class Blending(type(image_processor(CASES[0], "Pil"))):  # type: ignore[misc]
        def __call__(self, images: Any, **options: Any) -> Any:
            return super().__call__(images, **{**options, "resample": 3})

    with pytest.raises(UsageError, match="does not give each pixel of a picture as it was"):
        trace(Blending(size=SQUARE), [ramps((120, 160))], {}, 16)


def test_a_processor_that_moves_a_pixel_is_refused() -> None:
    class Mirrored(type(image_processor(CASES[0], "Pil"))):  # type: ignore[misc]
        def __call__(self, images: Any, **options: Any) -> Any:
            output = super().__call__(images, **options)
            output["pixel_values"][..., 5, 7] = output["pixel_values"][..., 6, 8]
            return output

    with pytest.raises(UsageError, match="cannot be replayed"):
        trace(Mirrored(size=SQUARE), [ramps((120, 160))], {}, 16)


def test_a_processor_of_an_unknown_arrangement_is_refused_with_its_shape() -> None:
    def arranged(**values: NDArray[np.float32]) -> Callable[..., Any]:
        class Arranged:
            def __call__(self, images: Any, **options: Any) -> Any:
                return values

        return Arranged()

    with pytest.raises(UsageError, match=r"of \(2, 7, 5\), which are neither"):
        trace(arranged(pixel_values=np.zeros((2, 7, 5), np.float32)), [ramps((8, 8))], {}, 16)
    with pytest.raises(UsageError, match="and no pixel_values"):
        trace(arranged(audio=np.zeros(4, np.float32)), [ramps((8, 8))], {}, 16)


def test_patch_sizes_that_are_missing_or_contradict_are_refused() -> None:
    with pytest.raises(UsageError, match="give patch_size, that of the model's vision_config"):
        trace(image_processor(CASES[0], "Pil"), [ramps((120, 160))], {}, None)
    flat = Case("Qwen2VLImageProcessor", FLAT, None)
    with pytest.raises(UsageError, match="cuts patches of 14 pixels, but patch_size is 16"):
        trace(image_processor(flat, "Pil"), [ramps((120, 160))], {}, 16)


def test_a_picture_that_two_bytes_cannot_address_is_refused() -> None:
    narrow = Image.new("RGB", (MAX_SIDE + 1, 1))
    with pytest.raises(UsageError, match="at most 65536 a side"):
        trace(image_processor(CASES[0], "Pil"), [narrow], {}, 16)


def ramps(size: tuple[int, int]) -> Image.Image:
    """Picture whose red is its row and whose green is its column, from 0 to 255, and whose blue tells its size."""
    red, green = ((1 + 2 * index) / (2 * side) * 255 for index, side in zip(np.indices(size), size, strict=True))
    blue = np.full(size, (SIZES.index(size) + 1) / 8 * 255 if size in SIZES else 0)
    return Image.fromarray(np.rint(np.stack([red, green, blue], -1)).astype(np.uint8))


def image_processor(case: Case, backend: str) -> Any:
    """Image processor of a backend (``"Pil"``, or ``""`` for torchvision's, which older versions lack)."""
    has_torchvision = importlib.util.find_spec("torchvision") is not None
    if not backend and not has_torchvision:
        pytest.skip("torchvision is not installed")
    # Older versions have NumPy code under the name without an ending.
    if case.name in HARD_CODED and backend and not hasattr(transformers, case.name + backend):
        pytest.skip(f"{case.name} of this version resizes with bicubic kernels whatever is asked; refused")
    name = case.name + backend if hasattr(transformers, case.name + backend) else case.name
    try:
        return getattr(transformers, name)(**{**MEAN_STD, **case.options})
    except (ImportError, AttributeError):
        pytest.skip(f"this version of transformers has no {name} without torchvision")


def pixels_of_patches(output: Any, arrangement: Arrangement, patch: int) -> NDArray[np.float32]:
    """Pixels (rows, p * p, 3) of what becomes one token of the tower each, as its first layer reads them."""
    values = output["pixel_values"].float().numpy()
    match arrangement:
        case Arrangement.TILES:
            return np.concatenate([cut(tile, patch) for tile in values.reshape(-1, *values.shape[-3:])])
        case Arrangement.CROPPED:
            sizes = np.asarray(output["image_sizes"])
            return np.concatenate([cut(one[:, :h, :w], patch) for one, (h, w) in zip(values, sizes, strict=True)])
        case Arrangement.FLAT_PATCHES:
            frames = values.reshape(len(values), 3, -1, patch * patch)
            return np.moveaxis(frames[:, :, 0], 1, -1)
        case Arrangement.PADDED_PATCHES:
            padded: NDArray[np.float32] = values.reshape(-1, patch * patch, 3)
            return padded


def cut(tile: NDArray[np.float32], patch: int) -> NDArray[np.float32]:
    """Patches of a tile (3, H, W), as a convolution of that stride sees them."""
    rows, columns = tile.shape[1] // patch, tile.shape[2] // patch
    whole = tile[:, : rows * patch, : columns * patch].reshape(3, rows, patch, columns, patch)
    return whole.transpose(1, 3, 2, 4, 0).reshape(rows * columns, patch * patch, 3)
