"""Training augmentation that preserves metric depth: flip, crop-resize, colour jitter.

An enlarged crop looks like a picture taken with a longer lens. Interpreted with the camera that the model assumes,
everything in it appears nearer by the zoom factor, so depth is divided by it (the canonical-camera label transform of
Metric3D, Yin et al., 2023). With a canonical camera, the zoom is the crop's focal length over the canonical one;
otherwise, over the frame's own, which needs no intrinsics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mvde.config import AugmentConfig
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError


@dataclass(frozen=True)
class Transform:
    """One sampled augmentation: crop ``scale`` relative to the largest crop that fits, and crop ``offset`` (0-1).

    ``jitter`` holds gain, contrast, saturation and gamma; 1 leaves colours unchanged.
    """

    flip: bool = False
    scale: float = 1.0
    offset: tuple[float, float] = (0.5, 0.5)
    jitter: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)


def draw_transform(rng: np.random.Generator, config: AugmentConfig) -> Transform:
    """Sample a transform from ``rng``; the number of draws does not depend on the configuration."""
    flip, scale, row, column, *jitter = rng.random(8)
    spread = config.colour_jitter
    gain, contrast, saturation, gamma = (float(np.exp(spread * (2 * u - 1))) for u in jitter)
    return Transform(
        flip=bool(flip < config.flip),
        scale=float(config.crop_min_scale + (1 - config.crop_min_scale) * scale),
        offset=(float(row), float(column)),
        jitter=(gain, contrast, saturation, gamma),
    )


def crop_box(source: tuple[int, int], target: tuple[int, int], transform: Transform) -> tuple[int, int, int, int]:
    """``(top, left, height, width)`` in pixels of the crop of ``source`` (H, W) with the aspect ratio of ``target``."""
    largest = min(source[0] / target[0], source[1] / target[1])
    height = max(1, min(source[0], round(target[0] * largest * transform.scale)))
    width = max(1, min(source[1], round(target[1] * largest * transform.scale)))
    top = round((source[0] - height) * transform.offset[0])
    left = round((source[1] - width) * transform.offset[1])
    return top, left, height, width


def transform_sample(
    sample: DepthSample, size: tuple[int, int], transform: Transform, canonical_focal: float | None = None
) -> tuple[Tensor, NDArray[np.float32]]:
    """Image (3, H, W) uint8 and depth (H, W) float32 in metres at ``size``, cropped, resized and flipped.

    Depth is for a camera of ``canonical_focal`` (relative, see :mod:`mvde.camera`), by default for the frame's own.
    Raises DatasetError if ``canonical_focal`` is given and the frame has no intrinsics.

    The image is resized with antialiasing, depth by nearest neighbour: averaging across an edge would create floating
    surfaces. Colours are left to :func:`jitter_colours`, which takes a batch.
    """
    top, left, height, width = crop_box(sample.depth_m.shape, size, transform)
    rgb = torch.from_numpy(np.ascontiguousarray(sample.rgb[top : top + height, left : left + width]))
    image = rgb.permute(2, 0, 1)[None]
    if (height, width) != size:
        image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
    depth = _nearest(sample.depth_m[top : top + height, left : left + width], size)
    if canonical_focal is None:
        zoom = _zoom(sample.depth_m.shape, size, height)
    else:
        zoom = _focal(sample) / canonical_focal * math.sqrt(math.prod(sample.depth_m.shape) / (height * width))
    depth = (depth / np.float32(zoom)).astype(np.float32, copy=False)
    if transform.flip:
        return image[0].flip(-1), np.ascontiguousarray(depth[:, ::-1])
    return image[0], depth


def jitter_colours(images: Tensor, transforms: list[Transform]) -> Tensor:
    """Convert uint8 images to float32 (B, 3, H, W) in [0, 1], with per-image gain, contrast, saturation and gamma."""
    factors = torch.tensor([t.jitter for t in transforms], dtype=torch.float32)[:, :, None, None, None]
    gain, contrast, saturation, gamma = factors.unbind(1)  # (B, 1, 1, 1) each
    x = images.float().div_(255)
    if bool((factors == 1).all()):
        return x
    x = x.pow(gamma) * gain
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * saturation
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    return (middle + (x - middle) * contrast).clamp_(0, 1)


def _focal(sample: DepthSample) -> float:
    if sample.focal is None:
        raise DatasetError(
            f"{sample.name} has no intrinsics, so its depth cannot be converted to the canonical camera; "
            "use a format that stores them, or set decoder.canonical_focal to null"
        )
    return sample.focal


def _zoom(source: tuple[int, int], target: tuple[int, int], height: int) -> float:
    """Focal length of the crop over that of the largest crop, at the same output size."""
    return min(source[0] / target[0], source[1] / target[1]) * target[0] / height


def _nearest(depth: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    rows, columns = (((np.arange(n) + 0.5) * (m / n)).astype(np.intp) for n, m in zip(size, depth.shape, strict=True))
    return depth[np.ix_(rows, columns)]
