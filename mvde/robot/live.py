"""Live sources with PyAV: a thread decodes every frame and keeps the newest, so that a slow reader is never late."""

from __future__ import annotations

import errno
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mvde.errors import ImageError, MissingDependencyError, UsageError
from mvde.robot.live_address import LiveAddress, LiveKind
from mvde.runtime.video import upright

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIMEOUT_S = 10.0
"""Longest wait for a frame. FFmpeg may analyse a stream for 5 s (``analyzeduration``) before the first one."""

_JOIN_S = 1.0  # a reader that is blocked in a driver is left behind in its daemon thread
_FORMATS = {LiveKind.DEVICE: "v4l2"}
# FFmpeg would read twenty frames first to estimate a rate that nobody asks for: 2.2 s of a camera with 10 frames a
# second, 0.3 s without.
_OPTIONS = {"fpsprobesize": "0"}
# TCP first: lost UDP packets damage pictures until the next key frame, and firewalls drop them without an answer.
_OPTIONS_OF = {LiveKind.RTSP: {"rtsp_flags": "prefer_tcp"}}


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a live source: RGB image (H, W, 3), uint8, and when it was received.

    ``index`` counts the frames that the source sent, from 0. ``received_ns`` is the time since the Unix epoch at which
    its decoding ended, ``received_s`` the same moment by the monotonic clock. The delay of camera and network before
    that is not known.
    """

    index: int
    image: NDArray[np.uint8]
    received_ns: int
    received_s: float

    @property
    def age_ms(self) -> float:
        """Milliseconds since it was received."""
        return (time.monotonic() - self.received_s) * 1e3


@dataclass(frozen=True)
class _Decoded:
    """A decoded frame in the camera's own pixel format; conversion to RGB waits until somebody takes it."""

    index: int
    picture: Any
    received_ns: int
    received_s: float


class LiveStream:
    """A live source, read by a thread of its own; :meth:`take` returns the newest frame.

    ``timeout_s`` is the longest wait for a frame, also for the first one. ``options`` are FFmpeg's, see
    :func:`mvde.robot.live_address.parse_capture_options`.

    Raises :class:`MissingDependencyError` without PyAV, :class:`UsageError` for a timeout that is not above 0.
    """

    def __init__(
        self, address: LiveAddress, timeout_s: float = TIMEOUT_S, options: Mapping[str, str] | None = None
    ) -> None:
        """Begin to open and to read; errors are raised by :meth:`take`."""
        if not 0 < timeout_s < math.inf:
            raise UsageError(f"the timeout of a live source is {timeout_s:g} s; expected a number above 0")
        self.address = address
        self._av = _library()
        self._timeout_s = timeout_s
        self._options = _OPTIONS | _OPTIONS_OF.get(address.kind, {}) | dict(options or {})
        self._changed = threading.Condition()
        self._newest: _Decoded | None = None
        self._num_received = self._num_damaged = 0
        self._waiting_since = time.monotonic()
        self._is_closed = self._has_ended = False
        self._error: ImageError | None = None
        self._reader = threading.Thread(target=self._read, name="mvde-live", daemon=True)
        self._reader.start()

    @property
    def num_received(self) -> int:
        """Number of frames received so far, taken or not."""
        return self._num_received

    @property
    def num_damaged(self) -> int:
        """Number of frames or packets that could not be decoded."""
        return self._num_damaged

    def take(self) -> LiveFrame | None:
        """Wait for a frame that was not taken yet, and return the newest; ``None`` after the end of the stream.

        Raises :class:`ImageError` if the source cannot be opened or fails, or sends no frame within the timeout.
        """
        with self._changed:
            self._wait()
            decoded, self._newest = self._newest, None
        if decoded is None:
            return None
        image = upright(decoded.picture, self.address.shown)
        return LiveFrame(decoded.index, image, decoded.received_ns, decoded.received_s)

    def wait(self) -> None:
        """Wait for a frame without taking it, to learn early of a source that is not there; raises as :meth:`take`."""
        with self._changed:
            self._wait()

    def close(self) -> None:
        """Stop reading; a reader that is blocked in a driver ends with the process."""
        with self._changed:
            self._is_closed = True
        self._reader.join(_JOIN_S)

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        """Wait for a frame or the end, with the lock held; raise the error that ended the stream."""
        while self._newest is None and not self._has_ended:
            left_s = self._waiting_since + self._timeout_s - time.monotonic()
            if left_s <= 0:
                raise self._silent()
            self._changed.wait(left_s)
        if self._newest is None and self._error is not None:
            raise self._error

    def _read(self) -> None:
        """Decode until the end, an error or :meth:`close`; in the reader's thread, which alone uses the container."""
        error: ImageError | None = None
        try:
            with self._av.open(
                self.address.target,
                format=_FORMATS.get(self.address.kind),
                options=self._options,
                timeout=self._timeout_s,
                metadata_errors="replace",
            ) as container:
                stream = next(iter(container.streams.video), None)
                if stream is None:
                    raise ImageError(f"{self.address.shown} has no video stream")
                self._check_size(stream)
                self._decode(container.demux(stream))
        except ImageError as found:
            error = found
        except Exception as found:  # noqa: BLE001 - raised by `take`
            error = self._failed(found)
        with self._changed:
            self._has_ended, self._error = True, error
            self._changed.notify_all()

    def _decode(self, packets: Any) -> None:
        for packet in packets:
            if self._is_closed:
                return
            try:
                pictures = packet.decode()
            except self._av.FFmpegError:  # such as those before the first key frame
                self._num_damaged += 1
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    self._num_damaged += 1
                else:
                    self._put(picture)

    def _put(self, picture: Any) -> None:
        with self._changed:
            now = time.monotonic()
            self._newest = _Decoded(self._num_received, picture, time.time_ns(), now)
            self._num_received, self._waiting_since = self._num_received + 1, now
            self._changed.notify_all()

    def _check_size(self, stream: Any) -> None:
        """Raise :class:`ImageError` if a camera gives frames of another size than it was asked for."""
        asked, given = self._options.get("video_size"), f"{stream.width}x{stream.height}"
        if asked is not None and asked[:1].isdigit() and asked != given:
            raise ImageError(
                f"{self.address.shown} was asked for frames of {asked} (width x height), but gives {given}; choose a "
                "size that it has, or another input_format"
            )

    def _silent(self) -> ImageError:
        num = self._num_received
        when = f"stopped after {num} frame{'s' if num != 1 else ''}" if num else "did not begin"
        return ImageError(
            f"{self.address.shown} {when}: no frame for {self._timeout_s:g} s; check that the source is sending, or "
            "give it more time with --timeout"
        )

    def _failed(self, error: Exception) -> ImageError:
        """Error for a failure of PyAV, whose own text repeats the address with its password."""
        if isinstance(error, getattr(self._av.error, "ExitError", ())):  # its timeout
            return self._silent()
        if self._num_received:
            return ImageError(
                f"{self.address.shown} stopped after {self._num_received} "
                f"frame{'s' if self._num_received > 1 else ''}: {_ended(error)}"
            )
        return ImageError(f"cannot open {self.address.shown}: {_explained(error, self.address)}")


def _explained(error: Exception, address: LiveAddress) -> str:
    """Reason and way out of a source that cannot be opened."""
    if address.kind is LiveKind.DEVICE:
        match getattr(error, "errno", None):
            case errno.ENOENT | errno.ENODEV | errno.ENXIO:
                there = sorted(str(path) for path in Path("/dev").glob("video*"))
                return f"there is no such device; cameras here: {', '.join(there) or 'none'}"
            case errno.EACCES | errno.EPERM:
                return "no permission; the user must be in the group that owns it, usually video"
            case errno.EBUSY:
                return "another program uses it"
            case errno.ENOTTY | errno.EINVAL:
                return f"it is not a camera, or it does not have what was asked for ({_reason(error)})"
    match getattr(error, "errno", None):
        case errno.ECONNREFUSED:
            return "the connection was refused; is the stream's server running on this port?"
        case errno.EIO:  # FFmpeg's answer to both
            return "its host is unknown, or what it sends is no video"
    return _reason(error)


def _ended(error: Exception) -> str:
    """Reason of a stream that stopped; a server that closes the connection is FFmpeg's EIO."""
    return "the connection ended" if getattr(error, "errno", None) == errno.EIO else _reason(error)


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError.for_extra("av", "live", "reading a live source") from error
    return av
