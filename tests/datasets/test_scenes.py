"""Which frames of a data set are of one scene, in the layouts of each format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.datasets.diode import DiodeDataset
from mvde.datasets.folder import FolderDataset
from mvde.datasets.hypersim import HypersimDataset
from mvde.datasets.kitti import KittiDataset
from mvde.datasets.nyu import NyuDataset
from mvde.datasets.sample import SceneDataset
from mvde.datasets.tum import TumDataset
from mvde.errors import DatasetError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def scenes(dataset: SceneDataset) -> list[str]:
    return [dataset.scene(index) for index in range(len(dataset))]


def test_a_folder_names_the_scene_before_the_number(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    for name in ("hall-2_0001", "hall-2_0002", "kitchen-7", "0003"):
        Image.new("RGB", (4, 4)).save(tmp_path / "rgb" / f"{name}.png")
        np.save(tmp_path / "depth" / f"{name}.npy", np.ones((4, 4), np.float32))
    assert scenes(FolderDataset(tmp_path)) == ["", "hall-2", "hall-2", "kitchen"]


def test_published_formats_know_their_scenes(tmp_path: Path) -> None:
    for scan in ("scene_00019/scan_00183", "scene_00019/scan_00184", "scene_00020/scan_00185"):
        touch(tmp_path / "diode/indoors" / scan / "a_depth.npy")
    found = scenes(DiodeDataset(tmp_path / "diode"))
    assert found == ["indoors/scene_00019", "indoors/scene_00019", "indoors/scene_00020"]
    for camera in ("cam_00", "cam_01"):
        touch(tmp_path / f"hyper/ai_001_001/images/scene_{camera}_geometry_hdf5/frame.0000.depth_meters.hdf5")
    assert scenes(HypersimDataset(tmp_path / "hyper")) == ["ai_001_001"] * 2
    drive = "2011_09_26_drive_0002_sync"
    touch(tmp_path / "selection/groundtruth_depth" / f"{drive}_groundtruth_depth_0000000005_image_02.png")
    assert scenes(KittiDataset(tmp_path / "selection")) == ["2011_09_26_drive_0002"]
    touch(tmp_path / "drives/train" / drive / "proj_depth/groundtruth/image_02/0000000005.png")
    assert scenes(KittiDataset(tmp_path / "drives")) == [drive]
    touch(tmp_path / "freiburg1_desk/rgb/1.png", tmp_path / "freiburg1_desk/depth/1.png")
    for name in ("rgb", "depth"):
        (tmp_path / f"freiburg1_desk/{name}.txt").write_text(f"1.0 {name}/1.png\n")
    assert scenes(TumDataset(tmp_path / "freiburg1_desk")) == ["freiburg1_desk"]


def test_nyu_lists_its_rooms(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((3, 3, 8, 6), np.uint8)
        file["depths"] = np.zeros((3, 8, 6), np.float32)
    with pytest.raises(DatasetError, match=r"labeled\.mat has no readable list scenes of the rooms' names"):
        scenes(NyuDataset(tmp_path))
    with h5py.File(path, "a") as file:  # as MATLAB writes a cell of texts: references to columns of UTF-16 letters
        listed = file.create_dataset("scenes", (1, 3), h5py.ref_dtype)
        for index, name in enumerate(("kitchen_0004", "kitchen_0004", "office_0001")):
            text = file.create_dataset(
                f"#refs#/{index}", data=np.frombuffer(name.encode("utf-16-le"), np.uint16)[:, None]
            )
            listed[0, index] = text.ref
    assert scenes(NyuDataset(tmp_path)) == ["kitchen_0004", "kitchen_0004", "office_0001"]
