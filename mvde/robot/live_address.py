"""Addresses of live sources: cameras of this machine and streams of the network."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from mvde.errors import UsageError


class LiveKind(str, Enum):
    """How a live source is reached."""

    DEVICE = "device"
    RTSP = "rtsp"
    HTTP = "http"

    @property
    def option_names(self) -> tuple[str, ...]:
        """FFmpeg's options for such a source that change what is captured or how; others are refused.

        PyAV passes on whatever it is given and FFmpeg ignores what it does not know.
        """
        match self:
            case LiveKind.DEVICE:
                return ("video_size", "framerate", "input_format")
            case LiveKind.RTSP:
                return ("rtsp_transport", "buffer_size", "max_delay", "reorder_queue_size", "user_agent")
            case LiveKind.HTTP:
                return ("headers", "user_agent", "referer", "auth_type")


_KIND_BY_SCHEME = {
    "rtsp": LiveKind.RTSP,
    "rtsps": LiveKind.RTSP,
    "http": LiveKind.HTTP,
    "https": LiveKind.HTTP,
}


@dataclass(frozen=True)
class LiveAddress:
    """A live source: its kind, and the path or URL to open."""

    kind: LiveKind
    target: str

    @property
    def shown(self) -> str:
        """The address for messages, without password and query, where cameras take their secrets."""
        if self.kind is LiveKind.DEVICE:
            return self.target
        parts = urlsplit(self.target)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"

    @property
    def stem(self) -> str:
        """Name for result files: that of the device or of the host, of letters, digits, dots and dashes."""
        text = Path(self.target).name if self.kind is LiveKind.DEVICE else urlsplit(self.target).hostname or "stream"
        return "".join(one if one.isascii() and (one.isalnum() or one in ".-") else "-" for one in text)


def is_live(source: str) -> bool:
    """Whether ``source`` names a device, there or not, or has the form of a URL, rather than that of a file."""
    if "://" in source or source.startswith(("/dev/video", "/dev/v4l/")):
        return True
    try:
        return stat.S_ISCHR(Path(source).stat().st_mode)  # a link to a device, of a udev rule
    except (OSError, ValueError):
        return False


def parse_live(source: str) -> LiveAddress:
    """Parse a device's path or a stream's URL; raises :class:`UsageError` for another kind of URL."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        return LiveAddress(LiveKind.DEVICE, source)
    kind = _KIND_BY_SCHEME.get(scheme.lower())
    if kind is None:
        raise UsageError(
            f"cannot read {scheme}:// addresses; give a device such as /dev/video0, a stream of {_listed()}, or a file "
            "by its path"
        )
    try:
        host, _ = urlsplit(source).hostname, urlsplit(source).port
    except ValueError as error:
        raise UsageError(f"the {scheme} address is malformed: {error}; expected {scheme}://HOST[:PORT]/PATH") from error
    if not host or not rest:
        raise UsageError(f"the {scheme} address names no host; expected {scheme}://HOST[:PORT]/PATH")
    return LiveAddress(kind, source)


def parse_capture_options(texts: Sequence[str], kind: LiveKind) -> dict[str, str]:
    """FFmpeg's options by name, from ``NAME=VALUE``; raises :class:`UsageError` for names the kind does not have."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not value or name not in kind.option_names:
            expected = ", ".join(f"{known}=…" for known in kind.option_names)
            raise UsageError(f"a capture option is {text!r}, but this source ({kind.value}) takes {expected}")
        found[name] = value
    return found


def _listed() -> str:
    return ", ".join(f"{scheme}://" for scheme in _KIND_BY_SCHEME)
