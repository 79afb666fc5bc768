"""The commands ``mvde data pack`` and ``mvde data index``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.datasets.formats import open_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five frames in the folder format, with depth in 256ths of a metre."""
    for kind in ("rgb", "depth"):
        (tmp_path / "in" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(5):
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(tmp_path / f"in/rgb/{index}.png")
        Image.fromarray(rng.integers(0, 9000, (6, 8), dtype=np.uint16)).save(tmp_path / f"in/depth/{index}.png")
    return tmp_path / "in"


def test_a_data_set_is_packed_once_and_reads_as_shards(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["data", "pack", str(folder), "--out", str(out), "--shard-frames", "2", "--depth-scale", "256"]
    assert cli.execute(command) == 0
    assert "5 frames in shards of 2, 3 shards of them new" in capsys.readouterr().out
    made, given = open_dataset("shards", out), open_dataset("folder", folder, 256)
    for index in range(5):
        np.testing.assert_array_equal(made[index].depth_m, given[index].depth_m)
    assert cli.execute(command) == 0
    assert "0 shards of them new" in capsys.readouterr().out
    assert cli.execute([*command[:-1], "1000"]) == 2
    assert "holds shards of something else" in capsys.readouterr().err


def test_shards_are_listed_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.execute(["data", "pack", str(folder), "--out", str(out), "--shard-frames", "3"]) == 0
    list_file = out / "shards.jsonl"
    before = list_file.read_text().splitlines()
    list_file.unlink()
    assert cli.execute(["data", "index", str(out)]) == 0
    assert f"{out}: 5 frames" in capsys.readouterr().out
    assert list_file.read_text().splitlines()[1:] == before[1:]


def test_what_is_no_data_set_in_shards_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["data", "index", str(folder)]) == 1
    assert "no .tar or .parquet file" in capsys.readouterr().err
    assert cli.execute(["data", "pack", str(folder / "none"), "--out", str(folder / "out")]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert not (folder / "out").exists()
