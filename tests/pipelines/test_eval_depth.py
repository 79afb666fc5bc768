"""Evaluation: checkpoints and engines share one code path, and numbers come from mvde.metrics."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.alignment import Alignment, default_alignment
from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.datasets.folder import FolderDataset
from mvde.datasets.sample import DepthSample
from mvde.errors import CheckpointError, DatasetError, MvdeError, ResolutionError, UsageError
from mvde.metrics import depth_metrics
from mvde.pipelines.eval_depth import (
    FrameCamera,
    cameras_of,
    default_protocol,
    evaluate,
    open_source,
)
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
    predict = lambda images, cameras: [np.full((8, 8), 2.0, np.float32) for _ in images]  # noqa: E731
    totals = evaluate(predict, ThreeFrames(), EvaluationProtocol((0.1, 10.0)), ("none", "median"), batch_size=2)
    assert [row["abs_rel"] for row in totals["none"].per_image.values()] == pytest.approx([1.0, 0.0, 0.5])
    assert totals["none"].overall()["abs_rel"] == pytest.approx(0.5)
    assert totals["median"].overall()["abs_rel"] == pytest.approx(0)


def test_sky_is_far_and_masked_pixels_do_not_count() -> None:
    pred = np.full((8, 8), 1.0, np.float32)
    pred[:, :4], pred[:, 4] = np.nan, np.inf
    totals = evaluate(lambda images, cameras: [pred for _ in images], ThreeFrames(), EvaluationProtocol((0.1, 10.0)))
    frame = totals["none"].per_image["frame 0"]  # 7 rows at 1 m: of four columns one is 9 m too far
    assert frame["abs_rel"] == pytest.approx(9 / 4)
    assert totals["none"].share_counted == pytest.approx((28 + 28 + 4) / (56 + 56 + 64))
    broken = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(UsageError, match="the prediction is not finite"):
        evaluate(lambda images, cameras: [broken for _ in images], ThreeFrames(), EvaluationProtocol((0.1, 10.0)))


def test_frames_without_valid_pixels_are_left_out_and_frames_can_be_limited() -> None:
    predict = lambda images, cameras: [np.ones((8, 8), np.float32) for _ in images]  # noqa: E731
    assert len(evaluate(predict, ThreeFrames(), EvaluationProtocol((0.1, 3.0)))["none"].per_image) == 2
    assert list(evaluate(predict, ThreeFrames(), EvaluationProtocol((0.1, 30.0)), max_frames=2)["none"].per_image) == [
        "frame 0",
        "frame 2",
    ]


class Zoomed(ThreeFrames):
    """The first two frames have a camera, of once and twice the canonical focal length."""

    def __getitem__(self, index: int) -> DepthSample:
        sample, focal = super().__getitem__(index), (8, 16, 32)[index]
        intrinsics = None if index == 2 else np.array([focal, focal, 4, 4], np.float32)
        return DepthSample(sample.rgb, sample.depth_m, intrinsics, sample.name)


def test_depth_is_asked_for_with_the_camera_of_each_frame_or_the_users_or_none() -> None:
    def predict(images: list[np.ndarray], cameras: list[Camera | None]) -> list[np.ndarray]:
        factors = [1.0 if camera is None else camera.relative_focal for camera in cameras]
        return [np.full((8, 8), factor, np.float32) for factor in factors]

    def abs_rel(frame_camera: FrameCamera) -> list[float]:
        totals = evaluate(predict, Zoomed(), EvaluationProtocol((0.1, 10.0)), frame_camera=frame_camera)
        return [row["abs_rel"] for row in totals["none"].per_image.values()]

    assert abs_rel(cameras_of(None)) == pytest.approx([0, 0, 0.75])
    assert abs_rel(cameras_of(None, assumed=True)) == pytest.approx([0, 0.5, 0.75])
    given = lambda size: Camera.from_fov(2 * np.degrees(np.arctan(0.25)), None, size)  # noqa: E731
    assert abs_rel(cameras_of(given)) == pytest.approx([1, 0, 0.5])
    with pytest.raises(UsageError, match="frames of 4x4, but this frame is 8x8"):
        abs_rel(cameras_of(lambda size: Camera(4, 4, 2, 2, (4, 4))))


def test_evaluated_frames_whose_camera_is_known_are_counted() -> None:
    predict = lambda images, cameras: [np.ones((8, 8), np.float32) for _ in images]  # noqa: E731
    fov = lambda size: Camera.from_fov(60, None, size)  # noqa: E731
    for farthest_m, frame_camera, expected in (
        (10.0, cameras_of(None), 2),
        (1.5, cameras_of(None), 1),  # of the others no pixel counts
        (10.0, cameras_of(fov), 3),
        (10.0, cameras_of(None, assumed=True), 0),
    ):
        totals = evaluate(predict, Zoomed(), EvaluationProtocol((0.1, farthest_m)), frame_camera=frame_camera)
        assert totals["none"].num_with_camera == expected


def test_inverse_depth_is_aligned_in_inverse_depth_or_is_its_reciprocal() -> None:
    class Slope(ThreeFrames):
        def __getitem__(self, index: int) -> DepthSample:
            depth = np.linspace(1, 8, 64, dtype=np.float32).reshape(8, 8) + index
            return DepthSample(np.full((8, 8, 3), index, np.uint8), depth, None, f"frame {index}")

    frames, protocol = Slope(), EvaluationProtocol((0.1, 20.0))

    def raw(images: list[np.ndarray], cameras: list[Camera | None]) -> list[np.ndarray]:
        """Like MiDaS: thousands, with an offset that says nothing, another for each frame."""
        numbers = [int(image[0, 0, 0]) for image in images]
        return [3000 / frames[number].depth_m + 100 * number for number in numbers]

    (found,) = evaluate(raw, frames, protocol, ["scale_shift"], kind=DepthKind.INVERSE_RELATIVE).values()
    assert found.overall()["abs_rel"] == pytest.approx(0, abs=1e-5)
    with pytest.raises(UsageError, match=r"inverse_relative is known up to scale and shift.*use scale_shift"):
        evaluate(raw, frames, protocol, ["median"], kind=DepthKind.INVERSE_RELATIVE)

    def inverse(images: list[np.ndarray], cameras: list[Camera | None]) -> list[np.ndarray]:
        maps = [1 / frames[int(image[0, 0, 0])].depth_m for image in images]
        maps[0][0, 0] = 0  # the sky, 1 m in truth: clamped to 20 m
        return maps

    (found,) = evaluate(inverse, frames, protocol, kind=DepthKind.INVERSE_CANONICAL).values()
    assert found.per_image["frame 0"]["abs_rel"] == pytest.approx(19 / 64, rel=1e-5)
    assert found.per_image["frame 1"]["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_nothing_to_evaluate_is_an_error() -> None:
    class Empty(ThreeFrames):
        def __len__(self) -> int:
            return 0

    with pytest.raises(DatasetError, match="no frames"):
        evaluate(lambda images, cameras: [], Empty(), EvaluationProtocol((0.1, 10.0)))


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
    assert (source.valid_range, source.resolution) == ((0.1, 10.0), (32, 32))
    assert (source.contract.depth_kind, source.contract.canonical_focal) == (DepthKind.METRIC, None)
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
    assert (source.valid_range, source.resolution) == ((0.5, 4.5), (32, 48))
    assert source.contract.depth_kind is DepthKind.METRIC
    totals = evaluate(source.predict, dataset, default_protocol(dataset))["none"]
    sample = dataset[0]
    exact = depth_metrics(closed_form_depth(sample.rgb), sample.depth_m)
    # The engine resizes 36 x 48 pixels to 32 x 48, which blurs the borders of the squares.
    assert totals.per_image[sample.name]["abs_rel"] == pytest.approx(exact["abs_rel"], rel=0.05)
    with pytest.raises(MvdeError, match=r"32.48"):
        open_source(engine_folder, (64, 64))


def test_an_inverse_engine_is_evaluated_by_the_fit_of_its_raw_map(
    engine_folder: Path, edit_manifest: Callable[..., None], tmp_path: Path, frames_dir: Path
) -> None:
    folder = Path(shutil.copytree(engine_folder, tmp_path / engine_folder.name))
    edit_manifest(folder / "engine.json", lambda plain: plain.update(depth_kind="inverse_relative", unit="1/u"))
    dataset, source = FolderDataset(frames_dir), open_source(folder)
    kind = source.contract.depth_kind
    totals = evaluate(source.predict, dataset, default_protocol(dataset), [default_alignment(kind)], kind=kind)
    sample = dataset[0]
    valid = np.isfinite(sample.depth_m) & (sample.depth_m > 0)
    raw, target = source.predict([sample.rgb], [None])[0][valid].astype(np.float64), sample.depth_m[valid]
    scale, shift = np.polyfit(raw, 1 / target, 1)
    aligned = 1 / np.maximum(scale * raw + shift, 1 / target.max())
    found = totals[Alignment.SCALE_SHIFT].per_image[sample.name]["abs_rel"]
    assert found == pytest.approx(np.mean(np.abs(aligned - target) / target), rel=1e-5)
