"""Evaluation of a vision-language model with depth: three conditions side by side, and answers without a judge.

A model that answers well has not shown yet that it uses depth: it may answer from the picture. Every evaluation
therefore gives the same questions with depth, with depth removed, and with the depth of another picture, and counts
questions apart in which height in the picture suggests the right answer (consistent) and the wrong one (counter).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mvde.errors import UsageError
from mvde.vlm.evaluation_answers import letter_of, metres_of, polarity_of, word_of
from mvde.vlm.evaluation_assistant import Condition
from mvde.vlm.evaluation_formats import AnswerKind, EvaluationQuestion
from mvde.vlm.training_data import camera_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUCCESS = 0.25
"""A distance is right within 25 % of the truth, as SpatialRGPT counts (Cheng et al., 2024)."""

OVERALL = "overall"
_CVBENCH_SOURCES = (("ADE20K", "COCO"), ("Omni3D",))


class Answers(Protocol):
    """What answers: :class:`mvde.vlm.evaluation_assistant.Assistant`."""

    processor: Any

    def answer(
        self,
        images: Sequence[Any],
        questions: Sequence[str],
        depths: Sequence[Any] | None = None,
        cameras: Sequence[Any] | None = None,
    ) -> list[str]:
        """Answer one question about each picture."""
        ...


@dataclass(frozen=True)
class Outcome:
    """One answer: whether it is right, and for distances its error relative to the truth, ``None`` if not read."""

    question: EvaluationQuestion
    given: str
    is_right: bool
    is_read: bool
    relative_error: float | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON types."""
        one = self.question
        return {"id": one.name, "task": one.task, "cue": one.cue, "question": one.text, "answer": one.answer,
                "given": self.given, "right": self.is_right, "relative_error": self.relative_error}  # fmt: skip


@dataclass
class Score:
    """Counts of one task under one condition."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Share of right answers; of distances, within 25 % of the truth. What cannot be read is wrong."""
        return _share(self.outcomes)

    def accuracy_of(self, cue: str) -> float | None:
        """Accuracy of the questions with a cue, ``None`` without any."""
        found = [one for one in self.outcomes if one.question.cue == cue]
        return _share(found) if found else None

    @property
    def abs_rel(self) -> float | None:
        """Mean relative error of the distances that could be read, ``None`` without any."""
        errors = [one.relative_error for one in self.outcomes if one.relative_error is not None]
        return float(np.mean(errors)) if errors else None

    @property
    def num_unread(self) -> int:
        """Number of answers that name no option, colour or distance."""
        return sum(not one.is_read for one in self.outcomes)

    def to_dict(self) -> dict[str, object]:
        """JSON types."""
        return {
            "count": len(self.outcomes),
            "accuracy": self.accuracy,
            "consistent": self.accuracy_of("consistent"),
            "counter": self.accuracy_of("counter"),
            "abs_rel": self.abs_rel,
            "unread": self.num_unread,
        }


@dataclass
class Evaluation:
    """Scores by condition and task; every condition has the task ``overall``."""

    scores: dict[Condition, dict[str, Score]]

    def cvbench(self, condition: Condition) -> float | None:
        """CV-Bench's own accuracy: the mean of 2D (mean of ADE20K and COCO) and 3D; ``None`` unless all are there."""
        outcomes = self.scores[condition][OVERALL].outcomes
        parts = []
        for sources in _CVBENCH_SOURCES:
            by_source = [[one for one in outcomes if one.question.source == source] for source in sources]
            if not all(by_source):
                return None
            parts.append(float(np.mean([_share(found) for found in by_source])))
        return float(np.mean(parts))

    def to_dict(self) -> dict[str, object]:
        """JSON types: per condition, the score of each task."""
        return {
            str(condition): {task: score.to_dict() for task, score in tasks.items()}
            | ({} if self.cvbench(condition) is None else {"cvbench": self.cvbench(condition)})
            for condition, tasks in self.scores.items()
        }


def evaluate(
    assistant: Answers,
    questions: Sequence[EvaluationQuestion],
    batch_size: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Ask every question under every condition.

    ``seed`` chooses whose depth a picture gets where it is another's. ``progress`` receives the answers so far and
    their number. Raises UsageError without questions, ImageError or DatasetError for an unreadable picture or depth.
    """
    if not questions or batch_size < 1:
        raise UsageError(f"there are {len(questions)} questions and batches of {batch_size}; expected at least 1")
    partners = other_pictures(questions, seed)
    scores: dict[Condition, dict[str, Score]] = {}
    for number, condition in enumerate(Condition):
        tasks: dict[str, Score] = {OVERALL: Score()}
        for outcome in _outcomes(assistant, questions, partners, condition, batch_size):
            for task in {OVERALL, outcome.question.task or OVERALL}:
                tasks.setdefault(task, Score()).outcomes.append(outcome)
            done = number * len(questions) + len(tasks[OVERALL].outcomes)
            progress(done, len(Condition) * len(questions))
        scores[condition] = tasks
    return Evaluation(scores)


def other_pictures(questions: Sequence[EvaluationQuestion], seed: int) -> list[EvaluationQuestion]:
    """Return for every question one whose scene is another: whose depth stands in for its own.

    Questions with the same depth file, or the same picture, are of one scene. A single scene stands for itself.
    """
    scenes = list(dict.fromkeys(_scene(one) for one in questions))
    order = np.random.default_rng(seed).permutation(len(scenes))
    # A cycle through all scenes in random order: nobody keeps its own.
    following = {scenes[order[at]]: scenes[order[(at + 1) % len(scenes)]] for at in range(len(scenes))}
    first: dict[Any, EvaluationQuestion] = {}
    for one in questions:
        first.setdefault(_scene(one), one)
    return [first[following[_scene(one)]] for one in questions]


def judge(question: EvaluationQuestion, given: str) -> Outcome:
    """Compare an answer with the truth."""
    match question.kind:
        case AnswerKind.OPTION:
            letter = letter_of(given, question.options)
            return Outcome(question, given, letter == question.answer, letter is not None)
        case AnswerKind.WORD:
            word = word_of(given, question.options)
            return Outcome(question, given, word == question.answer, word is not None)
        case AnswerKind.YES_NO:
            polarity = polarity_of(given)
            return Outcome(question, given, polarity is (question.answer == "yes"), polarity is not None)
        case AnswerKind.DISTANCE:
            metres, truth = metres_of(given), question.distance_m
            if metres is None or truth is None:
                return Outcome(question, given, False, False)
            error = abs(metres - truth) / truth
            return Outcome(question, given, error <= SUCCESS, True, error)
        case AnswerKind.TEXT:
            return Outcome(question, given, _plain(given) == _plain(question.answer), bool(given))


def resized_nearest(depth: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Depth map (H, W) of another size, by the nearest pixel: distances are not blended."""
    rows, columns = (
        np.minimum(((np.arange(wanted) + 0.5) * have / wanted).astype(np.intp), have - 1)
        for wanted, have in zip(size, depth.shape, strict=True)
    )
    return depth[np.ix_(rows, columns)]


def _outcomes(
    assistant: Answers,
    questions: Sequence[EvaluationQuestion],
    partners: Sequence[EvaluationQuestion],
    condition: Condition,
    batch_size: int,
) -> Iterator[Outcome]:
    for start in range(0, len(questions), batch_size):
        asked = questions[start : start + batch_size]
        images = [one.image() for one in asked]
        depths, cameras = None, [camera_of(one) for one in asked]
        if condition is Condition.DEPTH:
            depths = [_depth(assistant, one, image) for one, image in zip(asked, images, strict=True)]
        elif condition is Condition.SHUFFLED:
            others = partners[start : start + batch_size]
            depths = [_others_depth(assistant, *pair) for pair in zip(others, images, strict=True)]
        given = assistant.answer(images, [one.text for one in asked], depths, cameras)
        yield from (judge(*pair) for pair in zip(asked, given, strict=True))


def _depth(assistant: Answers, question: EvaluationQuestion, image: NDArray[np.uint8]) -> Any:
    """Depth of a question's picture: its file, or what the processor's source says; ``None`` if neither has any."""
    from mvde.vlm.sources import GivenDepth, Picture

    if question.depth is not None:
        return question.depth
    source = assistant.processor.source
    if isinstance(source, GivenDepth):
        return None
    camera = camera_of(question)
    path = question.picture if not isinstance(question.picture, bytes) else None
    found = source.depth_of(Picture(image, path), None if camera is None else camera(image.shape[:2]))
    return None if found is None else found.depth


def _others_depth(
    assistant: Answers, other: EvaluationQuestion, image: NDArray[np.uint8]
) -> NDArray[np.float32] | None:
    """Depth of another question's picture, at the size of this one."""
    from mvde.datasets.decode import read_depth

    depth = _depth(assistant, other, other.image())
    if depth is None:
        return None
    values = depth if isinstance(depth, np.ndarray) else read_depth(depth, None)
    return resized_nearest(values, (image.shape[0], image.shape[1]))


def _scene(question: EvaluationQuestion) -> Any:
    return question.depth or question.picture


def _share(outcomes: Sequence[Outcome]) -> float:
    return sum(one.is_right for one in outcomes) / max(len(outcomes), 1)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
