"""Questions of published benchmarks, from local files; a file of another layout is refused by name.

===============  =======================================================================  =========================
format           files                                                                    published in
===============  =======================================================================  =========================
``llava``        ``.json`` of :mod:`mvde.vlm.conversations`, as `mvde vlm qa` writes it   Liu et al., 2023
``cvbench``      ``test_2d.jsonl``, ``test_3d.jsonl`` with ``img/``, or ``.parquet``      Tong et al., 2024
``blink``        ``.parquet`` or ``.jsonl`` of its tasks; questions about one picture     Fu et al., 2024
``srgpt-bench``  SpatialRGPT-Bench ``.json``, ``.jsonl`` or ``.parquet``                  Cheng et al., 2024
===============  =======================================================================  =========================
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.errors import DatasetError, ImageError, MissingDependencyError
from mvde.vlm.choices import EvaluationFormat
from mvde.vlm.conversations import IMAGE_TOKEN, check_files, read_conversations, read_records
from mvde.vlm.evaluation_answers import metres_of, polarity_of, word_of
from mvde.vlm.questions import COLOURS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BOX_COLOURS = ((255, 0, 0), (0, 0, 255), (0, 160, 0), (255, 160, 0))
_DIRECTLY = "Answer with the option's letter only."


class AnswerKind(str, Enum):
    """How an answer is read and compared."""

    OPTION = "option"
    WORD = "word"
    YES_NO = "yes or no"
    DISTANCE = "distance"
    TEXT = "text"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class EvaluationQuestion:
    """One question about one picture, and its true answer.

    ``picture`` is a file, or the bytes of one. ``boxes`` (left, top, right, bottom) in pixels are drawn on it. ``cue``
    is ``consistent``, ``counter`` or empty where it is unknown; ``task`` and ``source`` are the benchmark's names.
    """

    name: str
    text: str
    answer: str
    kind: AnswerKind
    picture: Path | bytes
    depth: Path | None = None
    camera: tuple[float, float, float, float] | None = None
    options: tuple[str, ...] = ()
    distance_m: float | None = None
    cue: str = ""
    task: str = ""
    source: str = ""
    boxes: tuple[tuple[float, float, float, float], ...] = field(default=())

    def image(self) -> NDArray[np.uint8]:
        """Read the picture, RGB (H, W, 3) uint8, with its boxes drawn. Raises ImageError or DatasetError."""
        if isinstance(self.picture, Path):
            from mvde.image import read_image

            rgb = read_image(self.picture)
        else:
            rgb = _decoded(self.picture, self.name)
        return _with_boxes(rgb, self.boxes) if self.boxes else rgb


def read_questions(
    evaluation_format: EvaluationFormat, paths: Sequence[Path], image_root: Path | None = None
) -> list[EvaluationQuestion]:
    """Read the questions of files of one format, in order.

    ``image_root`` is the folder of pictures, by default that of each file. Raises DatasetError for a file of another
    layout, naming the file, the record and what is missing, and for missing pictures, counted and named.
    """
    readers: dict[EvaluationFormat, Callable[[Path, Path], list[EvaluationQuestion]]] = {
        EvaluationFormat.LLAVA: _read_llava,
        EvaluationFormat.CVBENCH: _read_cvbench,
        EvaluationFormat.BLINK: _read_blink,
        EvaluationFormat.SRGPT_BENCH: _read_srgpt_bench,
    }
    questions = []
    for path in paths:
        found = readers[evaluation_format](path, path.parent if image_root is None else image_root)
        if not found:
            raise DatasetError(f"{path} holds no question of {evaluation_format} about exactly one picture")
        check_files(path, "picture", [one.picture for one in found if isinstance(one.picture, Path)])
        questions += found
    return questions


def _read_llava(path: Path, root: Path) -> list[EvaluationQuestion]:
    questions = []
    for one in read_conversations(path, root):
        turn, facts = one.turns[0], one.facts
        options = tuple(str(option) for option in facts.get("options", ()))
        distance_m = facts.get("distance_m")
        kind = AnswerKind.TEXT
        if options:
            kind = AnswerKind.OPTION
        elif distance_m is not None:
            kind = AnswerKind.DISTANCE
        elif turn.answer in COLOURS:
            kind, options = AnswerKind.WORD, COLOURS
        answer = turn.answer.strip("()") if kind is AnswerKind.OPTION else turn.answer
        task, cue = (str(facts.get(name, "")) for name in ("kind", "cue"))
        questions.append(
            EvaluationQuestion(
                one.name, turn.question, answer, kind, one.image, one.depth, one.camera, options, distance_m, cue, task
            )
        )
    return questions


def _read_cvbench(path: Path, root: Path) -> list[EvaluationQuestion]:
    questions = []
    for number, record in enumerate(_records(path)):
        wrong = _Wrong(path, number, "CV-Bench")
        prompt, answer, choices = (wrong.text(record, "prompt"), wrong.text(record, "answer"), record.get("choices"))
        options = wrong.options(choices, answer)
        file = root / str(record.get("filename", ""))
        if not file.is_file():  # named within the folder of pictures, by its documentation
            file = root / "img" / str(record.get("filename", ""))
        picture = _picture(record, "image", file, wrong)
        questions.append(
            EvaluationQuestion(
                str(record.get("idx", number)),
                f"{prompt}\n{_DIRECTLY}",
                answer.strip(" ()"),
                AnswerKind.OPTION,
                picture,
                options=options,
                task=f"{wrong.text(record, 'type')} {wrong.text(record, 'task')}",
                source=str(record.get("source", "")),
            )
        )
    return questions


def _read_blink(path: Path, root: Path) -> list[EvaluationQuestion]:
    """Questions about one picture; those about several (such as Visual_Correspondence) are left out."""
    questions = []
    for number, record in enumerate(_records(path)):
        wrong = _Wrong(path, number, "BLINK")
        prompt, answer, name = (wrong.text(record, key) for key in ("prompt", "answer", "idx"))
        options = wrong.options(record.get("choices"), answer)
        if any(record.get(f"image_{other}") for other in (2, 3, 4)):
            continue
        questions.append(
            EvaluationQuestion(
                name,
                f"{prompt}\n{_DIRECTLY}",
                answer.strip(" ()"),
                AnswerKind.OPTION,
                _picture(record, "image_1", root / str(record.get("image_1", "")), wrong),
                options=options,
                task=str(record.get("sub_task") or re.sub(r"_?(val|test)_?\d*$", "", name)),
            )
        )
    return questions


def _read_srgpt_bench(path: Path, root: Path) -> list[EvaluationQuestion]:
    """Questions with their regions as numbered boxes drawn on the picture: general models take no masks."""
    questions = []
    for number, record in enumerate(_records(path)):
        wrong = _Wrong(path, number, "SpatialRGPT-Bench")
        info, said, boxes = (record.get(key) for key in ("qa_info", "conversations", "bbox"))
        if not isinstance(info, dict) or not isinstance(said, list) or len(said) < 2 or not isinstance(boxes, list):
            raise wrong.error("needs qa_info, conversations with a question and an answer, and bbox")
        question = str(record.get("text_q") or said[0].get("value", "")).replace(IMAGE_TOKEN, "").replace("<mask>", "")
        answer = str(said[1].get("value", ""))
        regions = tuple(f"region [{at}]" for at in range(len(boxes)))
        distance_m = metres_of(answer) if info.get("type") == "quantitative" else None
        kind, known = _srgpt_answer(answer, distance_m, regions)
        place = record.get("image_info", {})
        picture = _picture(record, "image", root / str(place.get("file_path", "")), wrong)
        questions.append(
            EvaluationQuestion(
                str(record.get("id", number)),
                f"{' '.join(question.split())} The boxes are numbered from [0] in the order red, blue, green, orange.",
                known,
                kind,
                picture,
                options=regions if kind is AnswerKind.WORD else (),
                distance_m=distance_m,
                task=str(info.get("category", info.get("type", ""))),
                boxes=tuple(wrong.box(box) for box in boxes),
            )
        )
    return questions


def _srgpt_answer(answer: str, distance_m: float | None, regions: tuple[str, ...]) -> tuple[AnswerKind, str]:
    """How an answer is compared: a distance, yes or no, the region named, or in words where none of these applies."""
    if distance_m is not None:
        return AnswerKind.DISTANCE, answer
    polarity = polarity_of(answer)
    if polarity is not None:
        return AnswerKind.YES_NO, "yes" if polarity else "no"
    named = word_of(answer, regions)
    return (AnswerKind.TEXT, answer) if named is None else (AnswerKind.WORD, named)


@dataclass(frozen=True)
class _Wrong:
    """Checks of one record, whose errors name it."""

    path: Path
    number: int
    benchmark: str

    def error(self, reason: str) -> DatasetError:
        return DatasetError(f"{self.path}: record {self.number} is not of {self.benchmark}: it {reason}")

    def text(self, record: dict[str, Any], key: str) -> str:
        value = record.get(key)
        if not isinstance(value, str) or not value:
            there = ", ".join(map(str, record)) or "no key"
            raise self.error(f"has no {key!r} (it has {there})")
        return value

    def options(self, choices: Any, answer: str) -> tuple[str, ...]:
        options = tuple(str(one) for one in choices) if isinstance(choices, list | tuple) else ()
        letter = answer.strip(" ()")
        if not options or len(letter) != 1 or not 0 <= ord(letter) - ord("A") < len(options):
            raise self.error(
                f"has choices {choices!r} and the answer {answer!r}; expected a list, and one of its letters"
            )
        return options

    def box(self, box: Any) -> tuple[float, float, float, float]:
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise self.error(f"has the box {box!r}; expected [left, top, right, bottom]")
        left, top, right, bottom = (float(value) for value in box)
        return left, top, right, bottom


def _records(path: Path) -> list[dict[str, Any]]:
    if path.suffix != ".parquet":
        return read_records(path)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError.for_extra("pyarrow", "bulk", "reading .parquet files") from error
    try:
        found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{path} is not a readable Parquet file: {error}") from error
    return found


def _picture(record: dict[str, Any], key: str, file: Path, wrong: _Wrong) -> Path | bytes:
    """Picture inside of a record, as Hugging Face's data sets store it, or beside it."""
    stored = record.get(key)
    if isinstance(stored, dict):
        content = stored.get("bytes")
        if isinstance(content, bytes) and content:
            return content
        if not stored.get("path"):
            raise wrong.error(f"has neither bytes nor a path in {key!r}")
        return file.parent / str(stored["path"])
    return file


def _decoded(content: bytes, name: str) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, ValueError) as error:
        raise ImageError(f"the picture stored with question {name} cannot be decoded: {error}") from error


def _with_boxes(rgb: NDArray[np.uint8], boxes: Sequence[tuple[float, float, float, float]]) -> NDArray[np.uint8]:
    """Copy of a picture with numbered boxes, as set-of-mark prompts have them (Yang et al., 2023)."""
    import numpy as np
    from PIL import Image, ImageDraw

    picture = Image.fromarray(rgb)
    draw, line = ImageDraw.Draw(picture), max(2, max(rgb.shape[:2]) // 250)
    for number, box in enumerate(boxes):
        colour = _BOX_COLOURS[number % len(_BOX_COLOURS)]
        left, right = sorted((box[0], box[2]))
        top, bottom = sorted((box[1], box[3]))
        draw.rectangle((left, top, right, bottom), outline=colour, width=line)
        draw.text((left + 2 * line, top + 2 * line), f"[{number}]", fill=colour)
    return np.asarray(picture)
