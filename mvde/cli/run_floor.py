"""What ``mvde run`` and ``mvde view`` say of the floor's scale, and how a log tells the camera's tilt."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mvde.cli.terminal import say

if TYPE_CHECKING:
    from mvde.cli.floor_options import FloorOptions
    from mvde.robot.depth_log import LogFloor
    from mvde.robot.logs import LogReader
    from mvde.runtime.floor import FloorStatus
    from mvde.runtime.result import DepthResult


class FloorCounts:
    """Frames by what the floor gave them."""

    def __init__(self) -> None:
        self._counts: Counter[FloorStatus] = Counter()

    def add(self, result: DepthResult) -> None:
        """Count a frame."""
        self._counts.update(one.status for one in result.floors)

    def tell(self) -> None:
        """Say how many frames have the floor's scale, if any could have."""
        from mvde.runtime.floor import floor_text

        if text := floor_text(self._counts):
            say(text)


def log_floor(options: FloorOptions, reader: LogReader) -> LogFloor | None:
    """The floor of a log that tells the camera's tilt; ``None`` without a height, or with a pitch that was given.

    Raises :class:`UsageError` for a log that tells no tilt.
    """
    if not options.is_logs or options.camera_height is None:
        return None
    from mvde.robot.attitude import LogAttitude
    from mvde.robot.depth_log import LogFloor

    return LogFloor(options.camera_height, LogAttitude(reader))


def say_tilt(floor: LogFloor | None) -> None:
    """Say what of a log told the camera's tilt, if it was left to the log."""
    if floor is not None:
        sources = [f"{source} ({count}x)" for source, count in floor.attitude.sources.most_common()]
        say(f"pitch of the camera from {', '.join(sources) or 'nothing: the log did not tell it'}")
