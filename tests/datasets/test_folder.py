"""The generic folder format."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.datasets.folder import FolderDataset
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError, UsageError

Writer = Callable[[Path, np.ndarray], None]


@pytest.fixture
def root(tmp_path: Path, picture: np.ndarray, write_png: Writer) -> Path:
    """Two frames, with depth as PNG in millimetres and as float .npy in metres."""
    write_png(tmp_path / "rgb" / "b.png", picture)
    write_png(tmp_path / "depth" / "b.png", np.full((6, 8), 1500, np.uint16))
    write_png(tmp_path / "rgb" / "a.png", picture[::-1].copy())
    np.save(tmp_path / "depth" / "a.npy", np.full((6, 8), 2.25, np.float64))
    return tmp_path


def test_frames_come_in_the_order_of_names_with_depth_in_metres(root: Path, picture: np.ndarray) -> None:
    dataset = FolderDataset(root)
    assert [dataset[i].name for i in range(len(dataset))] == ["a.png", "b.png"]
    assert dataset[0].depth_m.dtype == np.float32
    assert (dataset[0].depth_m == 2.25).all()
    assert (dataset[1].depth_m == 1.5).all()
    assert np.array_equal(dataset[1].rgb, picture)
    assert dataset[0].intrinsics is None


def test_the_scale_is_the_stored_value_of_a_metre(root: Path) -> None:
    np.save(root / "depth" / "a.npy", np.full((6, 8), 512, np.int32))
    dataset = FolderDataset(root, depth_scale=256)
    assert dataset[0].depth_m[0, 0] == 2.0
    assert dataset[1].depth_m[0, 0] == np.float32(1500 / 256)


def test_the_scale_holds_for_floating_point_too_where_it_is_given(root: Path) -> None:
    assert FolderDataset(root, depth_scale=10)[0].depth_m[0, 0] == np.float32(0.225)
    assert FolderDataset(root)[0].depth_m[0, 0] == 2.25
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="stored value of one metre must be a positive number"):
            FolderDataset(root, depth_scale=scale)


def test_one_file_of_intrinsics_serves_all_frames(root: Path) -> None:
    (root / "intrinsics.txt").write_text("500 501\n320 240\n")
    assert FolderDataset(root)[1].intrinsics.tolist() == [500, 501, 320, 240]


def _half_size(root: Path) -> None:
    Image.new("RGB", (4, 3)).save(root / "rgb" / "b.png")
    Image.fromarray(np.full((3, 4), 1500, np.uint16)).save(root / "depth" / "b.png")


def test_intrinsics_of_one_size_are_not_used_for_another(root: Path) -> None:
    _half_size(root)
    (root / "intrinsics.txt").write_text("500 501 320 240")
    with pytest.raises(
        DatasetError, match=r"pictures of 6x8 pixels as the first one, but .*b\.png has 3x4.*width height"
    ):
        FolderDataset(root)[1]
    assert FolderDataset(root)[0].intrinsics.tolist() == [500, 501, 320, 240]


def test_intrinsics_of_a_stated_size_are_scaled(root: Path) -> None:
    _half_size(root)
    (root / "intrinsics.txt").write_text("8 6 3.5 2.5 8 6")
    first, second = (FolderDataset(root)[index] for index in range(2))
    assert first.intrinsics.tolist() == [8, 6, 3.5, 2.5]
    assert second.intrinsics.tolist() == [4, 3, 1.5, 1]
    assert first.focal == second.focal == 1
    (root / "intrinsics.txt").write_text("8 6 3.5 2.5 8 8")  # the images are crops of this size
    assert FolderDataset(root)[0].focal is None


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_picture_is_upright_like_its_depth(
    tmp_path: Path, picture: np.ndarray, write_png: Writer, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored, upright = {3: (picture[::-1, ::-1], picture), 6: (np.rot90(picture), picture)}[orientation]
    (tmp_path / "rgb").mkdir()
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "rgb" / "a.png", exif=exif)
    write_png(tmp_path / "depth" / "a.png", np.full((6, 8), 1500, np.uint16))
    np.testing.assert_array_equal(FolderDataset(tmp_path)[0].rgb, upright)
    write_png(tmp_path / "depth" / "a.png", np.full((8, 6), 1500, np.uint16))
    with pytest.raises(DatasetError, match=r"a\.png is \(8, 6\).*orientation tag \(EXIF\)"):
        FolderDataset(tmp_path)[0]


def test_pictures_of_16_bits_are_refused_as_everywhere(root: Path) -> None:
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(root / "rgb" / "b.png")
    with pytest.raises(DatasetError, match=r"b\.png is a 16-bit grey image.*convert it first: python -c"):
        FolderDataset(root)[1]


def test_a_damaged_array_is_named(root: Path) -> None:
    path = root / "depth" / "a.npy"
    for content in (b"\x93NUMPY\x01\x00" + bytes(20), b"PK\x03\x04 no archive", path.read_bytes()[:-8]):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"a\.npy is not a readable"):
            FolderDataset(root)[0]
    with path.open("wb") as file:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
        np.lib.format.write_array_header_1_0(file, shape)
    with pytest.raises(DatasetError, match=r"a\.npy is not a readable"):
        FolderDataset(root)[0]


def test_a_depth_map_is_a_png_whatever_its_name(root: Path) -> None:
    Image.fromarray(np.full((6, 8), 1500, np.uint16)).save(root / "depth" / "b.tif")
    (root / "depth" / "b.tif").rename(root / "depth" / "b.png")
    with pytest.raises(DatasetError, match=r"depth.b\.png is not a readable PNG"):
        FolderDataset(root)[1]


def _remove_depth(root: Path) -> None:
    (root / "depth" / "b.png").unlink()


def _rgb_as_depth(root: Path) -> None:
    Image.new("RGB", (8, 6)).save(root / "depth" / "b.png")


def _other_size(root: Path) -> None:
    np.save(root / "depth" / "a.npy", np.ones((5, 8), np.float32))


def _truncated(root: Path) -> None:
    path = root / "rgb" / "b.png"
    path.write_bytes(path.read_bytes()[:45])


def _pickled(root: Path) -> None:
    np.save(root / "depth" / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _three_numbers(root: Path) -> None:
    (root / "intrinsics.txt").write_text("1 2 3")


def _negative_focal_length(root: Path) -> None:
    (root / "intrinsics.txt").write_text("-1 2 3 4")


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (_remove_depth, r"b\.png has no depth"),
        (_rgb_as_depth, r"depth.b\.png is not a 16-bit grey PNG"),
        (_other_size, r"a\.npy is \(5, 8\)"),
        (_truncated, r"cannot read the image .*rgb.b\.png"),
        (_pickled, r"a\.npy is not a readable"),
        (_three_numbers, r"intrinsics\.txt holds 3 numbers"),
        (_negative_focal_length, r"intrinsics\.txt: focal lengths .* must be positive"),
    ],
)
def test_a_fault_names_its_file(root: Path, harm: Callable[[Path], None], text: str) -> None:
    harm(root)
    with pytest.raises(DatasetError, match=text):
        [FolderDataset(root)[i] for i in range(2)]


def test_an_empty_or_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="rgb is not a folder"):
        FolderDataset(tmp_path)
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    with pytest.raises(DatasetError, match="holds no picture"):
        FolderDataset(tmp_path)


def test_masked_depth_is_unknown_depth() -> None:
    depth = np.ma.masked_greater(np.array([[1, 2], [3, 4]], np.float32), 2)
    sample = DepthSample(np.zeros((2, 2, 3), np.uint8), depth, None, "a")
    assert not isinstance(sample.depth_m, np.ma.MaskedArray)
    assert sample.depth_m.tolist() == [[1, 2], [0, 0]]
