"""Video frames: rotated as the file states, and as many as it states."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde.errors import ImageError
from mvde.runtime.video import num_declared_frames, read_video

av = pytest.importorskip("av")
DATA = Path(__file__).parents[1] / "data"
NUM_FRAMES = 10


def _blocks(seed: int) -> np.ndarray:
    """RGB (48, 64, 3) of flat squares, which compress with little loss."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3))
    return np.kron(colours, np.ones((8, 8, 1))).astype(np.uint8)


def _write(path: Path, codec: str = "mpeg4", options: dict[str, str] | None = None, turn: Any = None) -> Path:
    """Write a 64x48 video at 10 frames per second, intra frames only."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 1
        if turn is not None:
            turn(stream)
        for seed in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_blocks(seed), format="rgb24")))
        container.mux(stream.encode())
    return path


def _read(path: Path) -> tuple[list[int], str]:
    """Numbers of the decoded frames, and the error that ended them."""
    numbers: list[int] = []
    try:
        for number, _ in read_video(path):
            numbers.append(number)
    except ImageError as error:
        return numbers, str(error)
    return numbers, ""


def test_a_turned_video_comes_out_upright() -> None:
    with Image.open(DATA / "upright.png") as upright:
        expected = np.asarray(upright.convert("RGB")).astype(int)
    frames = [image for _, image in read_video(DATA / "rot.mp4")]
    assert len(frames) == 3
    assert frames[0].shape == expected.shape
    assert np.abs(frames[0] - expected).mean() < 4  # 69 if rotated by 180° instead


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_every_turn_and_mirror_image_is_applied(tmp_path: Path, degrees: int, is_mirrored: bool) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a display matrix")
    path = _write(tmp_path / "a.mp4", turn=lambda stream: stream.set_display_rotation(degrees, hflip=is_mirrored))
    expected = np.rot90(_blocks(0), degrees // 90)
    expected = (expected[:, ::-1] if is_mirrored else expected).astype(int)
    _, image = next(read_video(path))
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 12  # at least 80 for another rotation


def test_a_turn_that_is_no_multiple_of_90_degrees_is_refused(tmp_path: Path) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a display matrix")
    path = _write(tmp_path / "a.mp4", turn=lambda stream: stream.set_display_rotation(30))
    with pytest.raises(ImageError, match=r"a\.mp4 has a rotation of .*30°; only multiples of 90°"):
        list(read_video(path))


_CONTAINERS = [
    ("a.mp4", "mpeg4", {"movflags": "faststart"}),
    ("a.mov", "mpeg4", {"movflags": "faststart"}),
    ("a.avi", "mpeg4", {}),
    ("a.mkv", "mpeg4", {}),
    ("a.mpg", "mpeg2video", {}),
]


@pytest.mark.parametrize(("name", "codec", "options"), _CONTAINERS)
def test_whole_cut_and_holed_videos(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    path = _write(tmp_path / name, codec, options)
    content = path.read_bytes()
    assert _read(path) == (list(range(NUM_FRAMES)), "")
    at = int(len(content) * 0.6)
    holed = content[: at - 300] + bytes(600) + content[at + 300 :]
    for harmed in (content[:at],) if name == "a.mpg" else (content[:at], holed):
        path.write_bytes(harmed)
        numbers, message = _read(path)
        assert len(numbers) < NUM_FRAMES
        assert name in message
        num_missing = NUM_FRAMES - len(numbers)
        if name == "a.mpg":  # states neither frame count nor duration: truncation shows as one damaged frame
            assert "missing or damaged" in message
        elif numbers:
            assert f"{len(numbers)} of {NUM_FRAMES} frames could be read, {num_missing} are missing" in message
        else:
            assert f"{num_missing} frames are missing or damaged" in message


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV cannot write H.264")
def test_frames_that_a_cut_hides_are_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(_blocks(seed), format="rgb24")
            frame.pts, frame.time_base = seed - 4, Fraction(1, 10)  # presentation starts at 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    images = []
    for _, image in read_video(path):
        images.append(image.astype(int))
    assert len(images) == NUM_FRAMES - 4
    assert np.abs(images[0] - _blocks(4)).mean() < 20


def test_a_video_without_its_index_is_named() -> None:
    numbers, message = _read(DATA / "cut.mp4")
    assert numbers == []
    assert "cannot read the video" in message
    assert "cut.mp4" in message
    assert num_declared_frames(DATA / "cut.mp4") is None


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    os.mkfifo(tmp_path / "b.mp4")
    for name, reason in (("a.mp4", "Invalid data"), ("b.mp4", "not a regular file"), ("c.mp4", "No such file")):
        numbers, message = _read(tmp_path / name)
        assert numbers == []
        assert name in message
        assert reason in message


def test_the_stated_number_of_frames(tmp_path: Path) -> None:
    assert num_declared_frames(_write(tmp_path / "a.mp4")) == NUM_FRAMES
    assert num_declared_frames(_write(tmp_path / "a.mkv")) is None
