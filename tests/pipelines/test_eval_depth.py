"""Evaluation: checkpoints and engines share one code path, and numbers come from mvde.metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.datasets.folder import FolderDataset
from mvde.datasets.sample import DepthSample
from mvde.errors import CheckpointError, DatasetError, MvdeError, ResolutionError
from mvde.metrics import depth_metrics
from mvde.pipelines.eval_depth import default_protocol, evaluate, open_source
from mvde.protocols import EvaluationProtocol

torch = pytest.importorskip("torch")


class ThreeFrames:
    """Frames at 1, 2 and 20 m; the third also has a nearer row."""

    depth_range_m = (0.1, 10.0)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> DepthSample:
        depth = np.full((8, 8), (1, 2, 20)[index], np.float32)
        depth[0] = (0, np.nan, 4)[index]
        return DepthSample(np.full((8, 8, 3), index, np.uint8), depth, None, f"frame {index}")


def test_pixels_outside_the_range_do_not_count() -> None:
    predict = lambda images: [np.full((8, 8), 2.0, np.float32) for _ in images]  # noqa: E731
    totals = evaluate(predict, ThreeFrames(), EvaluationProtocol((0.1, 10.0)), ("none", "median"), batch_size=2)
    assert [row["abs_rel"] for row in totals["none"].per_image.values()] == pytest.approx([1.0, 0.0, 0.5])
    assert totals["none"].overall()["abs_rel"] == pytest.approx(0.5)
    assert totals["median"].overall()["abs_rel"] == pytest.approx(0)


def test_frames_without_valid_pixels_are_left_out_and_frames_can_be_limited() -> None:
    predict = lambda images: [np.ones((8, 8), np.float32) for _ in images]  # noqa: E731
    assert len(evaluate(predict, ThreeFrames(), EvaluationProtocol((0.1, 3.0)))["none"].per_image) == 2
    assert list(evaluate(predict, ThreeFrames(), EvaluationProtocol((0.1, 30.0)), max_frames=2)["none"].per_image) == [
        "frame 0",
        "frame 2",
    ]


def test_depth_of_the_canonical_camera_is_brought_to_that_of_each_frame() -> None:
    class Zoomed(ThreeFrames):
        def __getitem__(self, index: int) -> DepthSample:
            sample, focal = super().__getitem__(index), (8, 16, 32)[index]
            intrinsics = None if index == 2 else np.array([focal, focal, 4, 4], np.float32)
            return DepthSample(sample.rgb, sample.depth_m, intrinsics, sample.name)

    predict = lambda images: [np.ones((8, 8), np.float32) for _ in images]  # noqa: E731
    known = evaluate(predict, Zoomed(), EvaluationProtocol((0.1, 10.0)), canonical_focal=1.0)["none"].per_image
    assert [row["abs_rel"] for row in known.values()] == pytest.approx([0, 0, 0.75])
    assumed = evaluate(predict, Zoomed(), EvaluationProtocol((0.1, 10.0)))["none"].per_image
    assert [row["abs_rel"] for row in assumed.values()] == pytest.approx([0, 0.5, 0.75])


def test_nothing_to_evaluate_is_an_error() -> None:
    class Empty(ThreeFrames):
        def __len__(self) -> int:
            return 0

    with pytest.raises(DatasetError, match="no frames"):
        evaluate(lambda images: [], Empty(), EvaluationProtocol((0.1, 10.0)))


@pytest.fixture
def checkpoint(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    from mvde.model import DepthModel

    torch.manual_seed(0)
    DepthModel(tiny_config()).save(tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_a_checkpoint_is_evaluated_at_its_native_resolution(checkpoint: Path, frames_dir: Path) -> None:
    from mvde.model import DepthModel

    dataset = FolderDataset(frames_dir)
    source = open_source(checkpoint)
    assert (source.depth_range_m, source.resolution, source.canonical_focal) == ((0.1, 10.0), (32, 32), None)
    totals = evaluate(source.predict, dataset, default_protocol(dataset))["none"]
    sample = dataset[3]
    image = torch.from_numpy(sample.rgb.copy()).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(image, size=(32, 32), mode="bilinear", antialias=True)
    depth = DepthModel.load(checkpoint).predict_depth(small)[None]
    depth = torch.nn.functional.interpolate(depth, size=sample.rgb.shape[:2], mode="bilinear", align_corners=False)
    expected = depth_metrics(depth[0, 0].numpy(), sample.depth_m)
    assert totals.per_image[sample.name] == pytest.approx(expected, rel=1e-4)


def test_a_resolution_off_the_patch_grid_or_a_missing_checkpoint_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ResolutionError, match=r"32x32 or 40x40"):
        open_source(checkpoint, (36, 36))
    with pytest.raises(CheckpointError, match="absent"):
        open_source("absent.safetensors")


def test_an_engine_is_evaluated_with_the_same_code(
    engine_folder: Path, closed_form_depth: Callable[[np.ndarray], np.ndarray], frames_dir: Path
) -> None:
    dataset = FolderDataset(frames_dir)
    source = open_source(engine_folder)
    assert (source.depth_range_m, source.resolution, source.canonical_focal) == ((0.5, 4.5), (32, 48), None)
    totals = evaluate(source.predict, dataset, default_protocol(dataset))["none"]
    sample = dataset[0]
    exact = depth_metrics(closed_form_depth(sample.rgb), sample.depth_m)
    # The engine resizes 36 x 48 pixels to 32 x 48, which blurs the borders of the squares.
    assert totals.per_image[sample.name]["abs_rel"] == pytest.approx(exact["abs_rel"], rel=0.05)
    with pytest.raises(MvdeError, match=r"32.48"):
        open_source(engine_folder, (64, 64))
