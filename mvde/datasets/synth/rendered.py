"""Data sets that are rendered when they are read, named like ``rendered:224?seed=3`` in the place of a folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from mvde.datasets.sample import DepthDataset, DepthSample
from mvde.datasets.splits import Split, check_split
from mvde.datasets.synth.texture_files import load_textures, with_photographs
from mvde.datasets.synth.textures import build_textures
from mvde.datasets.synth.varied import VariedFrames
from mvde.errors import ConfigError

SCHEME = "rendered:"
_ENDLESS = 1 << 23
"""Frames of a set without a length: eight million, more than a run of minutes draws."""

_KEYS = ("seed", "split", "length", "textures", "photographs")


class StoredFrames:
    """A short rendered set, kept in memory once it was rendered: for validation."""

    def __init__(self, frames: VariedFrames) -> None:
        self.depth_range_m = frames.depth_range_m
        self._frames, self._kept = frames, dict[int, DepthSample]()

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DepthSample:
        if index not in self._kept:
            self._kept[index] = self._frames[index]
        return self._kept[index]

    def scene(self, index: int) -> str:
        """Return the name of the scene that the frame is a view of."""
        return self._frames.scene(index)


def open_rendered(name: str) -> DepthDataset:
    """Open the set ``rendered:SIDE?KEY=VALUE&...``: frames with SIDE pixels on the longer side.

    Keys: ``seed`` (0), ``split`` (train), ``length`` (endless; a set with one is kept in memory), ``textures`` (a file
    of :func:`save_textures`; made anew without one), ``photographs`` (a folder, see :func:`with_photographs`). Raises
    :class:`ConfigError` for anything else, :class:`DatasetError` for unreadable textures.
    """
    side, _, query = name.removeprefix(SCHEME).partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    numbers = [given.get("seed", "0"), given.get("length", "1")]
    is_known = set(given) <= set(_KEYS) and all(number.isdigit() for number in numbers)
    if not (name.startswith(SCHEME) and side.isdigit() and 16 <= int(side) <= 4096 and is_known):
        raise ConfigError(
            f"got the data set {name!r}; expected {SCHEME}SIDE with 16 to 4096 pixels, such as {SCHEME}224, and "
            f"?KEY=VALUE of {', '.join(_KEYS)}"
        )
    textures = load_textures(Path(given["textures"])) if "textures" in given else None
    if "photographs" in given:
        textures = with_photographs(textures or build_textures(), Path(given["photographs"]))
    split = check_split(given.get("split", Split.TRAIN.value))
    length = int(given["length"]) if "length" in given else _ENDLESS
    frames = VariedFrames(int(side), length, int(given.get("seed", "0")), split, None, textures)
    return StoredFrames(frames) if "length" in given else frames
