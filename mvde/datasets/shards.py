"""Data set in shards: WebDataset tars or Parquet files of pictures with depth, listed in ``shards.jsonl``.

::

    shards.jsonl                 a header, then each shard's name, number of frames and size
    shard-000000.tar             KEY.jpg with KEY.depth.png or KEY.depth.npy; KEY.json: {"intrinsics": [fx, fy, cx, cy]}
    shard-000000.tar.index.npy   offsets of its members; found by reading the tar where it is missing
    shard-000000.parquet         instead of tars: columns rgb and depth, bytes of image files; fx, fy, cx, cy

Only the list is read when the set is opened, and a shard when one of its frames is. A machine may hold a part of them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mvde.datasets.decode import NPY_MAGIC, check_same_size, decode_depth, decode_rgb
from mvde.datasets.sample import DepthSample
from mvde.datasets.shard_files import ShardFile, open_shard
from mvde.datasets.shard_list import LIST_FILE, ShardEntry, read_whole_list
from mvde.errors import DatasetError

_MOST_OPEN = 64
"""Open shards of a process: a descriptor and 48 kB of index for 1,000 frames each; four windows by default."""
_MOST_NAMED = 3


class ShardDataset:
    """Samples of a folder of shards, in order of the list."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._header, self._entries = read_whole_list(root)
        self.depth_range_m = self._header.depth_range_m
        self.shard_sizes = [entry.num_frames for entry in self._entries]
        self._ends = np.cumsum(self.shard_sizes, dtype=np.int64)
        self._open: OrderedDict[int, ShardFile] = OrderedDict()
        self._owner = 0

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> DepthSample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        entry = self._entries[shard]
        row = index - int(self._ends[shard]) + entry.num_frames
        name = f"{entry.name}:{row}"
        stored = self._shard(shard).frame(row)
        rgb = decode_rgb(stored.rgb, name)
        scale = None if stored.depth.startswith(NPY_MAGIC) else self._header.depth_scale
        depth_m = decode_depth(stored.depth, f"the depth of {name}", scale)
        check_same_size(rgb, depth_m, name, f"the depth of {name}")
        camera = stored.intrinsics
        return DepthSample(rgb, depth_m, None if camera is None else np.array(camera, np.float32), name)

    def check_shards(self, shards: Iterable[int]) -> None:
        """Raise DatasetError unless the shards of these numbers are here, in full; looks at sizes only."""
        wrong = [text for shard in shards if (text := self._fault_of(self._entries[shard])) is not None]
        if wrong:
            rest = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
            raise DatasetError(
                f"{self._root} lacks shards that this process reads: {'; '.join(wrong[:_MOST_NAMED])}{rest}; copy them "
                "here, or divide the set by data.lanes so that the shards of each machine's lanes are on it"
            )

    def _fault_of(self, entry: ShardEntry) -> str | None:
        try:
            size = (self._root / entry.name).stat().st_size
        except OSError as error:
            return f"{entry.name}: {error.strerror or error}"
        return None if size == entry.size_bytes else f"{entry.name} has {size} bytes instead of {entry.size_bytes}"

    def _shard(self, number: int) -> ShardFile:
        """Open shard of a number; the longest unused one is closed where too many are open."""
        if self._owner != os.getpid():  # a forked worker's Arrow files are its parent's
            self._open, self._owner = OrderedDict(), os.getpid()
        if number not in self._open:
            while len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[number] = self._opened(self._entries[number])
        self._open.move_to_end(number)
        return self._open[number]

    def _opened(self, entry: ShardEntry) -> ShardFile:
        if (fault := self._fault_of(entry)) is not None:
            raise DatasetError(f"{self._root} cannot be read: {fault}; copy the shard again")
        file = open_shard(self._root / entry.name, self._header.kind)
        if file.num_frames != entry.num_frames:
            raise DatasetError(
                f"{self._root / entry.name} holds {file.num_frames} frames, but {LIST_FILE} says {entry.num_frames}; "
                "copy both from one place, or run mvde data index"
            )
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_owner": 0}
