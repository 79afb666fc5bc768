"""``mvde stats``: exit statuses, and what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mvde import bulk, cli
from mvde.assets import sample_photos

pytest.importorskip("pyarrow")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four photographs and one file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sample_photos()[:4]:
        shutil.copy(path, folder)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def run(*arguments: object) -> int:
    return cli.execute(list(map(str, arguments)))


def test_pictures_become_rows_and_a_repetition_does_nothing(
    pictures: Path, engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["stats", pictures, "-e", engine_folder, "-o", tmp_path / "out", "--workers", 1, "--max-error-rate", 0.2]
    assert run(*command, "--fov", "69x42") == 0
    said = capsys.readouterr()
    assert f"5 pictures, 1 of them errors, in {tmp_path}/out/ (1 shards done)" in said.out
    assert "error row: cannot read the image broken.jpg" in said.err
    assert run(*command, "--fov", "69x42") == 0
    assert "(0 shards done, 1 were there)" in capsys.readouterr().out
    assert len(bulk.open(tmp_path / "out")) == 4
    assert run(*command) == 2
    assert "camera: there 'field of view 69x42 degrees'" in capsys.readouterr().err


def test_too_many_error_rows_are_exit_status_one_and_all_rows_are_there(
    pictures: Path, engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("stats", pictures, "-e", engine_folder, "-o", tmp_path / "out", "--workers", 1) == 1
    assert "1 of 5 pictures are errors, 20.0%, more than the 5.0% of --max-error-rate" in capsys.readouterr().err
    assert len(list(bulk.open(tmp_path / "out").all_keys())) == 5


@pytest.mark.slow
def test_rows_are_those_of_a_models_processor(
    pictures: Path, engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.vlm.tiny_llava import llava_processor

    llava_processor().save_pretrained(tmp_path / "model")
    command = ["stats", pictures, "-e", engine_folder, "-o", tmp_path / "out", "--workers", 1, "--max-error-rate", 0.2]
    assert run(*command, "--processor", tmp_path / "model") == 0
    folder = bulk.open(tmp_path / "out")
    assert {item["depth_stats"].shape for item in map(folder.__getitem__, range(len(folder)))} == {(16, 3)}
    assert run(*command) == 2
    assert "processor: there 'LlavaProcessor SiglipImageProcessor" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--shard", "3/2"], 2, "a part is i/n"),
        (["--stats", "mean,median"], 2, "median"),
        (["--camera", "30,30,15,10"], 2, "--frame HxW"),
        (["--fit", "shrink"], 2, "shrink"),
        (["--calibration", "absent.json"], 1, "absent.json"),
        (["--processor", "absent"], 2, "folder of a model of transformers"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    options: list[str], status: int, message: str, pictures: Path, engine_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run("stats", pictures, "-e", engine_folder, "-o", tmp_path / "out", *options) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_none_are_refused(
    engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("stats", tmp_path / "absent", "-e", engine_folder, "-o", tmp_path / "out") == 1
    assert "the input matches no file" in capsys.readouterr().err
