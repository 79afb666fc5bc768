"""Parity inputs and outputs: photographs, PyTorch's depth, and ONNX Runtime's depth on the CPU in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.contract import PreprocessRecord
from mvde.engines.onnxruntime.session import CHECKING
from mvde.export.graph.run import GraphSession
from mvde.image import read_image
from mvde.resampling import Resampling
from mvde.runtime.placement import Fit, fitted

if TYPE_CHECKING:
    from mvde.export.exportable import ExportableModel

    DepthArray = NDArray[np.float32]
    ImageArray = NDArray[np.uint8]


def load_photos(
    paths: Sequence[Path], resolution: tuple[int, int], batch: int, preprocess: PreprocessRecord
) -> list[ImageArray]:
    """Batches (B, H, W, 3) uint8 RGB of photographs, resized as ``preprocess`` says; the last is padded by repetition.

    Raises :class:`ImageError` naming the unreadable file.
    """
    photos = [read_image(path) for path in paths]
    images = fitted(photos, resolution, Fit(preprocess.fit), Resampling.of(preprocess))
    num_batches = -(-len(images) // batch)
    indices = np.arange(num_batches * batch).reshape(num_batches, batch) % len(images)
    return list(images[indices])


def torch_depth(model: ExportableModel, images: Sequence[ImageArray]) -> list[DepthArray]:
    """Depth (B, H, W) float32, metres or relative, from PyTorch for each uint8 (B, H, W, 3) batch.

    Convolutions run channels-last meanwhile: otherwise oneDNN reorders their largest maps, 0.2 GB for base at 896.
    """
    import torch

    batches = [torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2))) for image in images]
    model.to(memory_format=torch.channels_last)
    try:
        return [model.predict_depth(batch).float().numpy() for batch in batches]
    finally:
        model.to(memory_format=torch.contiguous_format)


def onnxruntime_depth(path: Path, images: Sequence[ImageArray]) -> list[DepthArray]:
    """Depth (B, H, W) float32 of each batch from ONNX Runtime on the CPU, for the file at ``path``.

    Raises :class:`BackendError` if ONNX Runtime rejects the file.
    """
    session = GraphSession(path, CHECKING)
    return [session.depth(batch) for batch in images]
