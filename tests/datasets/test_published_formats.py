"""Published data sets, from small fixtures in their original layouts."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.datasets.diode import DiodeDataset
from mvde.datasets.formats import DataFormat, open_dataset
from mvde.datasets.hypersim import HypersimDataset
from mvde.datasets.kitti import KittiDataset
from mvde.datasets.nyu import NyuDataset
from mvde.datasets.splits import Split
from mvde.datasets.tum import TumDataset, associate
from mvde.errors import ConfigError, DatasetError, UsageError

Writer = Callable[[Path, np.ndarray], None]


class TestNyu:
    @pytest.fixture
    def root(self, tmp_path: Path, picture: np.ndarray) -> Path:
        """MATLAB stores H x W x 3 x N in column-major order, which HDF5 lists as (N, 3, W, H)."""
        h5py = pytest.importorskip("h5py")
        pictures = np.stack([picture, picture[::-1]])
        depths = np.arange(2 * 6 * 8, dtype=np.float32).reshape(2, 6, 8) / 10
        with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
            file["images"] = pictures.transpose(0, 3, 2, 1)
            file["depths"] = depths.transpose(0, 2, 1)
        return tmp_path

    def test_matlabs_axes_are_put_right(self, root: Path, picture: np.ndarray) -> None:
        dataset = NyuDataset(root)
        assert len(dataset) == 2
        assert np.array_equal(dataset[1].rgb, picture[::-1])
        assert dataset[1].depth_m.dtype == np.float32
        assert dataset[1].depth_m[2, 3] == np.float32((48 + 2 * 8 + 3) / 10)
        assert dataset[0].focal == pytest.approx(math.sqrt(518.8579 / 640 * 519.46961 / 480))

    def test_pictures_of_another_type_are_refused_instead_of_cut(self, root: Path) -> None:
        h5py = pytest.importorskip("h5py")
        with h5py.File(root / "nyu_depth_v2_labeled.mat", "a") as file:
            images = file["images"][:].astype(np.uint16) * 257
            del file["images"]
            file["images"] = images
        with pytest.raises(DatasetError, match=r"images are uint16; expected uint8"):
            NyuDataset(root)

    def test_a_split_is_read_from_splits_mat(self, root: Path, picture: np.ndarray) -> None:
        savemat = pytest.importorskip("scipy.io").savemat
        with pytest.raises(DatasetError, match=r"splits\.mat is missing.*horatio"):
            NyuDataset(root, Split.TEST)
        savemat(root / "splits.mat", {"trainNdxs": np.array([[1]]), "testNdxs": np.array([[2]], np.uint16)})
        test = open_dataset("nyu", root, split="test")
        assert len(test) == 1
        assert test[0].name.endswith(":1")
        assert np.array_equal(test[0].rgb, picture[::-1])
        assert np.array_equal(NyuDataset(root, Split.TRAIN)[0].rgb, picture)
        with pytest.raises(UsageError, match="train and test, not val"):
            NyuDataset(root, Split.VAL)
        savemat(root / "splits.mat", {"testNdxs": np.array([[3]])})
        with pytest.raises(DatasetError, match="lists frames outside the 2 of"):
            NyuDataset(root, Split.TEST)
        (root / "splits.mat").write_bytes(b"no matrix")
        with pytest.raises(DatasetError, match="no readable list testNdxs"):
            NyuDataset(root, Split.TEST)

    def test_a_worker_process_gets_its_own_handle(self, root: Path) -> None:
        dataset = NyuDataset(root / "nyu_depth_v2_labeled.mat")
        copy = pickle.loads(pickle.dumps(dataset))
        assert np.array_equal(copy[0].rgb, dataset[0].rgb)

    def test_faults_name_the_file(self, root: Path, tmp_path: Path) -> None:
        h5py = pytest.importorskip("h5py")
        path = root / "nyu_depth_v2_labeled.mat"
        with h5py.File(path, "a") as file:
            del file["depths"]
        with pytest.raises(DatasetError, match=r"labeled\.mat has no 3-dimensional array 'depths'"):
            NyuDataset(root)
        path.write_bytes(path.read_bytes()[:700])
        with pytest.raises(DatasetError, match=r"labeled\.mat is not a complete HDF5 file"):
            NyuDataset(root)
        with pytest.raises(DatasetError, match=r"other\.mat is missing"):
            NyuDataset(tmp_path / "other.mat")


class TestKitti:
    def test_the_selection(self, tmp_path: Path, picture: np.ndarray, write_png: Writer) -> None:
        stem = "2011_09_26_drive_0002_sync_{}_0000000005_image_02"
        depth = np.zeros((6, 8), np.uint16)
        depth[1, 2] = 256 * 7 + 128
        write_png(tmp_path / "image" / f"{stem.format('image')}.png", picture)
        write_png(tmp_path / "groundtruth_depth" / f"{stem.format('groundtruth_depth')}.png", depth)
        (tmp_path / "intrinsics").mkdir()
        (tmp_path / "intrinsics" / f"{stem.format('image')}.txt").write_text("721.5 0 609.6 0 721.6 172.9 0 0 1")
        sample = KittiDataset(tmp_path)[0]
        assert sample.depth_m[1, 2] == 7.5
        assert np.count_nonzero(sample.depth_m) == 1
        assert sample.intrinsics is None  # they apply to 352x1216 only
        write_png(tmp_path / "image" / f"{stem.format('image')}.png", np.zeros((352, 1216, 3), np.uint8))
        write_png(
            tmp_path / "groundtruth_depth" / f"{stem.format('groundtruth_depth')}.png", np.ones((352, 1216), np.uint16)
        )
        assert KittiDataset(tmp_path)[0].intrinsics.tolist() == pytest.approx([721.5, 721.6, 609.6, 172.9])

    def test_annotated_drives_find_their_raw_pictures(
        self, tmp_path: Path, picture: np.ndarray, write_png: Writer
    ) -> None:
        drive, name = "2011_09_26_drive_0001_sync", "0000000005.png"
        depth = np.full((6, 8), 512, np.uint16)
        write_png(tmp_path / "train" / drive / "proj_depth/groundtruth/image_03" / name, depth)
        raw = tmp_path / "raw" / "2011_09_26"
        write_png(raw / drive / "image_03/data" / name, picture)
        row = "P_rect_03: 7.2e+02 0 6.0e+02 -3.3e+02 0 7.3e+02 1.7e+02 2.1 0 0 1 0\n"
        head = "calib_time: x\nP_rect_02: 1 1 1 1 1 1 1 1 1 1 1 1\n"
        (raw / "calib_cam_to_cam.txt").write_text(head + row)
        assert KittiDataset(tmp_path)[0].focal is None  # image size unknown
        (raw / "calib_cam_to_cam.txt").write_text(head + "S_rect_03: 1.6e+01 1.2e+01\n" + row)
        assert KittiDataset(tmp_path)[0].intrinsics.tolist() == pytest.approx([360, 365, 299.75, 84.75])
        (raw / "calib_cam_to_cam.txt").write_text(head + "S_rect_03: 8.0e+00 6.0e+00\n" + row)
        sample = KittiDataset(tmp_path)[0]
        assert np.array_equal(sample.rgb, picture)
        assert (sample.depth_m == 2).all()
        assert sample.intrinsics.tolist() == pytest.approx([720, 730, 600, 170])
        (raw / drive / "image_03/data" / name).unlink()
        with pytest.raises(DatasetError, match=r"0000000005\.png has no raw picture"):
            KittiDataset(tmp_path)[0]

    def test_a_split_is_a_folder_or_the_list_of_eigen_s_test_frames(
        self, tmp_path: Path, picture: np.ndarray, write_png: Writer
    ) -> None:
        for part, drive, camera in (("train", "01", "02"), ("val", "02", "02"), ("val", "02", "03")):
            folder = tmp_path / part / f"2011_09_26_drive_00{drive}_sync" / "proj_depth/groundtruth" / f"image_{camera}"
            for frame in (5, 6):
                write_png(folder / f"{frame:010d}.png", np.full((6, 8), 512, np.uint16))
        assert [len(KittiDataset(tmp_path, split)) for split in (None, Split.TRAIN, Split.VAL)] == [6, 2, 4]
        with pytest.raises(DatasetError, match=r"test_files\.txt is missing.*monodepth2"):
            KittiDataset(tmp_path, Split.TEST)
        drive = "2011_09_26_drive_0002_sync"
        lines = [f"2011_09_26/{drive} 5 l", f"2011_09_26/{drive}/image_03/data/0000000006.png None 721.5", ""]
        (tmp_path / "test_files.txt").write_text(
            "\n".join([*lines, "2011_09_26/2011_09_26_drive_0099_sync 0000000001 l"])
        )
        names = [path.relative_to(tmp_path).as_posix() for path in KittiDataset(tmp_path, Split.TEST)._depths]
        folder_name = f"val/{drive}/proj_depth/groundtruth"
        assert names == [f"{folder_name}/image_02/0000000005.png", f"{folder_name}/image_03/0000000006.png"]
        (tmp_path / "test_files.txt").write_text("what is this\n")
        with pytest.raises(DatasetError, match="line 1: expected"):
            KittiDataset(tmp_path, Split.TEST)

    def test_an_empty_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="holds neither"):
            KittiDataset(tmp_path)


class TestTum:
    @pytest.fixture
    def root(self, tmp_path: Path, picture: np.ndarray, write_png: Writer) -> Path:
        root = tmp_path / "rgbd_dataset_freiburg1_desk"
        for k, time_s in enumerate(("1305031453.359684", "1305031453.391690", "1305031453.999999")):
            write_png(root / "rgb" / f"{time_s}.png", np.roll(picture, k, axis=0))
        for k, time_s in enumerate(("1305031453.374112", "1305031453.404816")):
            write_png(root / "depth" / f"{time_s}.png", np.full((6, 8), 5000 + 2500 * k, np.uint16))
        for kind in ("rgb", "depth"):
            names = sorted(p.name for p in (root / kind).iterdir())
            lines = [f"{name.removesuffix('.png')} {kind}/{name}" for name in names]
            (root / f"{kind}.txt").write_text("\n".join(["# colour images", "# file: 'x.bag'", *lines, ""]))
        return root

    def test_pictures_are_paired_with_the_depth_nearest_in_time(self, root: Path, picture: np.ndarray) -> None:
        dataset = TumDataset(root)
        assert len(dataset) == 2
        assert [float(dataset[i].depth_m[0, 0]) for i in range(2)] == [1.0, 1.5]
        assert np.array_equal(dataset[1].rgb, np.roll(picture, 1, axis=0))
        scaled = [517.3 / 80, 516.5 / 80, 319.1 / 80 - 0.5, 255.8 / 80 - 0.5]  # from 480x640 to 6x8
        assert dataset[0].intrinsics.tolist() == pytest.approx(scaled)
        assert dataset[0].focal == pytest.approx(math.sqrt(517.3 / 640 * 516.5 / 480))

    @pytest.mark.parametrize(
        ("folder", "fx"),
        [("rgbd_dataset_freiburg2_desk", 520.9), ("fr3_office", 535.4), ("freiburg1/desk", 517.3)],
    )
    def test_the_path_names_the_camera(self, root: Path, folder: str, fx: float) -> None:
        moved = root.parent / "freiburg9" / folder
        moved.parent.mkdir(parents=True)
        root.rename(moved)
        assert TumDataset(moved)[0].intrinsics[0] == pytest.approx(fx / 80)

    def test_another_camera_or_a_crop_is_unknown(self, root: Path) -> None:
        for path in [*root.glob("rgb/*.png"), *root.glob("depth/*.png")]:
            with Image.open(path) as opened:
                opened.crop((0, 0, 8, 4)).save(path)
        assert TumDataset(root)[0].focal is None
        moved = root.rename(root.parent / "my_own_frames")
        assert TumDataset(moved)[0].intrinsics is None

    def test_a_pair_closer_in_time_wins(self) -> None:
        # 1.010 could match both depths; 1.000 is nearer to 1.001 and is matched first.
        assert associate([1.000, 1.010], [1.001, 1.018]) == [(1.000, 1.001), (1.010, 1.018)]
        assert associate([1.0], [1.05]) == []

    def test_faults_name_the_file(self, root: Path) -> None:
        (root / "rgb.txt").write_text("not-a-time rgb/x.png")
        with pytest.raises(DatasetError, match=r"rgb\.txt, line 1"):
            TumDataset(root)
        (root / "rgb.txt").unlink()
        with pytest.raises(DatasetError, match=r"rgb\.txt is missing"):
            TumDataset(root)


class TestDiode:
    @pytest.fixture
    def root(self, tmp_path: Path, picture: np.ndarray, write_png: Writer) -> Path:
        scan = tmp_path / "indoors/scene_00019/scan_00183"
        write_png(scan / "00019_00183_indoors_000_010.png", picture)
        np.save(scan / "00019_00183_indoors_000_010_depth.npy", np.full((6, 8, 1), 3.5, np.float32))
        mask = np.ones((6, 8), np.float32)
        mask[0] = 0
        np.save(scan / "00019_00183_indoors_000_010_depth_mask.npy", mask)
        return tmp_path

    def test_masked_pixels_are_without_depth(self, root: Path, picture: np.ndarray) -> None:
        sample = DiodeDataset(root)[0]
        assert np.array_equal(sample.rgb, picture)
        assert (sample.depth_m[0] == 0).all()
        assert (sample.depth_m[1:] == 3.5).all()
        assert sample.focal == pytest.approx(math.sqrt(886.81 / 1024 * 927.06 / 768))

    def test_faults_name_the_file(self, root: Path) -> None:
        next(root.glob("**/*_mask.npy")).unlink()
        with pytest.raises(DatasetError, match=r"010_depth_mask\.npy is missing"):
            DiodeDataset(root)[0]
        next(root.glob("**/*_depth.npy")).unlink()
        with pytest.raises(DatasetError, match=r"holds no .*_depth\.npy"):
            DiodeDataset(root)


def _write_hdf5(path: Path, distance_m: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["dataset"] = distance_m


class TestHypersim:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Plane 2 m from the camera, stored as distances to the camera centre, as in Hypersim."""
        h5py = pytest.importorskip("h5py")
        images = tmp_path / "ai_001_001/images"
        (images / "scene_cam_00_final_preview").mkdir(parents=True)
        (images / "scene_cam_00_geometry_hdf5").mkdir()
        height, width, focal = 48, 64, 886.81 * 64 / 1024
        Image.new("RGB", (width, height)).save(images / "scene_cam_00_final_preview/frame.0000.tonemap.jpg")
        rays = [[np.hypot(np.hypot(u + 0.5 - 32, v + 0.5 - 24), focal) for u in range(width)] for v in range(height)]
        distance = 2.0 * np.array(rays) / focal
        distance[0, 0] = np.nan
        with h5py.File(images / "scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5", "w") as file:
            file["dataset"] = distance.astype(np.float16)
        return tmp_path

    def test_distance_becomes_planar_depth(self, root: Path) -> None:
        sample = HypersimDataset(root)[0]
        assert np.isnan(sample.depth_m[0, 0])
        # Stored as float16, which has 11 bits.
        assert np.nanmax(np.abs(sample.depth_m - 2.0)) < 2.0 * 2**-11
        assert sample.intrinsics is None  # 60 degrees is usual, but not stated for this scene

    def test_the_scene_s_camera_is_read_from_the_file_beside_it(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = next(root.glob("**/*.depth_meters.hdf5"))
        height, width = 48, 64
        fx, fy, cx, cy = 40.0, 45.0, 30.5, 25.5
        right, above = (width / 2 - 0.5 - cx) / fx, -(height / 2 - 0.5 - cy) / fy  # ray through the image centre
        camera = [width / 2 / fx, 0, right, 0, height / 2 / fy, above, 0, 0, -1]
        v, u = np.mgrid[0:height, 0:width]
        distance = 2.0 * np.sqrt(((u - cx) / fx) ** 2 + ((v - cy) / fy) ** 2 + 1)
        _write_hdf5(path, distance)
        names = ["scene_name", *(f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3))]
        table = [names, ["ai_001_001", *map(str, camera)], ["ai_001_002", *"100010002"]]
        for folder in (root / "ai_001_001", root, root.parent):
            file = folder / "metadata_camera_parameters.csv"
            file.write_text("\n".join(",".join(row) for row in table))
            sample = HypersimDataset(root)[0]
            assert np.abs(sample.depth_m - 2.0).max() < 1e-5
            assert sample.intrinsics.tolist() == pytest.approx([fx, fy, cx, cy])
            file.unlink()
        assert not caplog.records
        HypersimDataset(root)[0]
        assert "intrinsics are unknown" in caplog.text

    def test_a_tilted_image_plane_has_depth_but_no_intrinsics(self, root: Path) -> None:
        names = ["scene_name", *(f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3))]
        row = ["ai_001_001", "0.577", "0", "0", "0", "0.433", "0", "0", "0.1", "-1"]
        (root / "metadata_camera_parameters.csv").write_text(f"{','.join(names)}\n{','.join(row)}\n")
        sample = HypersimDataset(root)[0]
        assert sample.focal is None
        assert np.nanmin(sample.depth_m) > 1
        (root / "metadata_camera_parameters.csv").write_text("scene_name,fov\nai_001_001,60\n")
        with pytest.raises(DatasetError, match=r"metadata_camera_parameters\.csv does not have the columns"):
            HypersimDataset(root)[0]

    def test_faults_name_the_file(self, root: Path) -> None:
        next(root.glob("**/*.jpg")).unlink()
        with pytest.raises(DatasetError, match=r"frame\.0000\.tonemap\.jpg is missing"):
            HypersimDataset(root)[0]


@pytest.mark.parametrize("name", list(DataFormat))
def test_every_format_refuses_a_folder_that_is_not_there(name: DataFormat, tmp_path: Path) -> None:
    for given in (name, str(name)):
        with pytest.raises(DatasetError, match="absent"):
            open_dataset(given, tmp_path / "absent")


def test_a_part_of_a_format_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format tum has no test split"):
        open_dataset("tum", tmp_path, split="test")


def test_the_synthetic_range_is_the_renderer_s() -> None:
    from mvde.datasets.synth import renderer
    from mvde.datasets.synthetic import SyntheticDataset

    assert SyntheticDataset.depth_range_m == (renderer.NEAR_M, renderer.FAR_M)
    assert KittiDataset.depth_range_m == (1e-3, 80.0)
    assert NyuDataset.depth_range_m == (1e-3, 10.0)


def test_an_unknown_format_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder, synthetic, clips, nyu"):
        open_dataset("nuy", tmp_path)
