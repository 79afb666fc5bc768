"""Evaluation without a judge: reading answers, files of published benchmarks, conditions and scores."""

from __future__ import annotations

import collections
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde.errors import DatasetError, ImageError, UsageError
from mvde.vlm.choices import EvaluationFormat
from mvde.vlm.evaluation import OVERALL, evaluate, judge, other_pictures, resized_nearest
from mvde.vlm.evaluation_answers import letter_of, metres_of, polarity_of, word_of
from mvde.vlm.evaluation_assistant import Condition
from mvde.vlm.evaluation_formats import AnswerKind, EvaluationQuestion, read_questions
from mvde.vlm.sources import GivenDepth


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("1.60 m", 1.6),
        ("It is about 2 meters away.", 2.0),
        ("The distance is 35 centimetres", 0.35),
        ("The height of Region [0] is 12.5 feet.", 12.5 * 0.3048),
        ("5 feet 3 inches", 5 * 0.3048 + 3 * 0.0254),
        ("5 feet and 3 inches", 5 * 0.3048 + 3 * 0.0254),
        ("5'3\"", 5 * 0.3048 + 3 * 0.0254),
        ("1,250 mm", 1.25),
        ("2.5", 2.5),
        ("box 3 is 4 m away", 4.0),
        ("2.5m", 2.5),
        ("between 2 and 3 metres", 3.0),
        ("0 m", None),
        ("far away", None),
        ("", None),
    ],
)
def test_distances_are_read_in_metres(text: str, metres: float | None) -> None:
    assert metres_of(text) == pytest.approx(metres)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A)", "A"),
        ("B", "B"),
        ("b", None),
        ("A.", "A"),
        ("The answer is B", "B"),
        ("the desk", "B"),
        ("The bookcase is closer than it looks", "A"),
        ("either the bookcase or the desk", None),
        ("(A) or (B)", None),
        ("nothing", None),
    ],
)
def test_options_are_read_by_letter_or_by_their_words(text: str, letter: str | None) -> None:
    assert letter_of(text, ("bookcase", "desk")) == letter


def test_words_and_polarity_are_read_only_where_they_are_clear() -> None:
    assert word_of("The red one.", ("red", "blue")) == "red"
    assert word_of("red or blue", ("red", "blue")) is None
    assert word_of("covered", ("red", "blue")) is None
    assert polarity_of("Yes, it is.") is True
    assert polarity_of("No, Region [0] is not taller.") is False
    assert polarity_of("Indeed, it is") is True
    assert polarity_of("Region [1]") is None


def picture(folder: Path, name: str = "cat.png", size: tuple[int, int] = (40, 30)) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 90, 90)).save(path)
    return path


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (10, 20, 30)).save(stream, format="PNG")
    return stream.getvalue()


CVBENCH = {
    "idx": 1439, "type": "3D", "task": "Depth", "filename": "img/3D/depth/omni3d_sunrgbd/000.png",
    "question": "Which object is closer to the camera taking this photo?", "choices": ["bookcase", "desk"],
    "answer": "(B)", "prompt": "Which object is closer?\n(A) bookcase\n(B) desk", "source": "Omni3D",
}  # fmt: skip


def test_cvbench_is_read_from_its_annotations(tmp_path: Path) -> None:
    picture(tmp_path, "img/3D/depth/omni3d_sunrgbd/000.png")
    (tmp_path / "test_3d.jsonl").write_text(json.dumps(CVBENCH) + "\n")
    (found,) = read_questions(EvaluationFormat.CVBENCH, [tmp_path / "test_3d.jsonl"])
    within = CVBENCH | {"filename": "3D/depth/omni3d_sunrgbd/000.png"}
    (tmp_path / "within.jsonl").write_text(json.dumps(within))
    assert read_questions(EvaluationFormat.CVBENCH, [tmp_path / "within.jsonl"])[0].picture == found.picture
    assert (found.answer, found.options, found.task, found.source) == ("B", ("bookcase", "desk"), "3D Depth", "Omni3D")
    assert found.text.startswith("Which object is closer?\n(A) bookcase")
    assert found.image().shape == (30, 40, 3)


def test_cvbench_and_blink_are_read_from_parquet_with_pictures_inside(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    stored = {"bytes": png(), "path": None}
    parquet.write_table(pyarrow.Table.from_pylist([CVBENCH | {"image": stored}]), tmp_path / "test_3d.parquet")
    (found,) = read_questions(EvaluationFormat.CVBENCH, [tmp_path / "test_3d.parquet"])
    assert found.image()[0, 0].tolist() == [10, 20, 30]
    blink = {"idx": "val_Relative_Depth_1", "prompt": "Which point is closer?\n(A) A\n(B) B", "choices": ["A", "B"],
             "answer": "(A)", "sub_task": "Relative_Depth", "image_1": stored, "image_2": None}  # fmt: skip
    several = blink | {"idx": "val_Jigsaw_1", "image_2": stored}
    parquet.write_table(pyarrow.Table.from_pylist([blink, several]), tmp_path / "val.parquet")
    (one,) = read_questions(EvaluationFormat.BLINK, [tmp_path / "val.parquet"])  # the other is about two pictures
    assert (one.name, one.task, one.answer) == ("val_Relative_Depth_1", "Relative_Depth", "A")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="not a readable Parquet file"):
        read_questions(EvaluationFormat.BLINK, [tmp_path / "broken.parquet"])


def srgpt(category: str, kind: str, answer: str) -> dict[str, Any]:
    return {
        "id": category, "image_info": {"file_path": "cat.png", "height": 30, "width": 40},
        "text_q": "How far is Region [0] from Region [1]?", "qa_info": {"type": kind, "category": category},
        "conversations": [{"from": "human", "value": "How far is Region [0] <mask> from Region [1] <mask>?"},
                          {"from": "gpt", "value": answer}],
        "bbox": [[2, 3, 12, 13], [20, 5, 35, 25]],
    }  # fmt: skip


def test_spatialrgpt_bench_is_read_and_its_regions_are_drawn(tmp_path: Path) -> None:
    picture(tmp_path)
    records = [
        srgpt("direct_distance", "quantitative", "They are 3.5 feet apart."),
        srgpt("tall_predicate", "qualitative", "Indeed, Region [0] is taller."),
        srgpt("small_choice", "qualitative", "Region [1] is smaller."),
    ]
    (tmp_path / "bench.json").write_text(json.dumps(records))
    far, tall, small = read_questions(EvaluationFormat.SRGPT_BENCH, [tmp_path / "bench.json"])
    assert far.kind is AnswerKind.DISTANCE
    assert far.distance_m == pytest.approx(3.5 * 0.3048)
    assert far.text.startswith("How far is Region [0] from Region [1]? The boxes are numbered")
    assert (tall.kind, tall.answer) == (AnswerKind.YES_NO, "yes")
    assert (small.kind, small.answer) == (AnswerKind.WORD, "region [1]")
    assert far.image()[3, 2].tolist() == [255, 0, 0]
    assert far.image()[5, 35].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("cvbench", CVBENCH | {"prompt": ""}, r"record 0 is not of CV-Bench: it has no 'prompt' \(it has idx, type"),
        ("cvbench", CVBENCH | {"choices": None}, "has choices None and the answer '\\(B\\)'"),
        ("cvbench", CVBENCH | {"answer": "(C)"}, "expected a list, and one of its letters"),
        ("cvbench", CVBENCH, "1 of the 1 pictures"),
        ("blink", CVBENCH, "record 0 is not of BLINK: it has no 'idx'"),
        ("srgpt-bench", CVBENCH, "is not of SpatialRGPT-Bench: it needs qa_info"),
        ("llava", CVBENCH, "none with an image"),
    ],
)
def test_a_file_of_another_benchmark_is_refused(
    tmp_path: Path, name: str, record: dict[str, Any], message: str
) -> None:
    (tmp_path / "file.jsonl").write_text(json.dumps(record))
    with pytest.raises(DatasetError, match=message):
        read_questions(EvaluationFormat(name), [tmp_path / "file.jsonl"])


def test_a_picture_that_cannot_be_decoded_is_named() -> None:
    broken = EvaluationQuestion("7", "?", "red", AnswerKind.WORD, b"no picture", options=("red", "blue"))
    with pytest.raises(ImageError, match="stored with question 7 cannot be decoded"):
        broken.image()


class Processor:
    source = GivenDepth()


class Oracle:
    """Answers by the depth it is given: the box with the smaller value; "red" without depth."""

    processor = Processor()

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def answer(
        self,
        images: Sequence[Any],
        questions: Sequence[str],
        depths: Sequence[Any] | None = None,
        cameras: Sequence[Any] | None = None,
    ) -> list[str]:
        self.seen.append(depths)
        if depths is None:
            return ["red"] * len(images)
        maps = [np.load(one) if isinstance(one, Path) else one for one in depths]
        return ["red" if one is None or one[0, 0] < one[-1, -1] else "blue" for one in maps]


def two_boxes(folder: Path, count: int = 8) -> list[EvaluationQuestion]:
    """Scenes whose red box (top left) is nearer in every second one; the lower box (blue) is nearer in the others."""
    questions = []
    for number in range(count):
        depth = np.full((30 + number, 40), 2.0, np.float32)
        depth[0, 0], depth[-1, -1] = (1, 3) if number % 2 else (3, 1)
        np.save(folder / f"{number}.npy", depth)
        answer, cue = ("red", "counter") if number % 2 else ("blue", "consistent")
        path = picture(folder, f"{number}.png", (40, 30 + number))
        questions.append(
            EvaluationQuestion(
                str(number), "?", answer, AnswerKind.WORD, path, folder / f"{number}.npy", options=("red", "blue"),
                cue=cue, task="relative",
            )
        )  # fmt: skip
    return questions


def test_every_evaluation_has_the_three_conditions_and_both_cues(tmp_path: Path) -> None:
    oracle, questions = Oracle(), two_boxes(tmp_path)
    done: list[tuple[int, int]] = []
    scores = evaluate(oracle, questions, 3, progress=lambda *counts: done.append(counts)).scores
    assert list(scores) == list(Condition)
    assert done[-1] == (24, 24)
    with_depth, without = scores[Condition.DEPTH][OVERALL], scores[Condition.REMOVED][OVERALL]
    assert (with_depth.accuracy, with_depth.accuracy_of("consistent"), with_depth.accuracy_of("counter")) == (1, 1, 1)
    assert (without.accuracy, without.accuracy_of("consistent"), without.accuracy_of("counter")) == (0.5, 0, 1)
    expected = [judge(*pair).is_right for pair in zip(questions, shuffled_answers(questions), strict=True)]
    assert scores[Condition.SHUFFLED][OVERALL].accuracy == np.mean(expected)
    assert set(scores[Condition.DEPTH]) == {OVERALL, "relative"}


def shuffled_answers(questions: list[EvaluationQuestion]) -> list[str]:
    return [other.answer for other in other_pictures(questions, 0)]


def test_nobody_keeps_its_own_depth_and_questions_of_a_scene_share_another(tmp_path: Path) -> None:
    questions = two_boxes(tmp_path) + two_boxes(tmp_path)
    others = other_pictures(questions, 5)
    assert all(one.depth != other.depth for one, other in zip(questions, others, strict=True))
    assert [other.depth for other in others[:8]] == [other.depth for other in others[8:]]
    assert collections.Counter(other.depth for other in others[:8]) == {one.depth: 1 for one in questions[:8]}


def test_the_depth_of_another_picture_gets_the_size_of_this_one() -> None:
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert resized_nearest(depth, (6, 8))[::2, ::2].tolist() == depth.tolist()
    assert resized_nearest(depth, (1, 2)).tolist() == [[5.0, 7.0]]


def question(kind: AnswerKind, answer: str, **changes: Any) -> EvaluationQuestion:
    return EvaluationQuestion("1", "?", answer, kind, b"", **changes)


def test_a_distance_is_right_within_a_quarter() -> None:
    far = question(AnswerKind.DISTANCE, "2 m", distance_m=2.0)
    assert judge(far, "2.5 m").is_right
    assert not judge(far, "2.51 m").is_right
    assert judge(far, "3 m").relative_error == pytest.approx(0.5)
    unread = judge(far, "not far")
    assert (unread.is_right, unread.is_read, unread.relative_error) == (False, False, None)


def test_other_answers_are_compared_as_they_are_meant() -> None:
    assert judge(question(AnswerKind.OPTION, "B", options=("a cat", "a dog")), "(B) a dog").is_right
    assert judge(question(AnswerKind.YES_NO, "no"), "No.").is_right
    assert not judge(question(AnswerKind.YES_NO, "no"), "Perhaps").is_right
    assert judge(question(AnswerKind.TEXT, "A cat."), "a  cat").is_right


def test_cvbench_is_averaged_by_its_own_formula(tmp_path: Path) -> None:
    answers = {"ADE20K": "red", "COCO": "blue", "Omni3D": "blue"}
    questions = [
        EvaluationQuestion(
            source, "?", answer, AnswerKind.WORD, picture(tmp_path), options=("red", "blue"), source=source
        )
        for source, answer in answers.items()
    ]
    found = evaluate(Oracle(), questions)
    assert found.cvbench(Condition.REMOVED) == ((1.0 + 0.0) / 2 + 0.0) / 2  # "red" without depth
    assert evaluate(Oracle(), questions[:2]).cvbench(Condition.REMOVED) is None
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["depth removed"]["cvbench"] == 0.25
    assert plain["depth removed"]["overall"]["count"] == 3


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(UsageError, match="there are 0 questions"):
        evaluate(Oracle(), [])
