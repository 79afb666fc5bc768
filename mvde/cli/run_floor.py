"""What ``mvde run`` says of the floor's scale, whatever its frames come from."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mvde.cli.terminal import say

if TYPE_CHECKING:
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
