"""Shards of inputs: names, order, laziness, and inputs that are none."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mvde.bulk import inputs as listing
from mvde.bulk.inputs import InputOptions, Listed, ShardKind, list_shards
from mvde.errors import DatasetError, UsageError


def keys(shards: object) -> list[str]:
    return [file.key for shard in shards for file in shard.files]  # type: ignore[attr-defined]


def test_a_folder_is_read_recursively_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b.png", "a/2.jpg", "a/10.jpg", "a/note.txt", "c/d/e.webp"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    shards = list(list_shards([str(tmp_path / "photos")], InputOptions(size=3)))
    assert keys(shards) == ["a/10.jpg", "a/2.jpg", "b.png", "c/d/e.webp"]
    assert [shard.name for shard in shards] == ["photos-000000", "photos-000001"]


def test_tars_and_parquet_files_are_shards_of_their_name(tmp_path: Path) -> None:
    for name in ("x-1.tar", "x-0.tar", "y.parquet"):
        (tmp_path / name).touch()
    shards = list(list_shards([f"{tmp_path}/*.tar", f"{tmp_path}/y.parquet"], InputOptions(column="jpg")))
    assert [(one.name, one.kind) for one in shards] == [
        ("x-0", ShardKind.TAR), ("x-1", ShardKind.TAR), ("y", ShardKind.PARQUET)
    ]  # fmt: skip
    assert shards[2].column == "jpg"


def test_a_llava_list_names_each_picture_once_whatever_its_form(tmp_path: Path) -> None:
    records = [{"image": "x/1.jpg"}, {"conversations": []}, {"image": ["x/2.jpg", "x/1.jpg"]}, {"image": "é/3.jpg"}]
    array, lines = tmp_path / "talks.json", tmp_path / "talks.jsonl"
    array.write_text(json.dumps(records, indent=1, ensure_ascii=False), encoding="utf-8")
    lines.write_text("\n".join(map(json.dumps, records)))
    for path in (array, lines):
        assert keys(list_shards([str(path)], InputOptions(image_root="/data"))) == ["x/1.jpg", "x/2.jpg", "é/3.jpg"]


def test_an_array_longer_than_a_chunk_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_CHUNK_CHARACTERS", 7)
    (tmp_path / "talks.json").write_text(json.dumps([{"image": f"ü{n}.jpg"} for n in range(50)], ensure_ascii=False))
    assert keys(list_shards([str(tmp_path / "talks.json")], InputOptions())) == [f"ü{n}.jpg" for n in range(50)]


def test_a_line_that_is_no_json_is_an_item_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "talks.jsonl").write_text('{"image": "1.jpg"}\n{"image": \n{"image": "2.jpg"}\n')
    (shard,) = list_shards([str(tmp_path / "talks.jsonl")], InputOptions())
    assert [file.key for file in shard.files] == ["1.jpg", "talks.jsonl:2", "2.jpg"]
    assert "line 2" in str(shard.files[1].error)


@pytest.mark.parametrize("text", ['[{"image": "1.jpg"}', '{"image": "1.jpg"}', "[{]"])
def test_an_array_that_is_cut_off_or_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "talks.json").write_text(text)
    with pytest.raises(DatasetError, match=r"talks\.json is (cut off|no list)"):
        list(list_shards([str(tmp_path / "talks.json")], InputOptions()))


def test_a_list_comes_from_standard_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a/1.jpg\n\na/2.jpg\na/1.jpg\n"))
    (shard,) = list_shards(["-"], InputOptions(image_root="/data"))
    assert (shard.name, shard.location) == ("stdin-000000", "/data")
    assert shard.files == (Listed("a/1.jpg"), Listed("a/2.jpg"))


def test_shards_of_a_long_list_are_made_as_they_are_asked_for() -> None:
    endless = (f"{n}.jpg\n" for n in itertools.count())
    tracemalloc.start()
    shards = listing._cut("list", "", listing._lines(endless), 1000)
    assert [next(shards).name for _ in range(20)][-1] == "list-000019"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000 * 120, "bytes: hashes of the keys, and the paths of a part and a shard"


def test_paths_are_remembered_in_eight_bytes_each() -> None:
    seen, codes = listing._Seen(), np.random.default_rng(0).integers(-(2**63), 2**63, 200_000, np.int64)
    assert sum(int(seen.add(part).sum()) for part in codes.reshape(-1, 4000)) == len(np.unique(codes))
    assert not seen.add(codes[::1000]).any()
    assert sum(run.nbytes for run in seen._runs) == 8 * len(np.unique(codes))
    assert len(seen._runs) <= 10, "searches for each part: the logarithm of the number of parts"


def test_a_picture_of_a_long_list_is_taken_at_its_first_mention_only() -> None:
    numbers = [*range(10_000), *range(4_000, 14_000), 5, *range(20_000)]
    found = [file.key for file in listing._lines(str(number) for number in numbers)]
    assert found == list(dict.fromkeys(map(str, numbers)))


class _Unreachable:
    """A file system of fsspec whose store cannot be reached."""

    def __getattr__(self, name: str) -> object:
        class NoCredentialsError(Exception):
            """Error of a library below fsspec, which is no OSError."""

        def fail(*_: object, **__: object) -> None:
            raise NoCredentialsError("Unable to locate credentials")

        return fail


@pytest.mark.parametrize("text", ["s3://bucket/pictures", "s3://bucket/*.tar", "s3://bucket/list.txt"])
def test_an_address_out_of_reach_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (_Unreachable(), url))
    with pytest.raises(DatasetError, match=r"cannot reach s3://bucket.*NoCredentialsError: Unable to locate.*address"):
        list(list_shards([text], InputOptions()))


def test_a_protocol_that_nobody_knows_is_refused() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(DatasetError, match=r"cannot open nosuch://bucket/x\.tar: .*nosuch"):
        list(list_shards(["nosuch://bucket/x.tar"], InputOptions()))


def test_urls_are_read_through_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name in ("/pictures/b.jpg", "/pictures/a/1.jpg", "/tars/0.tar"):
        memory.pipe(name, b"x")
    shards = list(list_shards(["memory://pictures", "memory://tars/*.tar"], InputOptions()))
    assert keys(shards) == ["a/1.jpg", "b.jpg"]
    assert [shard.kind for shard in shards] == [ShardKind.FILES, ShardKind.TAR]


def test_what_is_not_there_or_of_no_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").touch()
    for name, message in (("absent", "matches no file"), ("empty", "holds no image"), ("notes.md", "is no input")):
        with pytest.raises(DatasetError, match=message):
            list(list_shards([str(tmp_path / name)], InputOptions()))


def test_two_shards_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.tar").touch()
    with pytest.raises(UsageError, match="would both write the shard '0'"):
        list(list_shards([f"{tmp_path}/*/0.tar"], InputOptions()))


def test_the_limit_counts_over_all_inputs(forms: dict[str, list[str]]) -> None:
    inputs = [forms["folder"][0], forms["parquet"][0], forms["tar"][0]]
    shards = list(list_shards(inputs, InputOptions(size=8, limit=20)))
    assert [(len(shard.files), shard.limit) for shard in shards] == [(8, None), (4, None), (0, 8)]
