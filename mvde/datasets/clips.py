"""Synthetic clips: video with ground truth, filled by ``mvde data synth --video``, and its reader.

A folder holds an index and one file for each clip::

    index.json        seed, split, size [H, W], count (of clips), num_frames (of a clip), fps, generator_version, and
                      rolling_shutter_ms and bare where they are not 0 and false
    clip-00000.npz    kind         what the camera or the scene does (:class:`mvde.datasets.synth.paths.ClipKind`)
                      rgb          uint8 (T, H, W, 3), RGB
                      depth        uint16 (T, H, W), z-depth in fifths of a millimetre, 0 where there is none
                      intrinsics   float32 (T, 4): fx, fy, cx, cy in pixels, integer at the centres of pixels
                      poses        float64 (T, 3, 4), world from camera in metres: x right, y down, z forward; the
                                   world's z is up and its floor is at 0
                      is_cut       bool (T,), whether the frame begins another shot

Clip ``i`` depends only on what the index says besides the count, and on i. A file appears once it is complete, so an
interrupted run resumes with the first clip that is missing. Every pixel is the mean of four samples over its area and
the exposure; depth and pose are those of the pixel's centre in the middle of the exposure, for a rolling shutter in the
middle of that of the middle row, all over the frame. The archive holds a CRC-32 of each array, which every read
verifies.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.sample import DepthSample
from mvde.datasets.splits import Split, check_split
from mvde.datasets.synth.filming import CAMERA_HZ, Filming
from mvde.datasets.synthetic import DEPTH_RANGE_M, ProgressCallback, check_frame_arguments, check_renderer
from mvde.errors import DatasetError, OutputError, UsageError
from mvde.files import atomic_write

if TYPE_CHECKING:
    from mvde.datasets.synth.clip_renderer import RenderedClip

GENERATOR_VERSION = 1
DEFAULT_FRAMES = 60
UNITS_PER_M = 5000.0
_MAX_FRAMES = 3600  # two minutes at 30 frames per second; a clip is held in memory
_LONGEST_READOUT_MS = 33.0  # of a camera that takes 30 frames per second
_INDEX = "index.json"
_ADDED = ("rolling_shutter_ms", "bare")


@dataclass(frozen=True)
class Clip:
    """Frames of one camera in order, with what is true of them.

    ``rgb`` (T, H, W, 3) uint8 RGB; ``depth_m`` (T, H, W) float32 z-depth in metres, 0 where unknown; ``intrinsics``
    (T, 4) float32 fx, fy, cx, cy in pixels, integer at the centres of pixels; ``poses`` (T, 3, 4) float64 world from
    camera, x right, y down, z forward, the world's z up and its floor at 0; ``is_cut`` (T,) bool, whether a frame
    begins another shot; ``time_s`` (T,) float64. With a rolling shutter, ``rolling_shutter_ms`` is how much later the
    bottom edge is exposed than the top edge; ``depth_m``, ``poses`` and ``time_s`` are of the middle row's moment.
    """

    name: str
    kind: str
    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    intrinsics: NDArray[np.float32]
    poses: NDArray[np.float64]
    is_cut: NDArray[np.bool_]
    time_s: NDArray[np.float64]
    rolling_shutter_ms: float = 0.0

    @property
    def height_m(self) -> NDArray[np.float64]:
        """Height of the camera above the floor in metres, (T,)."""
        return self.poses[:, 2, 3]

    @property
    def pitch_rad(self) -> NDArray[np.float64]:
        """Angle of the optical axis above the horizon in radians, (T,)."""
        pitch: NDArray[np.float64] = np.arcsin(np.clip(self.poses[:, 2, 2], -1.0, 1.0))
        return pitch


@dataclass(frozen=True)
class ClipIndex:
    """Contents of ``index.json``; ``count`` is the number of clips that were asked for, for others see Filming."""

    seed: int
    split: Split
    size: tuple[int, int]
    count: int
    num_frames: int
    fps: float = CAMERA_HZ
    generator_version: int = GENERATOR_VERSION
    rolling_shutter_ms: float = 0.0
    bare: bool = False

    @property
    def filming(self) -> Filming:
        """What the clips have in common."""
        return Filming(self.size, self.num_frames, self.fps, self.rolling_shutter_ms, self.bare)

    @classmethod
    def read(cls, root: Path) -> ClipIndex:
        """Read the index of a folder. Raises DatasetError if the file is missing or malformed."""
        path = root / _INDEX
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            index = cls(**{**raw, "size": tuple(raw["size"]), "split": Split(raw["split"])})
            counts = (index.seed, index.count, index.num_frames, *index.size, index.generator_version)
            if len(index.size) != 2 or any(type(one) is not int or one < 0 for one in counts) or index.num_frames < 1:
                raise ValueError("numbers out of range")
            if not (0 < index.fps < math.inf and 0 <= index.rolling_shutter_ms < math.inf and type(index.bare) is bool):
                raise ValueError("fps, rolling_shutter_ms or bare out of range")
        except FileNotFoundError:
            raise DatasetError(
                f"{path} is missing: not a folder of clips; make one with 'mvde data synth --video'"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(
                f"{path} is not the index of a folder of clips ({error}); make the clips anew with "
                "'mvde data synth --video'"
            ) from None
        return index

    def write(self, root: Path) -> None:
        """Replace ``index.json`` in one step; what later versions added is left out where it is the default."""
        plain = {name: value for name, value in asdict(self).items() if value or name not in _ADDED}
        with atomic_write(root / _INDEX) as path:
            path.write_text(json.dumps(plain), encoding="utf-8")


def generate_clips(
    root: Path,
    count: int,
    *,
    num_frames: int = DEFAULT_FRAMES,
    size: tuple[int, int] = (192, 192),
    seed: int = 0,
    split: Split | str = Split.TRAIN,
    fps: float = CAMERA_HZ,
    rolling_shutter_ms: float = 0.0,
    bare: bool = False,
    num_workers: int = 1,
    progress: ProgressCallback | None = None,
) -> int:
    """Fill ``root`` up to ``count`` clips of ``num_frames`` frames; return the number rendered now.

    An interrupted run is resumed. ``size`` is (height, width) in pixels; equal arguments give equal clips, another seed
    or split shares no scene. ``fps``, ``rolling_shutter_ms`` and ``bare`` are those of
    :class:`mvde.datasets.synth.filming.Filming`. ``progress`` receives the number of finished clips. Raises UsageError
    for arguments out of range or a folder made with other settings, MissingDependencyError or BackendError if rendering
    is impossible, OutputError if the disk is full or not writable.
    """
    check_frame_arguments(count, size, seed, num_workers)
    wanted = ClipIndex(
        seed, check_split(split), size, count, num_frames, fps, rolling_shutter_ms=rolling_shutter_ms, bare=bare
    )
    _check_filming(wanted)
    check_renderer()
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_same_settings(root, wanted)
        wanted.write(root)
        return _fill(root, wanted, num_workers, progress or (lambda _: None))
    except OSError as error:
        raise OutputError(f"cannot write clips to {root}: {error}; finished clips are kept") from error


def _check_filming(wanted: ClipIndex) -> None:
    if not 1 <= wanted.num_frames <= _MAX_FRAMES:
        raise UsageError(f"a clip of {wanted.num_frames} frames was asked for; expected 1 to {_MAX_FRAMES}")
    if not 1 <= wanted.fps <= CAMERA_HZ:
        raise UsageError(f"{wanted.fps:g} frames per second were asked for; expected 1 to {CAMERA_HZ:g}")
    if not 0 <= wanted.rolling_shutter_ms <= _LONGEST_READOUT_MS:
        raise UsageError(
            f"a rolling shutter of {wanted.rolling_shutter_ms:g} ms was asked for; expected 0 (all rows at once) to "
            f"{_LONGEST_READOUT_MS:g}"
        )


def _check_same_settings(root: Path, wanted: ClipIndex) -> None:
    if not (root / _INDEX).exists():
        return
    found = ClipIndex.read(root)
    for name in ("seed", "split", "size", "num_frames", "fps", "generator_version", *_ADDED):
        if getattr(found, name) != getattr(wanted, name):
            raise UsageError(
                f"{root} holds clips with {name} {getattr(found, name)}, but {getattr(wanted, name)} was requested; "
                "choose another folder or the same settings"
            )
    if found.count > wanted.count:
        raise UsageError(
            f"{root} is a data set of {found.count} clips, but {wanted.count} were requested; choose another folder"
        )


def clip_path(root: Path, number: int) -> Path:
    """Path of a clip's file."""
    return root / f"clip-{number:05d}.npz"


def _fill(root: Path, index: ClipIndex, num_workers: int, progress: ProgressCallback) -> int:
    from mvde.datasets.synth.render_pool import render_clips

    missing = [number for number in range(index.count) if not clip_path(root, number).exists()]
    progress(index.count - len(missing))
    if not missing:
        return 0
    stream = (index.seed, index.split.stream)
    with closing(render_clips(stream, index.filming, missing, min(num_workers, len(missing)))) as clips:
        for done, (number, clip) in enumerate(zip(missing, clips, strict=True), start=1):
            _write(clip_path(root, number), clip)
            progress(index.count - len(missing) + done)
    return len(missing)


def _write(path: Path, clip: RenderedClip) -> None:
    arrays: dict[str, Any] = clip._asdict()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_clip(root: Path, number: int) -> Clip:
    """Read a clip of a folder. Raises DatasetError if it is missing or damaged."""
    return _read(root, number, ClipIndex.read(root))


def _read(root: Path, number: int, index: ClipIndex) -> Clip:
    path, (height, width), frames = clip_path(root, number), index.size, index.num_frames
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        "rgb": ((frames, height, width, 3), np.uint8),
        "depth": ((frames, height, width), np.uint16),
        "intrinsics": ((frames, 4), np.float32),
        "poses": ((frames, 3, 4), np.float64),
        "is_cut": ((frames,), np.bool_),
    }
    try:
        with np.load(path, allow_pickle=False) as archive:
            parts = {name: archive[name] for name in ("kind", *expected)}
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing; run 'mvde data synth --video' again to render it") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path} is damaged ({error}); delete it and run 'mvde data synth --video' again to render it anew"
        ) from None
    for name, (shape, dtype) in expected.items():
        if parts[name].shape != shape or parts[name].dtype != dtype:
            raise DatasetError(
                f"{path} has {name} of shape {parts[name].shape} and type {parts[name].dtype}, expected {shape} and "
                f"{np.dtype(dtype)}; delete it and run 'mvde data synth --video' again"
            )
    depth_m = parts.pop("depth").astype(np.float32) / np.float32(UNITS_PER_M)
    times = np.arange(frames) / index.fps
    kind, readout_ms = str(parts.pop("kind")), index.rolling_shutter_ms
    return Clip(f"clip {number}", kind, depth_m=depth_m, time_s=times, rolling_shutter_ms=readout_ms, **parts)


class ClipDataset:
    """Frames of the finished clips of a folder, clip after clip; the clip that was read last is kept in memory."""

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path, split: Split | None = None) -> None:
        """Open ``root``. Raises DatasetError if it holds no clip yet, or a split other than ``split``."""
        self._root, self._index = root, ClipIndex.read(root)
        if split is not None and split != self._index.split:
            raise DatasetError(f"{root} holds the split {self._index.split}, not {split}; choose another folder")
        self._numbers = [number for number in range(self._index.count) if clip_path(root, number).exists()]
        if not self._numbers:
            raise DatasetError(f"{root} holds no finished clip yet; render some with 'mvde data synth --video'")
        self._last: tuple[int, Clip] | None = None

    def __len__(self) -> int:
        return len(self._numbers) * self._index.num_frames

    def __getitem__(self, index: int) -> DepthSample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        place, frame = divmod(index, self._index.num_frames)
        clip = self._clip(self._numbers[place])
        name = f"{clip.name} frame {frame}"
        return DepthSample(clip.rgb[frame], clip.depth_m[frame], clip.intrinsics[frame], name, clip.poses[frame])

    def scene(self, index: int) -> str:
        """Return the name of the frame's clip."""
        return f"clip {self._numbers[index // self._index.num_frames]}"

    def clips(self) -> Iterator[Clip]:
        """Read the clips one after the other."""
        return (self._clip(number) for number in self._numbers)

    @property
    def fps(self) -> float:
        """Frames per second of a clip."""
        return self._index.fps

    @property
    def num_frames(self) -> int:
        """Number of frames of a clip."""
        return self._index.num_frames

    @property
    def num_clips(self) -> int:
        """Number of finished clips."""
        return len(self._numbers)

    def _clip(self, number: int) -> Clip:
        last = self._last
        if last is None or last[0] != number:
            self._last = last = (number, _read(self._root, number, self._index))
        return last[1]
