"""Data sets in shards: what is packed reads back equal, and every fault names its shard."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.datasets import pack as packing
from mvde.datasets import shards as reading
from mvde.datasets.folder import FolderDataset
from mvde.datasets.formats import ShardKind
from mvde.datasets.pack import index_shards, pack
from mvde.datasets.sample import DepthSample, ShardedDataset
from mvde.datasets.shard_list import LIST_FILE
from mvde.datasets.shards import ShardDataset
from mvde.errors import DatasetError, OutputError, UsageError

KINDS = list(ShardKind)
Writer = Callable[[Path, np.ndarray], None]


@pytest.fixture(autouse=True)
def _needs_pyarrow(request: pytest.FixtureRequest) -> None:
    if ShardKind.PARQUET in getattr(getattr(request.node, "callspec", None), "params", {}).values():
        pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path: Path, picture: np.ndarray, write_png: Writer) -> FolderDataset:
    """Seven frames in millimetres, a JPEG among them, and two whose depth needs float32."""
    root = tmp_path / "folder"
    rng = np.random.default_rng(0)
    for index in range(7):
        write_png(root / "rgb" / f"{index}.png", np.roll(picture, index, axis=1))
        write_png(root / "depth" / f"{index}.png", rng.integers(0, 65536, (6, 8)).astype(np.uint16))
    (root / "rgb" / "2.png").unlink()
    Image.fromarray(picture).save(root / "rgb" / "2.jpg", quality=60)
    (root / "depth" / "3.png").unlink()
    np.save(root / "depth" / "3.npy", rng.random((6, 8)))
    (root / "depth" / "4.png").unlink()
    np.save(root / "depth" / "4.npy", np.where(rng.random((6, 8)) < 0.5, np.nan, 2.0))
    (root / "intrinsics.txt").write_text("7.5 7.25 3.5 2.5")
    return FolderDataset(root)


def assert_equal(one: DepthSample, other: DepthSample) -> None:
    np.testing.assert_array_equal(one.rgb, other.rgb)
    np.testing.assert_array_equal(one.depth_m, other.depth_m)
    assert one.depth_m.dtype == other.depth_m.dtype == np.float32
    np.testing.assert_array_equal(one.intrinsics, other.intrinsics)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_set_reads_back_equal_in_any_order(folder: FolderDataset, tmp_path: Path, kind: ShardKind) -> None:
    assert pack(folder, tmp_path / "out", kind, 3, "folder") == 3
    made = ShardDataset(tmp_path / "out")
    assert isinstance(made, ShardedDataset)
    assert made.shard_sizes == [3, 3, 1]
    assert made.depth_range_m == folder.depth_range_m
    for index in (6, 0, 4, 3, 1, 5, 2):
        assert_equal(made[index], folder[index])
    assert len({made[index].name for index in range(7)}) == 7
    with pytest.raises(IndexError):
        made[7]


def test_pictures_are_copied_and_depth_in_millimetres_stays_16_bit(folder: FolderDataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(folder, out, ShardKind.WEBDATASET, 7, "folder")
    with tarfile.open(out / "shard-000000.tar") as tar:
        names = tar.getnames()
        jpeg = tar.extractfile("000000002.jpg")
        assert jpeg is not None
        assert jpeg.read() == folder.rgb_path(2).read_bytes()
    assert [name for name in names if name.endswith(".depth.npy")] == ["000000003.depth.npy", "000000004.depth.npy"]


def test_depth_of_another_scale_is_stored_in_it(tmp_path: Path, picture: np.ndarray, write_png: Writer) -> None:
    write_png(tmp_path / "in/rgb/0.png", picture)
    write_png(tmp_path / "in/depth/0.png", np.arange(48, dtype=np.uint16).reshape(6, 8) + 12000)
    folder = FolderDataset(tmp_path / "in", depth_scale=5000)
    pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 1, "")
    assert '"depth_scale": 5000.0' in (tmp_path / "out" / LIST_FILE).read_text()
    assert_equal(ShardDataset(tmp_path / "out")[0], folder[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    folder: FolderDataset, tmp_path: Path, kind: ShardKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(folder, tmp_path / "whole", kind, 2, "folder")
    write = packing._append
    appended = []

    def stopping(root: Path, entry: object) -> None:
        if len(appended) == 2:
            raise KeyboardInterrupt
        appended.append(entry)
        write(root, entry)  # type: ignore[arg-type]

    out = tmp_path / "parts"
    with monkeypatch.context() as patched:
        patched.setattr(packing, "_append", stopping)
        with pytest.raises(KeyboardInterrupt):
            pack(folder, out, kind, 2, "folder")
    with pytest.raises(DatasetError, match="lists 2 of 4 shards"):
        ShardDataset(out)
    with (out / LIST_FILE).open("a") as stream:
        stream.write('{"name": "shard-00')  # as a kill in the middle of a line leaves it
    assert pack(folder, out, kind, 2, "folder") == 2
    assert pack(folder, out, kind, 2, "folder") == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_a_folder_of_something_else_is_refused(folder: FolderDataset, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 3, "folder")
    with pytest.raises(UsageError, match="holds shards of something else"):
        pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 4, "folder")
    with pytest.raises(UsageError, match="no empty folder"):
        pack(folder, tmp_path / "folder", ShardKind.WEBDATASET, 3, "folder")
    with pytest.raises(UsageError, match="at least 1 frame, but got the size 0"):
        pack(folder, tmp_path / "new", ShardKind.WEBDATASET, 0, "folder")


def test_a_full_disk_keeps_the_finished_shards(
    folder: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = packing._write_tar
    written = []

    def failing(path: Path, frames: object) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, frames)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(packing, "_write_tar", failing)
        with pytest.raises(OutputError, match="No space left"):
            pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 3, "folder")
    assert pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 3, "folder") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_shards_that_are_asked_for_are_opened(folder: FolderDataset, tmp_path: Path, kind: ShardKind) -> None:
    pack(folder, tmp_path / "out", kind, 3, "folder")
    for path in (tmp_path / "out").glob("shard-000001*"):
        path.unlink()
    made = ShardDataset(tmp_path / "out")
    made.check_shards([0, 2])
    for index in (0, 2, 6):
        assert_equal(made[index], folder[index])
    with pytest.raises(DatasetError, match=f"lacks shards.*shard-000001{kind.suffix}: No such file"):
        made.check_shards(range(3))
    with pytest.raises(DatasetError, match="shard-000001"):
        made[3]


def test_few_shards_stay_open(folder: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_OPEN", 2)
    pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 1, "folder")
    made = ShardDataset(tmp_path / "out")
    for index in (0, 1, 2, 0, 6, 5, 6):
        assert_equal(made[index], folder[index])
    assert list(made._open) == [5, 6]


def test_a_data_set_goes_to_worker_processes_without_its_open_files(folder: FolderDataset, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 3, "folder")
    made = ShardDataset(tmp_path / "out")
    assert_equal(made[5], folder[5])
    assert_equal(pickle.loads(pickle.dumps(made))[5], folder[5])


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_is_cut_off_is_named(folder: FolderDataset, tmp_path: Path, kind: ShardKind) -> None:
    pack(folder, tmp_path / "out", kind, 7, "folder")
    shard = tmp_path / "out" / f"shard-000000{kind.suffix}"
    shard.write_bytes(shard.read_bytes()[: -(11 << 10)])
    with pytest.raises(DatasetError, match=rf"{shard.name} has \d+ bytes instead of \d+"):
        ShardDataset(tmp_path / "out").check_shards([0])
    with pytest.raises(DatasetError, match="copy the shard again"):
        ShardDataset(tmp_path / "out")[0]
    with pytest.raises(DatasetError, match=rf"{shard.name} is cut off"):
        index_shards(tmp_path / "out")


def test_the_index_of_a_tar_is_found_where_it_is_missing_or_damaged(folder: FolderDataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(folder, out, ShardKind.WEBDATASET, 7, "folder")
    beside = out / "shard-000000.tar.index.npy"
    index = np.load(beside)
    assert index.shape == (7, 3, 2)
    np.save(beside, index[:, :2])
    assert_equal(ShardDataset(out)[6], folder[6])
    beside.unlink()
    assert_equal(ShardDataset(out)[6], folder[6])


def tar_of(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_shards_of_another_program_are_read_after_they_are_listed(tmp_path: Path, picture: np.ndarray) -> None:
    depth = np.full((6, 8), 512, np.uint16)
    tar_of(tmp_path / "b.tar", {"x/1.cls": b"3", "x/1.PNG": png(picture), "x/1.depth.png": png(depth)})
    camera = json.dumps({"intrinsics": [7, 7, 3.5, 2.5], "caption": "a room"}).encode()
    tar_of(tmp_path / "a.tar", {"k.v2.json": b"", "k.json": camera, "k.depth.png": png(depth), "k.png": png(picture)})
    with pytest.raises(DatasetError, match=f"has no {LIST_FILE}.*mvde data index"):
        ShardDataset(tmp_path)
    assert index_shards(tmp_path, depth_scale=256) == 2
    made = ShardDataset(tmp_path)
    assert [made[index].name for index in range(2)] == ["a.tar:0", "b.tar:0"]
    assert made[0].intrinsics is not None
    assert made[0].intrinsics.tolist() == [7, 7, 3.5, 2.5]
    assert made[1].intrinsics is None
    assert (made[1].depth_m == 2).all()
    np.testing.assert_array_equal(made[1].rgb, picture)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg"], "'1' has no depth"),
        (["1.depth.png"], "'1' has no picture"),
        (["readme.txt"], "holds no sample"),
        (["1.jpg", "1.depth.png", "1.jpeg"], "'1' twice"),
    ],
)
def test_a_tar_of_another_layout_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    tar_of(tmp_path / "a.tar", dict.fromkeys(names, b"content"))
    with pytest.raises(DatasetError, match=message):
        index_shards(tmp_path)


def test_a_parquet_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"rgb": [b"x"], "label": [1]}), path)
    with pytest.raises(DatasetError, match=r"no column 'depth' of bytes; it has rgb \(binary\), label \(int64\)"):
        index_shards(tmp_path)
    parquet.write_table(pa.table({"rgb": ["a.jpg"], "depth": [b"x"]}), path)
    with pytest.raises(DatasetError, match=r"no column 'rgb' of bytes; it has rgb \(string\)"):
        index_shards(tmp_path)
    parquet.write_table(pa.table({"rgb": pa.array([None], pa.binary()), "depth": [b"x"]}), path)
    index_shards(tmp_path)
    with pytest.raises(DatasetError, match="row 0 has no picture"):
        ShardDataset(tmp_path)[0]


def test_pictures_may_be_structures_with_bytes(tmp_path: Path, picture: np.ndarray) -> None:
    """As data sets of the hub store pictures."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": png(np.roll(picture, index, axis=0)), "path": None} for index in range(5)]
    depths = [png(np.full((6, 8), 1000 + index, np.uint16)) for index in range(5)]
    parquet.write_table(pa.table({"rgb": rows, "depth": depths}), tmp_path / "a.parquet", row_group_size=2)
    index_shards(tmp_path)
    made = ShardDataset(tmp_path)
    for index in (4, 0, 3):
        np.testing.assert_array_equal(made[index].rgb, np.roll(picture, index, axis=0))
        assert (made[index].depth_m == np.float32(1 + index / 1000)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("[]\n", "no header"),
        ('{"format": "other"}\n', "has the format 'other'"),
        ('{"format": "mvde-shards-1", "kind": "zip"}\n', "no header"),
        (
            '{"format": "mvde-shards-1", "kind": "webdataset", "num_shards": 1, "depth_scale": 0, '
            '"depth_range_m": [0, 1]}\n',
            "out of range",
        ),
        ("HEADER{no json\n", "2 is no JSON"),
        ('HEADER{"name": "../a.tar", "num_frames": 1, "size_bytes": 1}\n', "expected name, num_frames"),
        ('HEADER{"name": "a.tar", "num_frames": 0, "size_bytes": 1}\n', "holds no frames"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    header = '{"format": "mvde-shards-1", "kind": "webdataset", "num_shards": 1, "depth_scale": 1000, '
    (tmp_path / LIST_FILE).write_text(text.replace("HEADER", header + '"depth_range_m": [0, 1]}\n'))
    with pytest.raises(DatasetError, match=message):
        ShardDataset(tmp_path)


def test_a_shard_with_another_number_of_frames_is_refused(folder: FolderDataset, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", ShardKind.WEBDATASET, 7, "folder")
    path = tmp_path / "out" / LIST_FILE
    path.write_text(path.read_text().replace('"num_frames": 7', '"num_frames": 6'))
    with pytest.raises(DatasetError, match=r"holds 7 frames, but shards\.jsonl says 6"):
        ShardDataset(tmp_path / "out")[0]


def test_a_folder_without_shards_or_with_both_kinds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.tar or \.parquet file"):
        index_shards(tmp_path)
    for name in ("a.tar", "b.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"both \.tar and \.parquet"):
        index_shards(tmp_path)
