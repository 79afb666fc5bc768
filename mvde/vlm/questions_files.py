"""Questions as files: pictures with marked boxes, the depth of their frames, and conversations in LLaVA's JSON."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import OutputError, UsageError
from mvde.vlm.choices import QuestionKind, Rounding
from mvde.vlm.conversations import Conversation, Turn, write_conversations
from mvde.vlm.questions import COLOURS, MarkedPair, Question
from mvde.vlm.questions_sampling import SamplingSettings, ask_of, draw_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.datasets.sample import DepthDataset, DepthSample

_RGB_OF = {"red": (255, 0, 0), "blue": (0, 0, 255)}
_LINE_SHARE = 0.15
"""Width of a box's outline as a share of its side: the place stays visible in the middle."""
_MOST_MM = 65_535


@dataclass(frozen=True)
class QuestionSettings:
    """What is asked about a data set, and how the boxes are chosen; ``max_frames`` evenly spaced frames, 0 for all."""

    kinds: tuple[QuestionKind, ...] = tuple(QuestionKind)
    rounding: Rounding = Rounding.CENTIMETRE
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_frames: int = 0

    def frames_of(self, count: int) -> list[int]:
        """Return the numbers of the frames to use, of ``count``."""
        number = min(self.max_frames or count, count)
        return [at * count // number for at in range(number)]


@dataclass(frozen=True)
class QuestionReport:
    """What was written: questions by kind and cue, the pictures and the frames they are of."""

    num_questions: int
    num_pictures: int
    num_frames: int
    by_kind_and_cue: dict[tuple[str, str], int]


def write_questions(
    dataset: DepthDataset,
    path: str | Path,
    settings: QuestionSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QuestionReport:
    """Write questions about a data set to the JSON file ``path``, pictures and depth to folders beside it.

    The file is written last, in one step. ``progress`` receives the pictures written so far and their number. Raises
    DatasetError if a frame cannot be read or none has two boxes to compare, OutputError if the disk is full.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise UsageError(f"questions are written as JSON, but got {path}; name it {path.with_suffix('.json').name}")
    if not settings.kinds:
        raise UsageError("no kind of question was asked for; name at least one")
    pairs = draw_pairs(dataset, settings.frames_of(len(dataset)), settings.sampling)
    conversations: list[Conversation] = []
    for done, (pair, number, sample, questions) in enumerate(_asked(dataset, pairs, settings)):
        depth = path.parent / f"{path.stem}-depth" / f"{pair.frame:06d}{_depth_suffix(sample.depth_m)}"
        if number == 0:
            write_depth(depth, sample.depth_m)
        image = path.parent / f"{path.stem}-images" / f"{pair.frame:06d}-{number}.png"
        write_picture(image, marked(sample.rgb, pair))
        camera = None if sample.intrinsics is None else tuple(float(value) for value in sample.intrinsics)
        conversations += [
            Conversation(
                f"{pair.frame:06d}-{number}-{question.kind}",
                image,
                (Turn(question.text, question.answer),),
                depth,
                camera,  # type: ignore[arg-type]  # four numbers, by the type of DepthSample
                _facts(pair, question),
            )
            for question in questions
        ]
        progress(done + 1, len(pairs))
    counts = Counter((str(one.facts["kind"]), str(one.facts["cue"])) for one in conversations)
    num_written = write_conversations(path, conversations)
    return QuestionReport(num_written, len(pairs), len({pair.frame for pair in pairs}), dict(counts))


def marked(rgb: NDArray[np.uint8], pair: MarkedPair) -> NDArray[np.uint8]:
    """Copy of a picture (H, W, 3) uint8 RGB with the outlines of the pair's boxes, inside of them."""
    picture = rgb.copy()
    for colour in COLOURS:
        box, _ = pair.box(colour)
        line = max(1, round(_LINE_SHARE * (box.bottom - box.top)))
        part = picture[box.top : box.bottom, box.left : box.right]
        inside = part[line:-line, line:-line].copy()
        part[:] = _RGB_OF[colour]
        part[line:-line, line:-line] = inside
    return picture


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write RGB (H, W, 3) uint8 as PNG. Raises OutputError."""
    from PIL import Image

    with _errors_that_name(path):
        Image.fromarray(rgb).save(path, format="PNG", compress_level=1)


def write_depth(path: Path, depth_m: NDArray[np.float32]) -> None:
    """Write depth (H, W) in metres as a 16-bit PNG in millimetres, 0 where unknown, or as float32 ``.npy``."""
    from PIL import Image

    with _errors_that_name(path):
        if path.suffix == ".npy":
            np.save(path, depth_m.astype(np.float32))
            return
        known = np.isfinite(depth_m) & (depth_m > 0)
        depth_mm = np.rint(np.where(known, depth_m, 0).astype(np.float64) * 1000).astype(np.uint16)
        Image.fromarray(depth_mm).save(path, format="PNG", compress_level=1)


@contextlib.contextmanager
def _errors_that_name(path: Path) -> Iterator[None]:
    """Create the folder of a file; raise OutputError, naming the file, where it cannot be written.

    Not durable one by one, which takes 30 ms a file on a disk: the questions are written after all of their files.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; no questions were written") from error


def _depth_suffix(depth_m: NDArray[np.float32]) -> str:
    """``".png"`` where 16 bits of millimetres (65.5 m) hold the depth, else ``".npy"``."""
    known = depth_m[np.isfinite(depth_m)]
    return ".png" if not known.size or float(known.max()) * 1000 <= _MOST_MM else ".npy"


def _asked(
    dataset: DepthDataset, pairs: Sequence[MarkedPair], settings: QuestionSettings
) -> Iterator[tuple[MarkedPair, int, DepthSample, list[Question]]]:
    """Every pair, its number within its frame, the frame, and the questions; a frame is read once."""
    last, number, sample = -1, 0, None
    for pair, questions in ask_of(pairs, settings.kinds, settings.rounding):
        if pair.frame != last or sample is None:
            last, number, sample = pair.frame, -1, dataset[pair.frame]
        number += 1
        yield pair, number, sample, questions


def _facts(pair: MarkedPair, question: Question) -> dict[str, object]:
    """What an evaluation needs to know, as JSON types."""
    facts: dict[str, object] = {
        "kind": str(question.kind),
        "cue": str(question.cue),
        "frame": pair.frame,
        "boxes": {colour: list(pair.box(colour)[0].corners()) for colour in COLOURS},
        "distances_m": {colour: round(pair.box(colour)[1], 4) for colour in COLOURS},
    }
    if question.distance_m is not None:
        facts["distance_m"] = round(question.distance_m, 4)
    return {**facts, "options": list(question.options)} if question.options else facts
