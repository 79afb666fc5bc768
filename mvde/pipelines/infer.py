"""Batch inference with a checkpoint in PyTorch: depth and patch statistics as ``.npz``, e.g. to train a head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from mvde.errors import UsageError
from mvde.files import atomic_write
from mvde.image import read_image
from mvde.model import DepthModel
from mvde.resampling import Resampling
from mvde.resolution import check_resolution
from mvde.runtime.placement import clear_bars, fit_image, place
from mvde.stats import DEFAULT_STATS, depth_to_patch_stats


def infer_images(
    checkpoint: str | Path,
    images: Iterable[Path],
    output_dir: str | Path,
    resolution: tuple[int, int] | None = None,
    stats: Sequence[str] = DEFAULT_STATS,
    batch_size: int = 8,
) -> list[Path]:
    """Write one ``.npz`` file per image, named after it; return the files' paths.

    Each holds ``depth`` (H, W) float32 at ``resolution`` (by default the model's native one), the model's map of the
    image fitted to it as ``model.describe().preprocess`` says, NaN in bars; ``stats`` (N, S) float32, ``grid`` (rows,
    columns) and ``columns`` (names of the statistics).
    Raises CheckpointError, ImageError, ResolutionError, or UsageError if two images share a name.
    """
    paths = [Path(path) for path in images]
    _check_names(paths)
    model = DepthModel.load(checkpoint)
    size = resolution or model.config.vit.image_size
    check_resolution(size, model.patch_size)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    written: list[Path] = []
    for batch in _batched(paths, batch_size):
        written += _infer_batch(model, batch, Path(output_dir), size, stats)
    return written


def _infer_batch(
    model: DepthModel, paths: list[Path], output_dir: Path, size: tuple[int, int], stats: Sequence[str]
) -> list[Path]:
    photos, preprocess = [read_image(path) for path in paths], model.describe().preprocess
    resampling = Resampling.of(preprocess)
    placements = [place((photo.shape[0], photo.shape[1]), size, preprocess.fit, resampling) for photo in photos]
    batch = np.stack([fit_image(photo, where) for photo, where in zip(photos, placements, strict=True)])
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).to(next(model.parameters()).device)
    maps = model.predict_depth(images).float().cpu().numpy()
    depth = np.stack([clear_bars(one, where) for one, where in zip(maps, placements, strict=True)])
    rows = depth_to_patch_stats(depth, model.patch_size, stats)
    grid = (size[0] // model.patch_size, size[1] // model.patch_size)
    written = []
    for path, depth_m, table in zip(paths, depth, rows, strict=True):
        target = output_dir / f"{path.stem}.npz"
        with atomic_write(target) as temporary:
            np.savez_compressed(temporary, depth=depth_m, stats=table, grid=np.array(grid), columns=np.array(stats))
        written.append(target)
    return written


def _check_names(paths: list[Path]) -> None:
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise UsageError(f"{stems[path.stem]} and {path} would both be written to {path.stem}.npz; rename one")
        stems[path.stem] = path


def _batched(paths: list[Path], size: int) -> Iterator[list[Path]]:
    remaining = iter(paths)
    while batch := list(islice(remaining, size)):
        yield batch
