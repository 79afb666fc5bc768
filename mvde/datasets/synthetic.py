"""Synthetic indoor frames: a generator that fills a folder, and its reader.

A folder holds shards of 1,024 frames and an index::

    index.json                 seed, split, size [H, W], count, shard_frames, generator_version, done (frames a shard),
                               crc32 of the others (of their compact JSON with sorted keys)
    rgb-00000.npy              uint8 (n, H, W, 3), RGB
    depth-00000.npy            uint16 (n, H, W), z-depth in millimetres, 0 where there is none
    intrinsics-00000.npy       float32 (n, 4): fx, fy, cx, cy in pixels
    checksums-00000.npy        uint32 (n, 3): CRC-32 of each frame's bytes in the three files above

Frame ``i`` depends only on (seed, split, i), not on the number of workers or on interruptions: its scene is ``i // 8``
and its view ``i % 8``, each with its own random stream. ``index.json`` counts a frame as done only once its pixels are
flushed, so an interrupted run resumes where the index ends. Frames are rendered with OpenGL; another driver may round
differently. Every read verifies the frame's checksums, which takes a tenth of a millisecond.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mvde.datasets.sample import DepthSample
from mvde.datasets.splits import Split, check_split
from mvde.errors import DatasetError, OutputError, UsageError

if TYPE_CHECKING:
    from mvde.datasets.synth.render_pool import SceneFrames

GENERATOR_VERSION = 1
VIEWS_PER_SCENE = 8
SHARD_FRAMES = 1024
_FLUSH_FRAMES = 128
_DTYPES = ("u1", "<u2", "<f4", "<u4")  # RGB, depth in millimetres, intrinsics, checksums
_MAX_SIDE = 4096
ProgressCallback = Callable[[int], None]
DEPTH_RANGE_M = (0.05, 30.0)  # near and far planes of the renderer, mvde.datasets.synth.renderer


@dataclass
class SyntheticIndex:
    """Contents of ``index.json``; ``size`` is (height, width), ``done`` counts finished frames per shard."""

    seed: int
    split: Split
    size: tuple[int, int]
    count: int
    shard_frames: int = SHARD_FRAMES
    generator_version: int = GENERATOR_VERSION
    done: list[int] = field(default_factory=list)

    @property
    def num_done(self) -> int:
        """Number of finished frames."""
        return sum(self.done)

    def shard_size(self, shard: int) -> int:
        """Return the number of frames of a shard."""
        return min(self.shard_frames, self.count - shard * self.shard_frames)

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.shard_frames)

    @classmethod
    def read(cls, root: Path) -> SyntheticIndex:
        """Read the index of a folder. Raises DatasetError if the file is missing or malformed."""
        path = root / "index.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DatasetError(f"{path} is missing: not a synthetic dataset; make one with 'mvde data synth'") from None
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} is not readable JSON ({error}); generate the dataset again") from None
        _check_own_checksum(path, raw)
        try:
            index = cls(**{**raw, "size": tuple(raw["size"]), "split": Split(raw["split"])})
            sound = len(index.size) == 2 and len(index.done) == index.num_shards
            sound &= all(0 <= n <= index.shard_size(k) for k, n in enumerate(index.done))
        except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError):
            sound = False
        if not sound:
            raise DatasetError(
                f"{path} does not have the keys of a synthetic dataset's index; generate the dataset again"
            )
        return index

    def write(self, root: Path) -> None:
        """Replace ``index.json`` by an atomic rename."""
        temporary = root / f".index.json.{os.getpid()}"
        with temporary.open("w", encoding="utf-8") as file:
            plain = asdict(self)
            json.dump({**plain, "crc32": _crc32_of(plain)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(root / "index.json")


def _crc32_of(plain: dict[str, Any]) -> str:
    """CRC-32 of an index's JSON without its own checksum, as eight hexadecimal digits."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x}"


def _check_own_checksum(path: Path, raw: Any) -> None:
    """Take the checksum out of a parsed index; raise DatasetError where it is missing or another one."""
    if not isinstance(raw, dict) or "crc32" not in raw:
        raise DatasetError(
            f"{path} states no checksum: it is no index of a synthetic dataset, or of an older mvde; make it anew with "
            "'mvde data synth'"
        )
    if (stated := raw.pop("crc32")) != (actual := _crc32_of(raw)):
        raise DatasetError(
            f"{path} is damaged or was edited: it has CRC-32 {actual}, but {stated} is stated in it; copy it again, or "
            "make the dataset anew"
        )


def shard_paths(root: Path, shard: int) -> tuple[Path, Path, Path, Path]:
    """Paths of a shard's RGB, depth, intrinsics and checksums."""
    names = (f"{name}-{shard:05d}.npy" for name in ("rgb", "depth", "intrinsics", "checksums"))
    rgb, depth, intrinsics, checksums = (root / name for name in names)
    return rgb, depth, intrinsics, checksums


def frame_checksums(*parts: npt.NDArray[Any]) -> tuple[int, ...]:
    """CRC-32 of one frame's RGB, depth and intrinsics as stored; detects every single-bit error."""
    return tuple(zlib.crc32(np.ascontiguousarray(part).data) for part in parts)


def _shard_shapes(index: SyntheticIndex, shard: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the files of :func:`shard_paths`."""
    frames, (height, width) = index.shard_size(shard), index.size
    return (frames, height, width, 3), (frames, height, width), (frames, 4), (frames, 3)


def generate(
    root: Path,
    count: int,
    *,
    size: tuple[int, int] = (192, 192),
    seed: int = 0,
    split: Split | str = Split.TRAIN,
    num_workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> int:
    """Fill ``root`` up to ``count`` frames; return the number rendered now.

    An interrupted run is resumed. ``size`` is (height, width) in pixels; equal (seed, split) give equal frames, others
    share no scene. ``progress`` receives the number of finished frames. Raises UsageError for arguments out of range or
    a folder made with other settings, MissingDependencyError or BackendError if rendering is impossible, OutputError if
    the disk is full or not writable.
    """
    check_frame_arguments(count, size, seed, num_workers)
    split = check_split(split)
    if num_workers is None:
        num_workers = os.cpu_count() or 1
    check_renderer()
    try:
        root.mkdir(parents=True, exist_ok=True)
        index = _open_index(root, SyntheticIndex(seed, split, size, count))
        return _fill(root, index, num_workers, progress or (lambda _: None))
    except OSError as error:
        raise OutputError(f"cannot write frames to {root}: {error}; finished frames are kept") from error


def check_frame_arguments(count: int, size: tuple[int, int], seed: int, num_workers: int | None) -> None:
    """Raise UsageError unless the arguments of rendering are in range; ``size`` is (height, width)."""
    if count < 1:
        raise UsageError(f"count is {count}; expected at least 1")
    if not all(16 <= side <= _MAX_SIDE for side in size):
        raise UsageError(f"size is {size[0]}x{size[1]}; expected HxW with sides from 16 to {_MAX_SIDE} pixels")
    if seed < 0:
        raise UsageError(f"seed is {seed}; expected 0 or more")
    if num_workers is not None and num_workers < 1:
        raise UsageError(f"workers is {num_workers}; expected at least 1")


def check_renderer() -> None:
    """Fail early in this process with a clear error, instead of through dead workers."""
    from mvde.datasets.synth.renderer import create_context

    create_context().release()


def _open_index(root: Path, wanted: SyntheticIndex) -> SyntheticIndex:
    """Read or create the folder's index, extended to the wanted count."""
    if (root / "index.json").exists():
        found = SyntheticIndex.read(root)
        for name in ("seed", "split", "size", "shard_frames", "generator_version"):
            if getattr(found, name) != getattr(wanted, name):
                raise UsageError(
                    f"{root} holds frames with {name} {getattr(found, name)}, but {getattr(wanted, name)} was"
                    " requested; choose another folder or the same settings"
                )
        if found.count > wanted.count:
            raise UsageError(
                f"{root} is a dataset of {found.count} frames, but {wanted.count} were requested; choose another folder"
            )
        wanted.done = found.done
        _regrow_last_shard(root, found, wanted)
    wanted.done += [0] * (wanted.num_shards - len(wanted.done))
    wanted.write(root)
    return wanted


def _regrow_last_shard(root: Path, found: SyntheticIndex, wanted: SyntheticIndex) -> None:
    """Enlarge the last shard of a folder whose count grew, keeping its finished frames."""
    last = found.num_shards - 1
    if found.shard_size(last) == wanted.shard_size(last) or not found.done[last]:
        return
    for path in shard_paths(root, last):
        kept = np.load(path)[: found.done[last]]
        grown = np.zeros((wanted.shard_size(last), *kept.shape[1:]), kept.dtype)
        grown[: len(kept)] = kept
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as file:
            np.save(file, grown)
        temporary.replace(path)


class _ShardWriter:
    """Writer of frames into the memory maps of one shard."""

    def __init__(self, root: Path, index: SyntheticIndex, shard: int) -> None:
        self._maps: list[Any] = [
            _open_map(path, shape, dtype)
            for path, shape, dtype in zip(shard_paths(root, shard), _shard_shapes(index, shard), _DTYPES, strict=True)
        ]

    def write(self, at: int, block: SceneFrames, count: int) -> None:
        arrays: tuple[npt.NDArray[Any], ...] = block
        *parts, checksums = self._maps
        for target, values in zip(parts, arrays, strict=True):
            target[at : at + count] = values[:count]
        for frame in range(at, at + count):  # checksums cover the stored values
            checksums[frame] = frame_checksums(*(target[frame] for target in parts))

    def flush(self) -> None:
        for target in self._maps:
            target.flush()


def _open_map(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """Open a writable memory map, reusing the file if shape and dtype match, else creating it."""
    try:
        found = np.load(path, mmap_mode="r+")
        if found.shape == shape and found.dtype == np.dtype(dtype):
            return found
    except (FileNotFoundError, ValueError, EOFError):
        pass
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    try:
        # Without allocation, a full disk would raise SIGBUS on writing a page of a sparse file.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        path.unlink()
        raise
    return made


def _fill(root: Path, index: SyntheticIndex, num_workers: int, progress: ProgressCallback) -> int:
    from mvde.datasets.synth.render_pool import render_scenes

    start = _first_missing(index)
    progress(start)
    if start == index.count:
        return 0
    numbers = range(start // VIEWS_PER_SCENE, -(-index.count // VIEWS_PER_SCENE))
    stream = (index.seed, index.split.stream)
    with closing(render_scenes(stream, index.size, numbers, num_workers)) as blocks:
        first = _ShardWriter(root, index, start // index.shard_frames)  # a full disk fails before rendering
        _store(root, index, zip(numbers, blocks, strict=True), first, progress)
    return index.count - start


def _store(
    root: Path,
    index: SyntheticIndex,
    blocks: Iterable[tuple[int, SceneFrames]],
    writer: _ShardWriter | None,
    progress: ProgressCallback,
) -> None:
    """Write the scenes' frames, the first with ``writer``, and count them as done once they are flushed."""
    for scene, block in blocks:
        first = scene * VIEWS_PER_SCENE
        shard, at = divmod(first, index.shard_frames)  # shards hold whole scenes: a block never spans two
        writer = writer or _ShardWriter(root, index, shard)
        end = min(first + VIEWS_PER_SCENE, index.count)
        writer.write(at, block, end - first)
        shard_is_full = end == index.count or end % index.shard_frames == 0
        if shard_is_full or end % _FLUSH_FRAMES == 0:
            writer.flush()
            index.done[shard] = end - shard * index.shard_frames
            index.write(root)
        if shard_is_full:
            writer = None
        progress(end)


def _first_missing(index: SyntheticIndex) -> int:
    for shard, done in enumerate(index.done):
        if done < index.shard_size(shard):
            return shard * index.shard_frames + done
    return index.count


class SyntheticFrames:
    """Finished frames of a folder made by :func:`generate`, read through memory maps.

    A folder that is still being filled may be read: the length is the number of frames finished when it was opened.
    """

    def __init__(self, root: str | Path) -> None:
        """Open ``root``. Raises DatasetError naming what is missing or malformed."""
        self.root = Path(root)
        self.index = SyntheticIndex.read(self.root)
        self._length = _first_missing(self.index)
        if self._length == 0:
            raise DatasetError(f"{self.root} holds no finished frame yet; generate some with 'mvde data synth'")
        self._maps: dict[int, tuple[Any, ...]] = {}
        for shard in range(-(-self._length // self.index.shard_frames)):
            self._maps[shard] = self._open(shard)

    def __len__(self) -> int:
        return self._length

    def frame(self, i: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return RGB, depth in metres and intrinsics of frame ``i``.

        Raises IndexError past the end, DatasetError if a checksum does not match.

        RGB is uint8 (H, W, 3); depth float32 (H, W), along the optical axis, 0 where unknown; intrinsics float32 (4,):
        fx, fy, cx, cy in pixels.
        """
        if not 0 <= i < self._length:
            raise IndexError(f"frame {i} of {self._length}")
        shard, at = divmod(i, self.index.shard_frames)
        rgb, depth_mm, intrinsics, stated = (np.array(part[at]) for part in self._maps[shard])
        actual = frame_checksums(rgb, depth_mm, intrinsics)
        for path, one, other in zip(shard_paths(self.root, shard), actual, stated.tolist(), strict=False):
            if one != other:
                raise DatasetError(
                    f"{path} is damaged: frame {at} has CRC-32 {one:08x}, but {other:08x} was stored; copy it "
                    "again, or run 'mvde data synth' again in a new folder"
                )
        return rgb, depth_mm.astype(np.float32) / np.float32(1000.0), intrinsics

    def _open(self, shard: int) -> tuple[Any, ...]:
        maps = []
        shapes = _shard_shapes(self.index, shard)
        for path, dtype, shape in zip(shard_paths(self.root, shard), _DTYPES, shapes, strict=True):
            try:
                found = np.load(path, mmap_mode="r")
            except FileNotFoundError:
                raise DatasetError(f"{path} is missing; run 'mvde data synth' again in a new folder") from None
            except (OSError, ValueError, EOFError) as error:
                raise DatasetError(
                    f"{path} is damaged ({error}); run 'mvde data synth' again in a new folder"
                ) from None
            if found.shape != shape or found.dtype != np.dtype(dtype):
                raise DatasetError(
                    f"{path} has shape {found.shape} and type {found.dtype}, expected {shape} and {np.dtype(dtype)}"
                )
            maps.append(found)
        return tuple(maps)


class SyntheticDataset:
    """Samples of a folder filled by ``mvde data synth``."""

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path, split: Split | None = None) -> None:
        """Open ``root``. Raises DatasetError if it holds a split other than ``split``."""
        self._frames = SyntheticFrames(root)
        if split is not None and split != self._frames.index.split:
            raise DatasetError(f"{root} holds the split {self._frames.index.split}, not {split}; choose another folder")

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DepthSample:
        rgb, depth_m, intrinsics = self._frames.frame(index)
        return DepthSample(rgb, depth_m, intrinsics, f"frame {index}")

    def scene(self, index: int) -> str:
        """Return the name of the room that the frame is a view of."""
        return f"room {index // VIEWS_PER_SCENE}"
