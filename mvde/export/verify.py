"""The exported file against PyTorch, on real photographs, in ONNX Runtime on the CPU in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvde.errors import BackendError, ImageError, MissingDependencyError

if TYPE_CHECKING:
    from mvde.model import DepthModel

    DepthArray = NDArray[np.float32]
    ImageArray = NDArray[np.uint8]


def load_photos(paths: Sequence[Path], resolution: tuple[int, int], batch: int) -> list[ImageArray]:
    """Batches (B, H, W, 3) uint8 RGB of photographs stretched to ``resolution``, repeated to fill the last batch.

    Raises :class:`ImageError` naming the file that cannot be read.
    """
    images = [_load_photo(path, resolution) for path in paths]
    num_batches = -(-len(images) // batch)
    return [np.stack([images[(start * batch + i) % len(images)] for i in range(batch)]) for start in range(num_batches)]


def _load_photo(path: Path, resolution: tuple[int, int]) -> ImageArray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize(resolution[::-1], Image.Resampling.BILINEAR))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"cannot read the photograph {path} for the parity check: {error}") from error


def torch_depth(model: DepthModel, images: Sequence[ImageArray]) -> list[DepthArray]:
    """Depth (B, H, W) float32, metres or relative, of the model itself in PyTorch, for each uint8 (B, H, W, 3).

    The decoder works channels-last meanwhile: otherwise oneDNN reorders its largest maps, 0.2 GB for base at 896.
    """
    import torch

    batches = [torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2))) for image in images]
    decoder: Any = model.decoder
    decoder.to(memory_format=torch.channels_last)
    try:
        return [model.predict_depth(batch).float().numpy() for batch in batches]
    finally:
        decoder.to(memory_format=torch.contiguous_format)


def onnxruntime_depth(path: Path, images: Sequence[ImageArray]) -> list[DepthArray]:
    """Depth (B, H, W) float32 of each batch, computed by ONNX Runtime on the CPU from the file at ``path``.

    Raises :class:`BackendError` if ONNX Runtime refuses the file.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError.for_extra("onnxruntime", "export", "the parity check of an export") from error
    options = ort.SessionOptions()
    # Without the arena and prepacked copies of the weights the check needs half the memory; it runs once or twice.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it steals time on a busy machine
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return [session.run(["depth"], {"image": image})[0] for image in images]
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise BackendError(f"ONNX Runtime cannot run the exported graph {path.name}: {error}") from error
