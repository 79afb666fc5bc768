"""The tiny model's words, and what it is taught before it has depth."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mvde.vlm import tiny  # noqa: E402
from mvde.vlm.choices import Rounding  # noqa: E402
from mvde.vlm.questions import CHOICE_WORDS, METRIC_WORDS, RELATIVE_WORDS, distance_text  # noqa: E402


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RELATIVE_WORDS, ["Which box is nearer to the camera, red or blue?"]),
        (METRIC_WORDS.format(colour="blue"), ["How far is the", "blue", "box from the camera in metres?"]),
        ("31.5 m", ["31.5", "m"]),
        ("What is red?", ["<unk>", "<unk>", "<unk>"]),
    ],
)
def test_fixed_parts_of_questions_are_one_token(text: str, words: list[str]) -> None:
    tokenizer = tiny.tiny_tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == words


def test_a_choice_has_a_token_for_each_colour_in_its_order() -> None:
    tokenizer = tiny.tiny_tokenizer()
    tokens = tokenizer.tokenize(CHOICE_WORDS.format(first="blue", second="red"))
    assert [token for token in tokens if token in ("red", "blue")] == ["blue", "red"]
    assert len(tokens) == 5
    assert "<unk>" not in tokens


def test_answers_before_depth_hold_every_word_of_answers_about_depth() -> None:
    generator, answers = torch.Generator().manual_seed(0), set[str]()
    pictures = torch.zeros(400, 3, tiny.SIZE, tiny.SIZE)
    for _ in range(4):
        turns = tiny._looking(tiny.mark_patches(pictures, generator), generator)
        answers |= {answer for told in turns for _, answer in told}
    distances = {distance_text(value, Rounding.PREFERRED) for value in (0.125, 0.4, 1, 2.5, 6.3, 10, 40)}
    assert {"red", "blue", "(A)", "(B)", "m"} | distances <= {word for answer in answers for word in answer.split()}
