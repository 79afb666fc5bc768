"""Read what robot_loop publishes: ``read_depth.py NAME`` prints one line per new frame. Requires only NumPy."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = int.from_bytes(b"vdepth01", "little")
NUM_SLOTS, HEADER_WORDS, SLOT_HEADER_WORDS = 4, 16, 8  # as in shared_depth.hpp
NEWEST = 7
SEQUENCE, TIME_NS, SUM = 0, 1, 2


class Depth(NamedTuple):
    """A frame: depth (H, W) in metres and statistics (N, S), float32, read ``age_s`` seconds after it was taken."""

    number: int
    age_s: float
    depth_m: np.ndarray
    stats: np.ndarray
    grid: tuple[int, int]


class DepthReader:
    """Reader of /dev/shm/NAME. Raises OSError if it does not exist, ValueError if it has another format."""

    def __init__(self, name: str) -> None:
        self._words = np.memmap(Path("/dev/shm") / name, np.uint64, "r")
        if len(self._words) < HEADER_WORDS or int(self._words[0]) != MAGIC:
            raise ValueError(f"/dev/shm/{name} is not what robot_loop publishes")
        self._slot_words, *sizes = (int(word) for word in self._words[1:NEWEST])
        self.height, self.width, *grid, self.num_stats = sizes
        self.grid = (grid[0], grid[1])

    def newest_number(self) -> int:
        """Return the number of the latest frame, counted from 1; 0 before the first."""
        return int(self._words[NEWEST])

    def read(self) -> Depth | None:
        """Return a copy of the latest frame; ``None`` before the first."""
        while number := self.newest_number():
            first = HEADER_WORDS + number % NUM_SLOTS * self._slot_words
            slot = np.array(self._words[first : first + self._slot_words])
            body = slot[SLOT_HEADER_WORDS:]
            # The publisher may have overwritten the slot meanwhile; the loads of a copy are unordered, hence the sum.
            is_whole = int(slot[SEQUENCE]) == 2 * number == int(self._words[first])
            if is_whole and body.sum(dtype=np.uint64) == slot[SUM]:
                return self._frame(number, int(slot[TIME_NS]), body.view(np.float32))
        return None

    def _frame(self, number: int, time_ns: int, floats: np.ndarray) -> Depth:
        num_depths, num_patches = self.height * self.width, self.grid[0] * self.grid[1]
        depth_m = floats[:num_depths].reshape(self.height, self.width)
        stats = floats[num_depths : num_depths + num_patches * self.num_stats].reshape(num_patches, self.num_stats)
        return Depth(number, (time.monotonic_ns() - time_ns) / 1e9, depth_m, stats, self.grid)


def main(name: str) -> None:
    """Print new frames until interrupted."""
    reader, shown = DepthReader(name), 0
    while True:
        if reader.newest_number() == shown or (frame := reader.read()) is None:
            time.sleep(0.001)
            continue
        shown = frame.number
        seen = frame.depth_m[frame.depth_m > 0]
        nearest = f"{seen.min():.2f}" if seen.size else "none"
        print(f"frame {shown}: {1e3 * frame.age_s:.1f} ms old, nearest depth {nearest}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: read_depth.py NAME")
    try:
        main(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"read_depth: {error}; start robot_loop with this name first")
    except KeyboardInterrupt:
        pass
