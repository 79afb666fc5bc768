"""Where frames come from, and what their results are named after."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.errors import ImageError, MissingDependencyError
from mvde.runtime.sources import count_frames, expand_inputs, read_frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "sub/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (10, 20, 30)).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_folders_patterns_and_files_expand_in_order_without_repeats(folder: Path) -> None:
    names = [path.relative_to(folder).as_posix() for path in expand_inputs([str(folder), f"{folder}/*.png"])]
    assert names == ["a.jpg", "b.png"]
    names = [path.relative_to(folder).as_posix() for path in expand_inputs([f"{folder}/**/*.jpg"])]
    assert names == ["a.jpg", "sub/a.jpg"]


def test_an_input_that_names_nothing_is_an_error(folder: Path) -> None:
    with pytest.raises(ImageError, match=r"matches no file: .*\*\.gif"):
        expand_inputs([f"{folder}/*.gif"])
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match="folder holds no image"):
        expand_inputs([str(folder / "empty")])


def test_results_of_files_with_one_name_do_not_overwrite_each_other(folder: Path) -> None:
    frames = list(read_frames([folder / "a.jpg", folder / "sub/a.jpg", folder / "b.png", folder / "sub/a.jpg"]))
    stems = [frame.stem for frame in frames]
    assert len(set(stems)) == 4
    assert stems[2] == "b"
    assert all(frame.image.shape == (6, 8, 3) for frame in frames)


def test_a_video_without_the_library_names_the_extra(tmp_path: Path) -> None:
    if importlib.util.find_spec("av") is not None:
        pytest.skip("PyAV is installed")
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"mvde\[video\]"):
        count_frames([tmp_path / "a.mp4"])


def test_a_video_gives_its_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (20, 120, 220):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert count_frames([path]) == 3
    frames = list(read_frames([path]))
    assert [frame.stem for frame in frames] == ["clip-000000", "clip-000001", "clip-000002"]
    # Lossy and in limited-range YUV: a few levels.
    np.testing.assert_allclose([frame.image.mean() for frame in frames], (20, 120, 220), atol=8)
    (tmp_path / "broken.mp4").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"cannot read the video .*broken\.mp4"):
        list(read_frames([tmp_path / "broken.mp4"]))
