"""Video decoding with PyAV: frames are rotated upright and their count is checked against the file's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import ImageError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
_NOT_TURNED = 0.01  # display matrix entries below this fraction of the others count as 0
_STEADY_SHARE, _STEADY_S = 0.8, 0.002  # constant frame rate: this fraction of intervals is regular within 2 ms
_SLACK = 0.01  # relative tolerance of a frame count derived from the duration


def is_video_path(path: Path) -> bool:
    """Whether the file has a video suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def num_declared_frames(path: Path) -> int | None:
    """Number of frames declared by the file, or ``None`` if not stated or unreadable.

    Raises :class:`MissingDependencyError` without PyAV.
    """
    av = _library()
    if not path.is_file():
        return None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return _stated_count(container, container.streams.video[0])
    except (av.FFmpegError, OSError, IndexError, ValueError):
        return None  # read_video reports the reason


def declared_rate(path: Path) -> float | None:
    """Frames per second that the file declares, or ``None`` if not stated or unreadable.

    Raises :class:`MissingDependencyError` without PyAV.
    """
    av = _library()
    if not path.is_file():
        return None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            rate = container.streams.video[0].average_rate
            return float(rate) if rate else None
    except (av.FFmpegError, OSError, IndexError, ValueError):
        return None  # read_video reports the reason


def read_video(path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield frame numbers and RGB images (H, W, 3), uint8, rotated according to the display matrix.

    Damaged frames are skipped; after the last good frame, raises :class:`ImageError` with the number of damaged or
    missing frames, if any. Also raises it if the file cannot be read. Raises :class:`MissingDependencyError` without
    PyAV.
    """
    av = _library()
    if path.exists() and not path.is_file():  # opening a pipe would block until it has a writer
        raise ImageError(f"cannot read the video {path}: it is not a regular file")
    count = _Count()
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            yield from _decode(container, stream, count, path)
            missing = count.num_missing(container, stream)
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise _unreadable(path, error) from error
    if count.num_good == 0:
        reason = f"{missing} frames are missing or damaged" if missing else "it holds no frame"
        raise ImageError(f"cannot read the video {path}: {reason}; is it complete?")
    if missing:
        raise ImageError(
            f"{path}: {count.num_good} of {count.num_good + missing} frames could be read, {missing} are missing or "
            "damaged; is it complete?"
        )


@dataclass
class _Count:
    """Frame counts of a video.

    ``num_hidden`` counts frames in the container that are not to be shown (before the start of a cut); ``num_steady``
    frames that follow the previous one by one frame interval.
    """

    num_good: int = 0
    num_damaged: int = 0
    num_hidden: int = 0
    num_steady: int = 0
    last_s: float | None = None

    def add(self, time_s: float | None, interval_s: float | None) -> None:
        """Count a good frame at time ``time_s`` in seconds."""
        self.num_good += 1
        if time_s is not None and self.last_s is not None and interval_s is not None:
            self.num_steady += abs(time_s - self.last_s - interval_s) <= _STEADY_S
        self.last_s = time_s

    def num_missing(self, container: Any, stream: Any) -> int:
        """Number of frames that are damaged, or declared by the file but not decoded."""
        stated = _stated_count(container, stream)
        if stated is None and self.num_steady >= _STEADY_SHARE * (self.num_good - 1):
            stated = _count_by_length(container, stream)
        return max((stated or 0) - self.num_hidden - self.num_good, self.num_damaged)


def _decode(container: Any, stream: Any, count: _Count, path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    av = _library()
    rate = stream.average_rate
    interval_s = float(1 / rate) if rate else None
    number = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # the rest of the stream is unreadable
            count.num_damaged += 1
            return
        if packet is None:
            return
        count.num_hidden += packet.is_discard
        try:
            frames = packet.decode()
        except av.FFmpegError:
            count.num_damaged += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                count.num_damaged += 1
            else:
                count.add(frame.time, interval_s)
                yield number, upright(frame, path)
            number += 1


def _stated_count(container: Any, stream: Any) -> int | None:
    """Number of frames in the container's index."""
    stated = int(stream.frames)
    if stated and "mov" in container.format.name:
        # An edit list may drop frames; the index has the remaining ones. Older PyAV has no access to it.
        stated = min(stated, len(getattr(stream, "index_entries", ())) or stated)
    return stated or None


def _count_by_length(container: Any, stream: Any) -> int | None:
    """Frame count from declared duration and frame rate, less a tolerance; ``None`` if either is unknown."""
    if not stream.average_rate:
        return None
    rate = float(stream.average_rate)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    if tag is not None:
        length_s = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    elif len(container.streams) == 1 and container.duration and not container.format.name.startswith("mpeg"):
        length_s = container.duration / 1e6  # for MPEG streams this is only an estimate
    else:
        return None
    count = round(length_s * rate, 3)
    return int(count - max(1.0, _SLACK * count)) + 1


def upright(frame: Any, name: object) -> NDArray[np.uint8]:
    """Convert a frame to an RGB image (H, W, 3), uint8, rotated and mirrored by its display matrix.

    The matrix ((a, b, ·), (c, d, ·), ·) maps the stored pixel at column p and row q to column ap + cq and row
    bp + dq. Raises :class:`ImageError`, with the source's ``name``, unless the rotation is a multiple of 90 degrees.
    """
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return image
    (a, b), (c, d) = np.frombuffer(bytes(stored), np.int32)[:9].reshape(3, 3)[:2, :2].astype(float)
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) <= _NOT_TURNED * straight:
        column, row = a, d
    elif max(abs(a), abs(d)) <= _NOT_TURNED * crossed:
        image, column, row = image.transpose(1, 0, 2), c, b
    else:
        degrees = np.degrees(np.arctan2(b, a))
        raise ImageError(f"{name} has a rotation of {degrees:.0f}°; only multiples of 90° are supported")
    return np.ascontiguousarray(image[:: 1 if row > 0 else -1, :: 1 if column > 0 else -1])


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError.for_extra("av", "video", "reading a video") from error
    return av


def _unreadable(path: Path, error: Exception) -> ImageError:
    reason = "it has no video stream" if isinstance(error, IndexError) else " ".join(str(error).split())
    return ImageError(f"cannot read the video {path}: {reason}")
