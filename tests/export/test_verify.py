"""Photographs for parity enter a graph as frames do: by the manifest's own preprocessing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from mvde.contract import Interpolation, stretched
from mvde.export.verify import load_photos
from mvde.resampling import Resampling
from mvde.runtime.placement import fit_image, place


def test_photographs_are_placed_and_resampled_as_the_network_expects(tmp_path: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (3, 40, 90, 3), dtype=np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, photo in zip(paths, photos, strict=True):
        Image.fromarray(photo).save(path)
    record = dataclasses.replace(
        stretched((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        fit="letterbox",
        multiple=14,
        interpolation=Interpolation.BICUBIC,
        bicubic_coefficient=-0.75,
        antialias=False,
        padding=0,
    )
    batches = load_photos(paths, (56, 70), 2, record)
    placement = place((40, 90), (56, 70), "letterbox", Resampling.of(record))
    expected = np.stack([fit_image(photo, placement) for photo in photos])
    assert placement.target_box.size == (28, 70)
    np.testing.assert_array_equal(np.concatenate(batches), expected[[0, 1, 2, 0]])  # the last batch is filled up
