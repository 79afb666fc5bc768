"""Calibration and held-out images: how a folder is split, and frames with depth at the graph's resolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.artifact import GraphArtifact
from mvde.contract import DepthKind, FocalConvention
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError, ImageError, UsageError
from mvde.export.precision.images import default_images, judging_frames, lower_options, quantization_images
from mvde.export.range_method import RangeMethod
from mvde.manifest import GraphManifest
from mvde.precision import Precision

RESOLUTION = (32, 48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine uniform grey images at the graph's resolution, unchanged by cropping."""
    target = tmp_path / "robot"
    target.mkdir()
    for index in range(9):
        Image.fromarray(np.full((*RESOLUTION, 3), 10 * index, np.uint8)).save(target / f"{index}.png")
    return target


@pytest.fixture
def manifest(write_graph: Callable[..., GraphArtifact], tmp_path: Path) -> GraphManifest:
    return write_graph(tmp_path / "export").manifest


class Frames:
    """Data set of ``count`` frames: depth in metres is the row, grey level the frame number."""

    depth_range_m = (0.5, 6.0)
    width = 96

    def __init__(self, count: int, intrinsics: np.ndarray | None = None) -> None:
        self.count = count
        self.intrinsics = intrinsics

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DepthSample:
        depth_m = np.repeat(np.arange(64, dtype=np.float32)[:, None], self.width, axis=1)
        return DepthSample(np.full((64, self.width, 3), index, np.uint8), depth_m, self.intrinsics, f"frame {index}")


def test_every_fourth_image_of_a_folder_judges(folder: Path) -> None:
    decides, judges = quantization_images(folder, RESOLUTION)
    assert decides[:, 0, 0, 0].tolist() == [0, 10, 20, 40, 50, 60, 80]
    assert judges.images[:, 0, 0, 0].tolist() == [30, 70]
    assert judges.name == "every fourth image of robot"
    assert judges.depth_m is None


def test_images_of_another_shape_are_cropped_and_not_distorted(folder: Path) -> None:
    wide = np.zeros((RESOLUTION[0], 3 * RESOLUTION[1], 3), np.uint8)
    wide[:, RESOLUTION[1] : 2 * RESOLUTION[1]] = 200
    Image.fromarray(wide).save(folder / "a.png")
    decides, judges = quantization_images(folder, RESOLUTION)
    assert len(decides) + len(judges.images) == 10
    assert (decides[-1] == 200).all()


def test_folders_that_do_not_serve_say_what_is_needed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder; --quantization-images takes a folder"):
        quantization_images(tmp_path / "none", RESOLUTION)
    (folder / "3.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"3\.png"):
        quantization_images(folder, RESOLUTION)
    for index in range(3, 9):
        (folder / f"{index}.png").unlink()
    with pytest.raises(DatasetError, match="holds 3 images; quantisation needs at least 4"):
        quantization_images(folder, RESOLUTION)


def test_frames_are_spread_evenly_and_depth_is_that_of_the_nearest_pixel(manifest: GraphManifest) -> None:
    held_out = judging_frames(Frames(11), manifest, 3, "rooms")
    assert held_out.name == "3 frames of rooms"
    assert held_out.images[:, 0, 0, 0].tolist() == [0, 5, 10]
    assert held_out.depth_m is not None
    assert held_out.depth_m.shape == (3, *RESOLUTION)
    # Rows 1, 3, 5, … of 64 are sampled at the centres of 32; outside the data set's 0.5 to 6 m depth is unknown.
    # The graph, limited to 0.5 to 4.5 m, is validated on the full range.
    assert held_out.depth_m[0, :4, 0].tolist() == [1.0, 3.0, 5.0, 0.0]


def test_depth_is_that_of_the_graph_s_own_camera(manifest: GraphManifest) -> None:
    own = {"depth_kind": DepthKind.METRIC_FOCAL, "canonical_focal": 1.0, "focal_convention": FocalConvention.GEOMETRIC}
    known = dataclasses.replace(manifest, **own)
    intrinsics = np.array([40.0, 40.0, 48.0, 32.0], np.float32)
    frames = Frames(1, intrinsics)
    held_out = judging_frames(frames, known, 1, "rooms")
    factor = np.sqrt(40 / 96 * 40 / 64)
    assert held_out.depth_m is not None
    assert held_out.depth_m[0, 0, 0] == pytest.approx(1.0 / factor, rel=1e-6)


def test_frames_enter_as_the_manifest_says_and_so_does_their_depth(manifest: GraphManifest) -> None:
    record = dataclasses.replace(manifest.preprocess, fit="letterbox", multiple=16, padding=9)
    held_out = judging_frames(Frames(2), dataclasses.replace(manifest, preprocess=record), 2, "rooms")
    assert held_out.depth_m is not None
    frame, depth = held_out.images[1], held_out.depth_m[1]  # 64x96 into 32x48: no bars
    assert (frame == 1).all()
    assert (depth[:3] > 0).all()
    tall = Frames(2)
    tall.width = 32
    held_out = judging_frames(tall, dataclasses.replace(manifest, preprocess=record), 2, "rooms")
    assert held_out.depth_m is not None
    frame, depth = held_out.images[1], held_out.depth_m[1]  # 64x32 into the middle 32x16
    assert (frame[:, 16:32] == 1).all()
    assert (frame[:, :16] == 9).all()
    assert (depth[:3, 16:32] > 0).all()
    assert (depth[:, :16] == 0).all()
    assert (depth[:, 32:] == 0).all()


def test_a_data_set_without_frames_is_refused(manifest: GraphManifest) -> None:
    with pytest.raises(DatasetError, match="no frames"):
        judging_frames(Frames(0), manifest, 3, "rooms")


def test_options_hold_the_folder_s_images_and_the_frames(folder: Path, manifest: GraphManifest) -> None:
    options = lower_options(manifest, folder, RangeMethod.ENTROPY, Precision.FP16, Frames(2), 5, "rooms")
    assert options.calibration is not None
    assert len(options.calibration) == 7
    assert [item.name for item in options.held_out] == ["every fourth image of robot", "2 frames of rooms"]
    assert (options.method, options.rest, options.patch_size) == (RangeMethod.ENTROPY, Precision.FP16, 16)
    alone = lower_options(manifest)
    assert (alone.calibration, alone.held_out) == (None, ())
    with pytest.raises(UsageError, match="cannot be bf16; use fp32 or fp16"):
        lower_options(manifest, rest=Precision.BF16)


def test_default_images_are_crops_of_different_photographs() -> None:
    calibration, held_out = default_images(RESOLUTION, 12)
    assert calibration.shape == (12, *RESOLUTION, 3)
    assert held_out.images.shape == (12, *RESOLUTION, 3)
    both = np.concatenate([calibration, held_out.images]).reshape(24, -1)
    assert len(np.unique(both, axis=0)) == 24
