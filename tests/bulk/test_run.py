"""Runs: equal statistics from every form of input, errors as rows, and going on where a run stopped."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde import DepthRuntime, bulk
from mvde.bulk.formats import OutputFormat, StatsDtype
from mvde.bulk.inputs import InputOptions
from mvde.bulk.run import Part, StatsOptions, Summary, compute_stats
from mvde.bulk.work import CameraRule
from mvde.camera import Camera
from mvde.errors import ArtifactError, DatasetError, ImageError, OutputError, UsageError
from mvde.image import decode_image
from tests.bulk.conftest import in_this_process

Snapshot = Callable[[Path], dict[str, tuple[bytes, int]]]
SMALL = InputOptions(size=5)


def run(inputs: list[str], engine: Path, out: Path, cut: InputOptions = SMALL, **options: object) -> Summary:
    root = inputs[1] if len(inputs) > 1 else ""
    given = StatsOptions(**options)  # type: ignore[arg-type]
    cut = dataclasses.replace(cut, image_root=root)
    return compute_stats(inputs[:1], engine, out, input_options=cut, options=given, runner=in_this_process)


def stats_by_key(out: Path) -> dict[str, np.ndarray | None]:
    folder = bulk.open(out)
    found = {}
    for name in folder.shard_names:
        shard = folder.shard(name)
        found |= {key.removesuffix(".png"): shard.stats(row) for row, key in enumerate(shard.keys)}
    return found


@pytest.fixture(scope="module")
def finished(forms: dict[str, list[str]], engine_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of the folder of pictures; read-only by convention."""
    out = tmp_path_factory.mktemp("finished") / "out"
    run(forms["folder"], engine_folder, out)
    return out


def test_rows_hold_the_runtimes_statistics_and_what_the_picture_was(
    contents: dict[str, bytes], engine_folder: Path, tmp_path: Path, forms: dict[str, list[str]]
) -> None:
    summary = run(forms["folder"], engine_folder, tmp_path / "out", dtype=StatsDtype.F4, stats=("mean", "max"))
    assert (summary.done, summary.rows, summary.errors) == (3, 12, 1)
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        row for path in sorted((tmp_path / "out").glob("*.parquet")) for row in parquet.read_table(path).to_pylist()
    ]
    assert [row["key"] for row in rows] == list(contents)
    with DepthRuntime.load(engine_folder, stats=("mean", "max")) as runtime:
        for row, content in zip(rows, contents.values(), strict=True):
            if row["key"] == "a/004.png":
                assert "not a JPEG, PNG" in row["error"]
                assert (row["mean"], row["height"], row["grid"]) == (None, None, None)
                continue
            image = decode_image(content, row["key"])
            assert (row["height"], row["width"]) == image.shape[:2]
            assert (row["grid"], row["tiles"], row["focal"], row["error"]) == ([2, 3], 1, None, None)
            stats = np.stack([row["mean"], row["max"]], axis=-1).astype(np.float32)
            assert np.array_equal(stats, runtime.patch_stats(image))


@pytest.mark.parametrize("form", ["tar", "parquet", "llava", "jsonl", "txt"])
def test_every_form_of_input_gives_the_same_statistics(
    form: str, forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    run(forms[form], engine_folder, tmp_path / "out")
    found, expected = stats_by_key(tmp_path / "out"), stats_by_key(finished)
    assert list(found) == list(expected)
    assert found["a/004"] is None
    for key, stats in expected.items():
        assert stats is None or np.array_equal(found[key], stats)


def test_statistics_are_compressed_by_their_bytes_and_not_by_a_dictionary(finished: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    group = parquet.ParquetFile(next(finished.glob("*.parquet"))).metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    for name in ("mean", "var", "grad"):
        column = columns[f"{name}.list.element"]
        assert "BYTE_STREAM_SPLIT" in column.encodings
        assert column.dictionary_page_offset is None
        assert (column.compression, column.physical_type) == ("ZSTD", "FIXED_LEN_BYTE_ARRAY")


@pytest.mark.parametrize("form", OutputFormat)
def test_statistics_are_found_by_key_in_every_format(
    form: OutputFormat, forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    run(forms["folder"], engine_folder, tmp_path / "out", output_format=form)
    folder, expected = bulk.open(tmp_path / "out", grid=(2, 3), fit="stretch"), bulk.open(finished)
    assert np.allclose(folder.stats("b/005.png"), expected.stats("b/005.png"), rtol=0.01, atol=0)
    assert sorted(item["key"] for item in map(folder.__getitem__, range(len(folder)))) == sorted(
        key for key in expected.all_keys() if key != "a/004.png"
    )
    with pytest.raises(ImageError, match=r"a/004\.png has no statistics: cannot read"):
        folder.stats("a/004.png")


def test_a_run_that_is_repeated_touches_nothing(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    run(forms["folder"], engine_folder, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    summary = run(forms["folder"], engine_folder, tmp_path / "out")
    assert (summary.done, summary.finished, summary.rows, summary.errors) == (0, 3, 12, 1)
    assert snapshot(tmp_path / "out") == before


def test_what_is_missing_is_done_and_equal_byte_for_byte(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    run(forms["folder"], engine_folder, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    (tmp_path / "out/folder-000001.parquet").unlink()  # its record is left, as by a kill between the two
    assert run(forms["folder"], engine_folder, tmp_path / "out").done == 1
    after = snapshot(tmp_path / "out")
    assert {name: content for name, (content, _) in after.items()} == {name: one for name, (one, _) in before.items()}


def test_parts_are_disjoint_and_make_up_the_whole(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    counts = []
    for index in (1, 2):
        cut, part = InputOptions(size=5), Part(index, 2)
        counts.append(compute_stats(forms["folder"], engine_folder, tmp_path / "out", input_options=cut, part=part,
                                    runner=in_this_process).done)  # fmt: skip
    assert counts == [2, 1]
    assert list(stats_by_key(tmp_path / "out")) == list(stats_by_key(finished))


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "1/0", "1"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a part is i/n"):
        Part.parse(text)


def test_statistics_computed_otherwise_are_refused_with_the_difference(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, snapshot: Snapshot
) -> None:
    before = snapshot(finished)
    with pytest.raises(UsageError, match=r"dtype: there 'f2', now 'f4'; fit: there 'stretch', now 'crop'"):
        run(forms["folder"], engine_folder, finished, dtype=StatsDtype.F4, fit="crop")
    with pytest.raises(UsageError, match="shard_size: there 5, now 6"):
        run(forms["folder"], engine_folder, finished, InputOptions(size=6))
    assert snapshot(finished) == before


def test_an_input_that_has_changed_is_refused(engine_folder: Path, tmp_path: Path, forms: dict[str, list[str]]) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(forms["folder"][0], pictures)
    run([str(pictures)], engine_folder, tmp_path / "out")
    shutil.copy(pictures / "a/000.png", pictures / "a/002.png")
    with pytest.raises(UsageError, match=r"pictures-000000\.parquet has changed"):
        run([str(pictures)], engine_folder, tmp_path / "out")


def test_a_folder_of_something_else_is_refused_and_kept(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(UsageError, match="something else"):
        run(forms["folder"], engine_folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ArtifactError, match="no folder of mvde stats"):
        bulk.open(tmp_path)


def test_shards_with_errors_are_done_again_when_asked(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path, contents: dict[str, bytes]
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(forms["folder"][0], pictures)
    run([str(pictures)], engine_folder, tmp_path / "out")
    (pictures / "a/004.png").write_bytes(contents["a/002.png"])
    summary = compute_stats([str(pictures)], engine_folder, tmp_path / "out", input_options=SMALL,
                            retry_errors=True, runner=in_this_process)  # fmt: skip
    assert (summary.done, summary.finished, summary.errors) == (1, 2, 0)
    folder = bulk.open(tmp_path / "out")
    assert np.array_equal(folder.stats("a/004.png"), folder.stats("a/002.png"))


def test_too_many_errors_fail_at_the_end(forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path) -> None:
    summary = run(forms["folder"], engine_folder, tmp_path / "out")
    summary.check(1 / 12)
    with pytest.raises(ImageError, match=r"1 of 12 pictures are errors, 8\.3%, more than the 5\.0%"):
        summary.check(0.05)


def test_urls_are_read_as_files_are(forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe("/bulk/tarred.tar", Path(forms["tar"][0]).read_bytes())
    assert run(["memory://bulk/tarred.tar"], engine_folder, tmp_path / "out").rows == 12


def test_a_picture_of_another_size_than_the_camera_is_an_error_row(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path
) -> None:
    rule = CameraRule(camera=Camera(30.0, 30.0, 15.0, 10.0, size=(20, 30)))  # that of the first picture
    summary = run(forms["folder"], engine_folder, tmp_path / "out", camera=rule)
    assert (summary.rows, summary.errors) == (12, 11)
    assert any("this frame is" in text for text in summary.examples)


def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvde.bulk import work

    write = work.write_rows

    def full(path: Path, *arguments: object) -> object:
        if "000001" in path.name:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "write_rows", full)
    with pytest.raises(OutputError, match="No space left"):
        run(forms["folder"], engine_folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "folder-000000.json", "folder-000000.parquet", "mvde-stats.json"
    ]  # fmt: skip
    monkeypatch.undo()
    assert run(forms["folder"], engine_folder, tmp_path / "out").done == 2


def test_a_key_of_two_tars_is_refused_by_key_and_read_by_shard(
    contents: dict[str, bytes], engine_folder: Path, tmp_path: Path, write_tar: Callable[[Path, dict[str, bytes]], None]
) -> None:
    for name, key in (("x.tar", "b/003.png"), ("y.tar", "b/005.png")):
        write_tar(tmp_path / name, {"0.png": contents[key]})
    run([f"{tmp_path}/*.tar"], engine_folder, tmp_path / "out")
    folder = bulk.open(tmp_path / "out")
    with pytest.raises(DatasetError, match="has statistics of '0' in x and y; read them by shard"):
        folder.stats("0")
    one, other = (folder.shard(name).stats(0) for name in ("x", "y"))
    assert one is not None
    assert other is not None
    assert not np.array_equal(one, other)


# --- processes ---------------------------------------------------------------------------------------------------


def test_processes_give_the_bytes_of_one_process(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    summary = compute_stats(forms["folder"], engine_folder, tmp_path / "out", input_options=SMALL, num_workers=2)
    assert (summary.done, summary.failures) == (3, [])
    for path in finished.glob("*.parquet"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


DRIVER = """
import os, signal, sys
from pathlib import Path
from mvde.bulk import work
from mvde.bulk.inputs import InputOptions
from mvde.bulk.run import compute_stats

inputs, engine, out, mark, end = sys.argv[1:]
write = work.write_rows

def write_rows(path, *arguments):
    found = write(path, *arguments)
    if end == "always" and "000001" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "once" and "000001" in path.name and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)  # a worker, with its file written and not yet published
    if end == "driver" and "000002" in path.name:
        Path(mark).touch()
        signal.pause()
    return found

work.write_rows = write_rows  # in the workers too: they import this file
if __name__ == "__main__":
    summary = compute_stats([inputs], engine, out, input_options=InputOptions(size=5), num_workers=2)
    print(summary.done, [(failure.shard, failure.reason) for failure in summary.failures])
"""


def start(tmp_path: Path, forms: dict[str, list[str]], engine: Path, end: str) -> subprocess.Popen[str]:
    (tmp_path / "driver.py").write_text(DRIVER)
    arguments = [forms["folder"][0], str(engine), str(tmp_path / "out"), str(tmp_path / "mark"), end]
    command = [sys.executable, str(tmp_path / "driver.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_shard_done_again(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    said, _ = start(tmp_path, forms, engine_folder, "once").communicate(timeout=120)
    assert said.strip() == "3 []"
    assert (tmp_path / "mark").exists()
    names = {path.name for path in finished.iterdir()}
    for path in finished.glob("*.parquet"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    compute_stats(forms["folder"], engine_folder, tmp_path / "out", input_options=SMALL, runner=in_this_process)
    assert {path.name for path in (tmp_path / "out").iterdir()} == names, "the dead worker's temporaries are gone"


@pytest.mark.slow
def test_a_shard_that_kills_its_worker_is_given_up_after_three_times(
    forms: dict[str, list[str]], engine_folder: Path, tmp_path: Path
) -> None:
    said, _ = start(tmp_path, forms, engine_folder, "always").communicate(timeout=120)
    assert said.startswith("2 [('folder-000001', 'the process that computed folder-000001 was killed")
    assert "begun 3 times" in said


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_process_and_its_run_is_finished_by_the_next(
    forms: dict[str, list[str]], engine_folder: Path, finished: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, forms, engine_folder, "driver")
    until = time.monotonic() + 120
    while not (tmp_path / "mark").exists():
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    while _still_working(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _still_working(tmp_path)
    compute_stats(forms["folder"], engine_folder, tmp_path / "out", input_options=SMALL, runner=in_this_process)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in finished.iterdir()}
    for path in finished.glob("*.parquet"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def _still_working(tmp_path: Path) -> bool:
    """Whether a process with the driver's folder on its command line or as its main module is alive."""
    mark = str(tmp_path).encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                int(folder.name) != os.getpid()
                and mark in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
            ):
                return True
        except OSError:
            continue
    return False
