"""Live sources: newest frame first, the end of a stream in its several forms, and addresses."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from mvde.errors import ImageError, UsageError
from mvde.robot.live import LiveFrame, LiveStream
from mvde.robot.live_address import LiveKind, is_live, parse_capture_options, parse_live
from tests.robot.live_servers import SIZE, file_server, level, mjpeg_server, mpeg
from tests.robot.rtsp_server import rtsp_server

pytest.importorskip("av")


def open_stream(url: str, timeout_s: float = 1.0) -> LiveStream:
    return LiveStream(parse_live(url), timeout_s)


def frames_until_error(stream: LiveStream) -> tuple[list[LiveFrame], str]:
    """Frames taken before the stream failed, and its message; the message is empty for an orderly end."""
    taken: list[LiveFrame] = []
    with stream:
        try:
            while (frame := stream.take()) is not None:
                taken.append(frame)
        except ImageError as error:
            return taken, str(error)
    return taken, ""


def is_frame(frame: LiveFrame) -> bool:
    return frame.image.shape == (*SIZE, 3) and abs(float(frame.image.mean()) - level(frame.index)) < 3


def test_a_slow_reader_gets_the_newest_frame_and_never_an_older_one() -> None:
    with mjpeg_server(num_frames=60, interval_s=0.01) as url, open_stream(f"{url}/live") as stream:
        stream.wait()
        num_passed_over = 0
        for _ in range(4):
            time.sleep(0.1)
            num_received = stream.num_received
            frame = stream.take()
            assert frame is not None
            assert is_frame(frame)
            assert frame.index >= num_received - 1
            num_passed_over = frame.index - 3
    assert num_passed_over > 8


def test_every_frame_comes_to_a_reader_that_waits_for_it_with_the_time_of_its_arrival() -> None:
    begun = time.time()
    with mjpeg_server(num_frames=6, interval_s=0.08) as url:
        taken, _ = frames_until_error(open_stream(f"{url}/live"))
    assert [frame.index for frame in taken][-4:] == [2, 3, 4, 5]
    assert all(is_frame(frame) for frame in taken)
    received = [frame.received_ns / 1e9 for frame in taken]
    assert begun < received[0]
    assert received == sorted(received)
    assert received[-1] < time.time()


@pytest.mark.parametrize(
    ("path", "num_frames", "message"),
    [
        ("stalls", 5, "stopped after 5 frames: no frame for 0.5 s; check that the source is sending"),
        ("breaks", 5, "stopped after 5 frames: the connection ended"),
        ("live", 5, "stopped after 5 frames: the connection ended"),  # FFmpeg does not tell the two apart
        ("silent", 0, "did not begin: no frame for 0.5 s; check that the source is sending, or give it more time"),
        ("missing", 0, "Server returned 404 Not Found"),
        ("text", 0, "its host is unknown, or what it sends is no video"),
    ],
)
def test_a_stream_that_stops_gives_its_frames_and_then_the_reason(path: str, num_frames: int, message: str) -> None:
    with mjpeg_server(num_frames=5) as url:
        taken, said = frames_until_error(open_stream(f"{url}/{path}", timeout_s=0.5))
    assert message in said
    assert (taken[-1].index + 1 if taken else 0) == num_frames


def test_a_file_of_a_server_ends_in_order() -> None:
    with file_server(mpeg(12)) as url:
        taken, said = frames_until_error(open_stream(f"{url}/clip.ts", timeout_s=3))
    assert said == ""
    assert taken[-1].index == 11


def test_a_camera_that_speaks_rtsp_gives_its_frames_and_stops_or_refuses() -> None:
    with rtsp_server(num_frames=12, interval_s=0.05) as url:
        begun = time.monotonic()
        with open_stream(f"{url}/cam", timeout_s=3) as stream:
            stream.wait()
            assert time.monotonic() - begun < 2  # without twenty frames for an estimate of the rate
            taken, said = frames_until_error(stream)
        assert said == ""  # the end of the connection is that of the stream
        assert all(is_frame(frame) for frame in taken)
        assert taken[-1].index == 11
        taken, said = frames_until_error(open_stream(f"{url}/stalls", timeout_s=1))
        assert re.search(r"stopped after 1\d frames: no frame for 1 s", said)  # the decoder holds two for reordering
        _, said = frames_until_error(open_stream(f"{url}/locked", timeout_s=3))
        assert said == f"cannot open {url}/locked: Server returned 401 Unauthorized (authorization failed)"


def test_a_password_is_in_no_message() -> None:
    with mjpeg_server(num_frames=2) as url:
        for path in ("live?token=secret", "missing?token=secret", "silent"):
            secret = url.replace("//", "//user:secret@")
            _, said = frames_until_error(open_stream(f"{secret}/{path}", timeout_s=0.3))
            assert "127.0.0.1" in said
            assert "secret" not in said
            assert "user" not in said
    _, said = frames_until_error(open_stream("rtsp://user:secret@127.0.0.1:9/stream"))
    assert said.startswith("cannot open rtsp://127.0.0.1:9/stream: the connection was refused; is the stream's server")


def test_a_device_that_is_not_there_or_no_camera_says_so() -> None:
    _, said = frames_until_error(open_stream("/dev/video4711"))
    assert said.startswith("cannot open /dev/video4711: there is no such device; cameras here: ")
    _, said = frames_until_error(open_stream("/dev/null"))
    assert said.startswith("cannot open /dev/null: it is not a camera")


def test_closing_ends_the_thread_while_frames_arrive() -> None:
    with mjpeg_server(num_frames=200) as url:
        stream = open_stream(f"{url}/live")
        assert stream.take() is not None
        stream.close()
        assert not stream._reader.is_alive()


def test_a_timeout_is_above_zero() -> None:
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="expected a number above 0"):
            open_stream("/dev/null", timeout_s=wrong)


def test_devices_and_urls_are_live_and_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "front").symlink_to("/dev/null")
    assert all(is_live(one) for one in ("/dev/video0", "rtsp://h/x", "HTTP://h", "udp://h", str(tmp_path / "front")))
    assert not any(is_live(str(tmp_path / one)) for one in ("clip.mp4", "missing.mp4", ".", "video0", "*.png"))


@pytest.mark.parametrize(
    ("source", "kind", "shown", "stem"),
    [
        ("/dev/video0", LiveKind.DEVICE, "/dev/video0", "video0"),
        ("rtsp://me:pw@camera.local:8554/a b?pw=1", LiveKind.RTSP, "rtsp://camera.local:8554/a b?…", "camera.local"),
        ("https://[::1]/video", LiveKind.HTTP, "https://[::1]/video", "--1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(source: str, kind: LiveKind, shown: str, stem: str) -> None:
    address = parse_live(source)
    assert (address.kind, address.shown, address.stem) == (kind, shown, stem)
    assert address.target == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("udp://camera:5000", "cannot read udp:// addresses; give a device such as /dev/video0, a stream of rtsp://"),
        ("file:///etc/passwd", "cannot read file:// addresses"),
        ("rtsp://", "names no host; expected rtsp://HOST"),
        ("http:///path", "names no host"),
        ("rtsp://camera:port/x", "the rtsp address is malformed"),
    ],
)
def test_another_address_is_wrong_usage(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_live(source)


def test_an_option_that_ffmpeg_would_ignore_is_refused() -> None:
    assert parse_capture_options(["video_size=1280x720", "framerate=30"], LiveKind.DEVICE) == {
        "video_size": "1280x720",
        "framerate": "30",
    }
    for text in ("videosize=1280x720", "video_size", "video_size=", "rtsp_transport=udp"):
        with pytest.raises(UsageError, match=r"this source \(device\) takes video_size=…, framerate=…"):
            parse_capture_options([text], LiveKind.DEVICE)
