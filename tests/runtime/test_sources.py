"""Frame sources, and the names of their results."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mvde.errors import ImageError, MissingDependencyError
from mvde.runtime.sources import count_frames, expand_inputs, read_frames, result_stems


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
    # Lossy compression in limited-range YUV: a few levels.
    np.testing.assert_allclose([frame.image.mean() for frame in frames], (20, 120, 220), atol=8)
    (tmp_path / "broken.mp4").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"cannot read the video .*broken\.mp4"):
        list(read_frames([tmp_path / "broken.mp4"]))


def _results(paths: list[Path], stems: list[str]) -> list[str]:
    """Names of the results of files; for a video, those of a few frames."""
    frames = [*range(12), 999_999, 1_000_000, 123_456_789]
    return [
        name
        for path, stem in zip(paths, stems, strict=True)
        for name in ([f"{stem}-{index:06d}" for index in frames] if path.suffix == ".mp4" else [stem])
    ]


_STEMS = st.one_of(
    st.sampled_from(["a", "a-2", "d-a", "d-a-2", "a-jpg", "d-a-jpg", "a-000001", "a-2-000001", "d-a-000000", "a.b"]),
    st.text("ad-2.0", min_size=1, max_size=9).filter(lambda text: text.strip(".") != ""),
)
_PATHS = st.lists(
    st.builds(
        lambda folder, stem, suffix: Path(folder) / f"{stem}{suffix}",
        st.sampled_from(["", "d", "e/d", "..", "/d", "a"]),
        _STEMS,
        st.sampled_from([".jpg", ".png", ".mp4"]),
    ),
    max_size=12,
)


@given(paths=_PATHS)
def test_no_result_overwrites_another_input_s(paths: list[Path]) -> None:
    stems = result_stems(paths)
    names = _results(paths, stems)
    assert len(set(names)) == len(names)
    assert stems == result_stems(paths)
    assert all("/" not in stem and stem not in ("", ".", "..") for stem in stems)


def test_stems_stay_where_no_other_file_has_them() -> None:
    paths = [Path("d/a.jpg"), Path("d/a.png"), Path("e/b.jpg"), Path("f/b.jpg"), Path("c.png"), Path("d-a-jpg.png")]
    assert result_stems(paths) == ["d-a-jpg-2", "d-a-png", "e-b", "f-b", "c", "d-a-jpg"]
    assert result_stems([Path("clip-000001.png"), Path("clip.mp4")]) == ["clip-000001-2", "clip"]


def test_ten_thousand_names_take_no_time() -> None:
    folders = [Path(f"folder{index % 7}") for index in range(10_000)]
    for paths in (
        [folder / f"{index:05d}.jpg" for index, folder in enumerate(folders)],
        [folder / "frame.jpg" for folder in folders],  # same stem
        [folder / f"frame-{index % 50}.jpg" for index, folder in enumerate(folders)],
    ):
        took_s = []
        for _ in range(3):  # best of three: the machine may be busy
            start_s = time.process_time()
            stems = result_stems(paths)
            took_s.append(time.process_time() - start_s)
        assert len(set(stems)) == len(paths)
        assert min(took_s) < 0.2


def test_a_bad_file_is_told_and_the_others_come(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    Image.new("RGB", (8, 6)).save(tmp_path / "c.png")
    paths = [tmp_path / name for name in ("a.png", "b.png", "missing.png", "c.png")]
    told: list[tuple[str, str]] = []
    frames = list(read_frames(paths, lambda path, error: told.append((path.name, str(error)))))
    assert [frame.stem for frame in frames] == ["a", "c"]
    assert [name for name, _ in told] == ["b.png", "missing.png"]
    with pytest.raises(ImageError, match=r"b\.png"):
        list(read_frames(paths))


def test_the_good_frames_of_a_broken_video_come_before_its_error(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 1
        for seed in range(6):
            pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    Image.new("RGB", (8, 6)).save(tmp_path / "z.png")
    told: list[str] = []
    frames = list(read_frames([path, tmp_path / "z.png"], lambda _, error: told.append(str(error))))
    assert frames[0].stem == "clip-000000"
    assert frames[-1].stem == "z"
    assert len(told) == 1
    assert f"{len(frames) - 1} of 6 frames could be read" in told[0]
