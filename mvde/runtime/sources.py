"""Frame sources (image files, folders, glob patterns and videos) and the names of their results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.errors import ImageError
from mvde.image import is_image_path, read_image
from mvde.runtime.video import VIDEO_SUFFIXES, is_video_path, num_declared_frames, read_video

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FRAME_DIGITS = 6  # minimum digits of a frame number in a result's name


@dataclass(frozen=True)
class Frame:
    """An RGB image (H, W, 3), uint8, the stem of its result files, and the video that it is of, if it is of one."""

    stem: str
    image: NDArray[np.uint8]
    video: Path | None = None


def expand_inputs(inputs: Iterable[str]) -> list[Path]:
    """Expand inputs to files: a folder to its images, a glob pattern to its matches.

    Raises :class:`ImageError` for an input that matches nothing.
    """
    paths: list[Path] = []
    for text in inputs:
        found = _expand(text)
        if not found:
            what = "folder holds no image" if Path(text).is_dir() else "input matches no file"
            raise ImageError(f"the {what}: {text}; give images, videos, folders or quoted patterns")
        paths += found
    return list(dict.fromkeys(paths))


def count_frames(paths: Iterable[Path]) -> int | None:
    """Number of frames declared by the files, or ``None`` if a video does not state it.

    Raises :class:`MissingDependencyError` for a video without PyAV.
    """
    total = 0
    for path in paths:
        num_frames = num_declared_frames(path) if is_video_path(path) else 1
        if num_frames is None:
            return None
        total += num_frames
    return total


def read_frames(paths: Iterable[Path], on_error: Callable[[Path, ImageError], None] | None = None) -> Iterator[Frame]:
    """Read the frames of the files, in order, each with a unique stem; video frames are ``STEM-000000`` and so on.

    A file that is unreadable or incomplete is reported to ``on_error`` after its readable frames, and reading continues
    with the next file; without ``on_error`` its :class:`ImageError` is raised. Raises :class:`MissingDependencyError`
    for a video without PyAV.
    """
    paths = list(paths)
    for path, stem in zip(paths, result_stems(paths), strict=True):
        try:
            if is_video_path(path):
                for index, image in read_video(path):
                    yield Frame(f"{stem}-{index:0{_FRAME_DIGITS}d}", image, path)
            else:
                yield Frame(stem, read_image(path))
        except ImageError as error:
            if on_error is None:
                raise
            on_error(path, error)


def result_stems(paths: Sequence[Path]) -> list[str]:
    """Unique result stems of the files, in order, which do not collide with names of video frames either.

    The file's stem if unique, else prefixed with its folder, else with its suffix appended, else with a number.
    Deterministic in the order of the paths.
    """
    files = [_split(path) for path in paths]
    num_by_stem = Counter(stem for _, stem, _ in files)
    num_by_place = Counter((folder, stem) for folder, stem, _ in files)
    are_videos = [f".{suffix.lower()}" in VIDEO_SUFFIXES for _, _, suffix in files]
    names = _Names()
    stems: dict[int, str] = {}
    for index in sorted(range(len(files)), key=are_videos.__getitem__, reverse=True):
        stem = files[index][1]
        if num_by_stem[stem] == 1:
            stems[index] = names.take(stem, are_videos[index])
    for index, (folder, stem, suffix) in enumerate(files):
        if index not in stems:
            wanted = stem if num_by_place[folder, stem] == 1 else f"{stem}-{suffix}"
            wanted = f"{folder}-{wanted}" if folder not in ("", "..") else wanted
            stems[index] = names.take(wanted, are_videos[index])
    return [stems[index] for index in range(len(files))]


def _split(path: Path) -> tuple[str, str, str]:
    """Split into folder name, stem and suffix without dot; ten times as fast as pathlib."""
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return os.path.basename(folder), stem, suffix[1:]  # noqa: PTH119


class _Names:
    """Stems assigned so far."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._videos: set[str] = set()  # stems with frames STEM-000000, …
        self._framed: set[str] = set()  # STEM of names of the form STEM-000000
        self._next: dict[str, int] = {}  # next number to try per name

    def take(self, wanted: str, is_video: bool) -> str:
        """Reserve the wanted name, with the first free number appended if it is taken."""
        name, number = wanted, self._next.get(wanted, 2)
        while not self._is_free(name, is_video):
            name, number = f"{wanted}-{number}", number + 1
        if number > 2:
            self._next[wanted] = number
        self._taken.add(name)
        self._framed.add(_video_of_frame(name))
        if is_video:
            self._videos.add(name)
        return name

    def _is_free(self, name: str, is_video: bool) -> bool:
        if name in self._taken or (is_video and name in self._framed):
            return False
        return not self._videos or _video_of_frame(name) not in self._videos


def _video_of_frame(name: str) -> str:
    """Video stem if ``name`` has the form of a frame's name, else empty."""
    stem, _, number = name.rpartition("-")
    return stem if len(number) >= _FRAME_DIGITS and number.isdecimal() else ""


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return sorted(found for found in path.iterdir() if found.is_file() and is_image_path(found))
    if path.exists() or not glob.has_magic(text):
        return [path]  # a missing file is reported when it is read
    # Path.glob does not support absolute patterns.
    matches = glob.glob(text, recursive=True)  # noqa: PTH207
    return sorted(path for path in map(Path, matches) if path.is_file())
