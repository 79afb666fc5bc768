"""Sources of depth: a runtime, files and given maps, each with what is wrong with their input."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.errors import DatasetError, UsageError
from mvde.runtime.depth import DepthRuntime
from mvde.vlm.config import CameraRule
from mvde.vlm.rows import PictureDepth
from mvde.vlm.sources import DepthFiles, GivenDepth, Picture, RuntimeSource, given_map, source_of


def test_files_in_millimetres_metres_and_of_mvde_run_are_found_by_name(tmp_path: Path) -> None:
    depth_m = np.linspace(0, 4, 12, dtype=np.float32).reshape(3, 4)
    millimetres = np.rint(depth_m * 1000).astype(np.uint16)
    Image.fromarray(millimetres).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", depth_m)
    np.save(tmp_path / "c.depth.npy", depth_m)
    np.save(tmp_path / "d.npy", millimetres)
    source = DepthFiles(tmp_path)
    for name in "abcd":
        found = source.depth_of(picture(Path("elsewhere") / f"{name}.jpg"), None)
        assert found is not None
        assert found.depth.dtype == np.float32
        np.testing.assert_allclose(found.depth, depth_m, atol=0.5e-3)
    assert (source.depth_kind, source.camera_rule, source.graph_sha256) == (DepthKind.METRIC, CameraRule.NONE, None)
    kitti = DepthFiles(tmp_path, units_per_metre=256).depth_of(picture(Path("a.png")), None)
    assert kitti is not None
    np.testing.assert_allclose(kitti.depth, millimetres / np.float32(256))


def test_a_picture_without_a_file_has_no_depth_and_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    source = DepthFiles(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert source.depth_of(picture(Path("x.png")), None) is None
        assert source.depth_of(picture(Path("y.png")), None) is None
    assert source.num_missing == 2
    assert [record.getMessage().split()[0] for record in caplog.records] == ["x.png"]


def test_folders_and_files_that_hold_no_depth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        DepthFiles(tmp_path / "none")
    with pytest.raises(DatasetError, match="holds no depth map"):
        DepthFiles(tmp_path)
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="is not a 16-bit grey PNG"):
        DepthFiles(tmp_path).depth_of(picture(Path("a.png")), None)
    np.save(tmp_path / "b.npy", np.ones((4, 3), np.float32))
    with pytest.raises(UsageError, match=r"b\.npy is \(4, 3\) \(H, W\), but b\.jpg is \(3, 4\)"):
        DepthFiles(tmp_path).depth_of(picture(Path("b.jpg")), None)
    with pytest.raises(UsageError, match="given without one; give its path"):
        DepthFiles(tmp_path).depth_of(picture(None), None)
    with pytest.raises(UsageError, match="must be a positive number, but got 0"):
        DepthFiles(tmp_path, units_per_metre=0)


def test_a_runtimes_depth_is_that_of_infer_with_the_pictures_camera(engine_folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    camera = Camera.from_fov(60, None, (48, 96))
    with DepthRuntime.load(engine_folder) as runtime:
        source = source_of(runtime)
        assert isinstance(source, RuntimeSource)
        found = source.depth_of(Picture(Image.fromarray(pixels)), camera)
        assert found is not None
        np.testing.assert_array_equal(found.depth, runtime.infer(pixels, camera=camera).depth)
        assert found.camera is camera
        assert source.depth_kind is runtime.manifest.depth_kind
        assert source.graph_sha256 == runtime.manifest.engine.onnx_sha256


def test_a_given_map_is_read_from_arrays_masks_and_files(tmp_path: Path) -> None:
    depth = np.ones((3, 4), np.float64)
    np.save(tmp_path / "a.npy", depth)
    shown = picture(None)
    masked = np.ma.masked_array(depth, mask=np.eye(3, 4, dtype=bool))
    for given in (depth, tmp_path / "a.npy", str(tmp_path / "a.npy")):
        found = given_map(given, shown, None)
        assert isinstance(found, PictureDepth)
        assert found.depth.tolist() == depth.tolist()
    found = given_map(masked, shown, None)
    assert found is not None
    assert np.isnan(found.depth).sum() == 3
    assert given_map(None, shown, None) is None


def test_a_source_is_made_of_what_it_is_given(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    assert isinstance(source_of(None), GivenDepth)
    assert isinstance(source_of(tmp_path), DepthFiles)
    with pytest.raises(UsageError, match="an object with depth_of, but got int"):
        source_of(3)


def picture(path: Path | None) -> Picture:
    return Picture(Image.new("RGB", (4, 3)), path)
