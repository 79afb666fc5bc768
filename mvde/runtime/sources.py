"""Where frames come from: image files, folders, globs, and videos through PyAV."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.errors import ImageError, MissingDependencyError
from mvde.image import is_image_path, read_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True)
class Frame:
    """An RGB image (H, W, 3), uint8, and the stem that its results are named after."""

    stem: str
    image: NDArray[np.uint8]


def expand_inputs(inputs: Iterable[str]) -> list[Path]:
    """Files that the inputs name: a file stands for itself, a folder for its images, a pattern for what it matches.

    Raises :class:`ImageError` for an input that names nothing.
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
    """Number of frames in the files, or ``None`` where a video does not tell."""
    total = 0
    for path in paths:
        num_frames = _num_video_frames(path) if is_video_path(path) else 1
        if num_frames == 0:
            return None
        total += num_frames
    return total


def read_frames(paths: Iterable[Path]) -> Iterator[Frame]:
    """Frames of the files, in order; a video's are named ``STEM-000000`` and so on.

    Raises :class:`ImageError` for a file that cannot be read, :class:`MissingDependencyError` for a video without PyAV.
    """
    paths = list(paths)
    names = _unique_stems(paths)
    for path, stem in zip(paths, names, strict=True):
        if is_video_path(path):
            for index, image in enumerate(_read_video(path)):
                yield Frame(f"{stem}-{index:06d}", image)
        else:
            yield Frame(stem, read_image(path))


def is_video_path(path: Path) -> bool:
    """Whether a file's suffix says that it is a video."""
    return path.suffix.lower() in _VIDEO_SUFFIXES


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return sorted(found for found in path.iterdir() if found.is_file() and is_image_path(found))
    if path.exists() or not glob.has_magic(text):
        return [path]  # one that does not exist gets its own error when it is read
    # Path.glob does not take absolute patterns.
    matches = glob.glob(text, recursive=True)  # noqa: PTH207
    return sorted(path for path in map(Path, matches) if path.is_file())


def _unique_stems(paths: list[Path]) -> list[str]:
    """Stems of the files; the parent's name is put before those that would overwrite each other, then a number."""
    stems = [path.stem for path in paths]
    for index, path in enumerate(paths):
        if [other.stem for other in paths].count(path.stem) > 1:
            stems[index] = f"{path.parent.name}-{path.stem}" if path.parent.name else path.stem
    seen: dict[str, int] = {}
    for index, stem in enumerate(stems):
        seen[stem] = seen.get(stem, 0) + 1
        if seen[stem] > 1:
            stems[index] = f"{stem}-{seen[stem]}"
    return stems


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError.for_extra("av", "video", "reading a video") from error
    return av


def _num_video_frames(path: Path) -> int:
    av = _library()
    try:
        with av.open(str(path)) as container:
            return int(container.streams.video[0].frames)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise _unreadable(path, error) from error


def _read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    av = _library()
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ImageError:
    reason = "it has no video stream" if isinstance(error, IndexError) else " ".join(str(error).split())
    return ImageError(f"cannot read the video {path}: {reason}")
