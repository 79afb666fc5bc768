"""Pictures of a shard: keys, offsets, and files that are damaged."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from mvde.bulk.inputs import Listed, Shard, ShardKind
from mvde.bulk.reading import read_items
from mvde.errors import DatasetError


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Shard:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return Shard(path.stem, ShardKind.TAR, str(path))


def test_a_tar_keeps_webdatasets_keys_and_says_where_each_picture_lies(tmp_path: Path) -> None:
    members = [("a/1.jpg", b"one"), ("a/1.json", b"{}"), ("a/2.seg.png", b"no"), ("b.c/2.PNG", b"two")]
    shard = write_tar(tmp_path / "x.tar", members)
    items = list(read_items(shard))
    assert [(item.key, item.source, item.content) for item in items] == [
        ("a/1", "x.tar", b"one"), ("b.c/2", "x.tar", b"two")
    ]  # fmt: skip
    content = (tmp_path / "x.tar").read_bytes()
    assert [content[item.offset : item.offset + item.size] for item in items] == [b"one", b"two"]


def test_a_tar_that_is_cut_off_gives_what_is_there_and_an_error(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", [(f"{n}.jpg", bytes(3000)) for n in range(4)])
    whole = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[: 2 * (512 + 3072) + 600])  # in the third picture
    items = list(read_items(shard))
    assert [item.key for item in items] == ["0", "1", "x.tar#cut"]
    assert "cut off or damaged after '2'" in str(items[2].error)


def test_a_key_that_is_there_twice_is_an_error_the_second_time(tmp_path: Path) -> None:
    items = list(read_items(write_tar(tmp_path / "x.tar", [("1.jpg", b"one"), ("1.png", b"again"), ("2.jpg", b"two")])))
    assert [(item.key.partition("#")[0], item.error is None) for item in items] == [
        ("1", True),
        ("1", False),
        ("2", True),
    ]
    assert len({item.key for item in items}) == 3


def test_what_is_no_tar_or_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"something else" * 100)
    with pytest.raises(DatasetError, match="is no tar"):
        list(read_items(Shard("x", ShardKind.TAR, str(tmp_path / "x.tar"))))
    with pytest.raises(DatasetError, match="No such file"):
        list(read_items(Shard("y", ShardKind.TAR, str(tmp_path / "y.tar"))))


def test_parquet_columns_of_bytes_or_structures_are_found_with_keys_and_cameras(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    camera = {name: [float(n), None] for n, name in enumerate(("fx", "fy", "cx", "cy"))}
    parquet.write_table(pa.table({"jpg": [b"one", None], **camera}), tmp_path / "x.parquet")
    one, two = read_items(Shard("x", ShardKind.PARQUET, str(tmp_path / "x.parquet")))
    assert (one.key, one.content, one.camera) == ("x-000000000", b"one", (0.0, 1.0, 2.0, 3.0))
    assert (two.key, two.content, two.camera) == ("x-000000001", None, None)
    assert "row 1 of x.parquet has no picture" in str(two.error)


def test_a_parquet_file_without_the_column_or_with_two_is_refused(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"left": [b"1"], "right": [b"2"]}), tmp_path / "x.parquet")
    shard = Shard("x", ShardKind.PARQUET, str(tmp_path / "x.parquet"))
    with pytest.raises(DatasetError, match=r"several columns of bytes \(left, right\)"):
        list(read_items(shard))
    named = Shard("x", ShardKind.PARQUET, str(tmp_path / "x.parquet"), column="middle")
    with pytest.raises(DatasetError, match="no column 'middle'; it has left, right"):
        list(read_items(named))
    (tmp_path / "x.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DatasetError, match="no Parquet file"):
        list(read_items(shard))


def test_a_parquet_key_that_is_there_twice_is_an_error_the_second_time(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"id": ["a", "b", "a"], "jpg": [b"1", b"2", b"3"]}), tmp_path / "x.parquet")
    items = list(read_items(Shard("x", ShardKind.PARQUET, str(tmp_path / "x.parquet"))))
    assert [(item.key, item.content) for item in items] == [("a", b"1"), ("b", b"2"), ("a#2", None)]
    assert "'a' is there twice in x.parquet; the first is at 0" in str(items[2].error)


def test_a_store_that_fails_in_mid_read_fails_its_shard_and_a_single_file_its_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lost(Exception):  # noqa: N818
        """Error of a library below fsspec, which is no OSError."""

    class Stream(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise Lost("connection reset")

    class Store:
        def open(self, path: str, mode: str) -> io.BytesIO:
            if "gone" in path:
                raise Lost("connection reset")
            return Stream(b"x" * 2000)

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Store(), url))
    with pytest.raises(DatasetError, match=r"cannot read s3://b/x\.tar: Lost: connection reset; the same command"):
        list(read_items(Shard("x", ShardKind.TAR, "s3://b/x.tar")))
    items = list(read_items(Shard("x", ShardKind.FILES, "s3://b", (Listed("gone.jpg"), Listed("half.jpg")))))
    assert [item.content for item in items] == [None, None]
    assert all("connection reset" in str(item.error) for item in items)


def test_a_file_that_is_not_there_is_an_item_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"one")
    files = (Listed("1.jpg"), Listed("2.jpg"), Listed("list:3", "line 3 is no JSON"))
    items = list(read_items(Shard("x", ShardKind.FILES, str(tmp_path), files)))
    assert [item.content for item in items] == [b"one", None, None]
    assert [item.error for item in items] == [None, "cannot read 2.jpg: No such file or directory", "line 3 is no JSON"]
