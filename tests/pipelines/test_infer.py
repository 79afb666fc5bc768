"""Batch inference of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from mvde.errors import ResolutionError, UsageError  # noqa: E402
from mvde.model import DepthModel  # noqa: E402
from mvde.pipelines.infer import infer_images  # noqa: E402


@pytest.fixture
def checkpoint(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    torch.manual_seed(0)
    DepthModel(tiny_config()).save(tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three photographs at the model's resolution and one at another."""
    paths = []
    for index, size in enumerate([(40, 32)] * 3 + [(20, 50)]):
        pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        paths.append(tmp_path / f"{index}.png")
    return paths


def test_each_image_gets_its_depth_and_statistics(checkpoint: Path, photos: list[Path], tmp_path: Path) -> None:
    written = infer_images(checkpoint, photos, tmp_path / "out", (40, 32), stats=("mean", "max"), batch_size=3)
    assert [path.name for path in written] == [f"{k}.npz" for k in range(4)]
    image = torch.from_numpy(np.array(Image.open(photos[2]))).permute(2, 0, 1)[None]
    depth = DepthModel.load(checkpoint).predict_depth(image)[0].numpy()
    with np.load(written[2]) as result:
        # Alone or in a batch: float32 summation order differs.
        np.testing.assert_allclose(result["depth"], depth, rtol=1e-4)
        assert result["grid"].tolist() == [5, 4]
        assert result["columns"].tolist() == ["mean", "max"]
        blocks = result["depth"].reshape(5, 8, 4, 8).transpose(0, 2, 1, 3).reshape(20, 64)
        np.testing.assert_allclose(result["stats"], np.stack([blocks.mean(1), blocks.max(1)], axis=1), rtol=1e-5)


def test_bars_of_a_letterbox_are_left_out_of_the_statistics(
    checkpoint: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretched = DepthModel.load(checkpoint).describe()
    preprocess = dataclasses.replace(stretched.preprocess, fit="letterbox")
    letterbox = dataclasses.replace(stretched, preprocess=preprocess)
    monkeypatch.setattr(DepthModel, "describe", lambda self: letterbox)
    (written,) = infer_images(checkpoint, photos[3:], tmp_path / "out", (40, 32), stats=("valid",))
    with np.load(written) as result:
        # 20 x 50 pixels take 13 x 32 of 40 x 32: rows 13 to 25.
        assert np.isnan(result["depth"][:13]).all()
        assert (result["depth"][13:26] > 0).all()
        assert np.isnan(result["depth"][26:]).all()
        rows = result["stats"].reshape(5, 4)
        np.testing.assert_allclose(rows[:, 0], [0, 3 / 8, 1, 2 / 8, 0])


def test_wrong_requests_are_refused_before_anything_is_written(
    checkpoint: Path, photos: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ResolutionError):
        infer_images(checkpoint, photos, tmp_path / "out", (30, 32))
    with pytest.raises(UsageError, match=r"0\.npz"):
        infer_images(checkpoint, [photos[0], photos[0].with_suffix(".jpg")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
