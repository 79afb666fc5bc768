"""Training on conversations: what learns when, labels, resuming, examples without depth, and files of other models."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

from mvde.datasets.sample import DepthSample  # noqa: E402
from mvde.errors import CheckpointError, DatasetError, TrainingError, UsageError  # noqa: E402
from mvde.vlm.attach import embedder_of  # noqa: E402
from mvde.vlm.choices import Rounding  # noqa: E402
from mvde.vlm.collator import DepthCollator  # noqa: E402
from mvde.vlm.conversations import Turn, read_conversations, write_conversations  # noqa: E402
from mvde.vlm.conversations_prompts import IGNORED, ChatFormat, prompt_format  # noqa: E402
from mvde.vlm.evaluation_assistant import Assistant  # noqa: E402
from mvde.vlm.questions_files import QuestionSettings, write_questions  # noqa: E402
from mvde.vlm.questions_sampling import SamplingSettings  # noqa: E402
from mvde.vlm.tiny import SIZE, TinyWords, tiny_model, tiny_processor  # noqa: E402
from mvde.vlm.training import Draw, TrainingSettings, _Parts, _Share  # noqa: E402
from mvde.vlm.training_data import ConversationExamples  # noqa: E402
from mvde.vlm.training_setup import DepthModelSettings, load_for_answers, load_for_training, train  # noqa: E402
from mvde.vlm.training_state import STATE_FILE  # noqa: E402


class Blocks:
    """Frames of 4x4 blocks at random distances."""

    depth_range_m = (0.1, 10.0)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> DepthSample:
        rng = np.random.default_rng(index)
        depth = rng.uniform(0.5, 5, (4, 4)).repeat(SIZE // 4, 0).repeat(SIZE // 4, 1).astype(np.float32)
        return DepthSample(rng.integers(60, 200, (SIZE, SIZE, 3), dtype=np.uint8), depth, None, f"frame {index}")


@pytest.fixture(autouse=True)
def _single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "qa.json"
    sampling = SamplingSettings(cells=4, pairs_per_frame=4)
    write_questions(Blocks(), path, QuestionSettings(rounding=Rounding.PREFERRED, sampling=sampling))
    return path


SETTINGS = TrainingSettings(embedder_steps=3, steps=5, batch_size=4, lr=3e-3, warmup_steps=2, log_every=1, save_every=4)
SMALL = DepthModelSettings(hidden=16, lora_rank=2)


def trained(
    tiny: Path, questions: Path, out: Path, settings: TrainingSettings = SETTINGS, report: Any = None
) -> tuple[Any, list[dict[str, float]], Any]:
    """Model after a training in ``out``, what it logged, and the result."""
    torch.manual_seed(0)
    model, processor = load_for_training(str(tiny), None, SMALL)
    logged: list[dict[str, float]] = []

    def note(step: int, num_steps: int, values: dict[str, float]) -> None:
        logged.append(values)
        if report is not None:
            report(step)

    result = train(model, processor, read_conversations(questions), out, settings, note)
    return model, logged, result


def weights(model: Any) -> dict[str, Any]:
    return {
        name: value.detach().clone() for name, value in model.named_parameters() if "lora_" in name or "depth_" in name
    }


def test_the_embedder_learns_first_and_the_adapter_after_it(tiny: Path, questions: Path, tmp_path: Path) -> None:
    model, _ = load_for_training(str(tiny), None, SMALL)
    base = {name: value.clone() for name, value in model.named_parameters() if "lora_" not in name}
    alone, _, _ = trained(tiny, questions, tmp_path / "alone", replace(SETTINGS, embedder_steps=3, steps=0))
    both, _, _ = trained(tiny, questions, tmp_path / "both")
    b_of = {name: value for name, value in weights(alone).items() if "lora_B" in name}
    assert b_of
    assert all(not value.any() for value in b_of.values())
    last = [name for name in weights(alone) if "modules_to_save" in name and name.endswith("layers.2.weight")]
    assert weights(alone)[last[0]].any()
    assert all(value.any() for name, value in weights(both).items() if "lora_B" in name)
    untouched = {name for name in base if "depth_embedder" not in name}
    assert all(torch.equal(dict(both.named_parameters())[name], base[name]) for name in untouched)


@pytest.mark.slow
def test_a_training_makes_the_answers_of_its_examples_more_probable(
    tiny: Path, questions: Path, tmp_path: Path
) -> None:
    _, logged, result = trained(tiny, questions, tmp_path, replace(SETTINGS, steps=40, lr=1e-2))
    assert [result.step, result.interrupted] == [43, False]
    assert np.mean([one["loss"] for one in logged[-5:]]) < 0.9 * logged[0]["loss"]
    assert list((tmp_path / "logs").glob("events.*"))


def test_an_interrupted_training_goes_on_as_if_it_never_was(tiny: Path, questions: Path, tmp_path: Path) -> None:
    whole, losses, _ = trained(tiny, questions, tmp_path / "whole")

    def interrupt(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    _, first, stopped = trained(tiny, questions, tmp_path / "parts", report=interrupt)
    assert (stopped.interrupted, stopped.step) == (True, 5)
    assert not (tmp_path / "parts/adapter_model.safetensors").exists()
    rest, last, result = trained(tiny, questions, tmp_path / "parts")
    assert not result.interrupted
    assert [one["loss"] for one in losses] == [one["loss"] for one in first + last]
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(rest).items())


def test_what_is_written_answers_as_the_trained_model(tiny: Path, questions: Path, tmp_path: Path) -> None:
    model, _, _ = trained(tiny, questions, tmp_path)
    loaded, processor = load_for_answers(str(tmp_path))
    conversations = read_conversations(questions)[:3]
    batch = DepthCollator(0)([ConversationExamples(conversations, processor, list)[Draw(n, True)] for n in range(3)])
    with torch.no_grad():
        expected = model.eval()(**batch).logits
        assert torch.equal(loaded.eval()(**batch).logits, expected)
    answers = Assistant(loaded, processor, 3).answer(
        [one.image for one in conversations],
        [one.turns[0].question for one in conversations],
        [one.depth for one in conversations],
    )
    assert len(answers) == 3


@pytest.mark.slow
def test_answers_of_a_batch_are_those_of_each_alone(tiny: Path, questions: Path, tmp_path: Path) -> None:
    """Questions of several lengths are padded on the left."""
    trained(tiny, questions, tmp_path, replace(SETTINGS, steps=10, lr=1e-2))
    assistant = Assistant(*load_for_answers(str(tmp_path)), 3)
    conversations = read_conversations(questions)[:6]
    given = [([one.image], [one.turns[0].question], [one.depth]) for one in conversations]
    alone = [assistant.answer(*one)[0] for one in given]
    together = assistant.answer(*[[part[0] for part in column] for column in zip(*given, strict=True)])
    assert together == alone
    assert len({len(one.turns[0].question) for one in conversations}) > 1


def test_only_answers_are_labelled(tiny: Path, questions: Path) -> None:
    processor = tiny_processor()
    turns = (Turn("Where is the red box?", "place3"), Turn("Where is the blue box?", "place7"))
    output = ChatFormat(processor).encode(processor, turns, images=[np.zeros((8, 8, 3), np.uint8)], return_tensors="pt")
    labelled = output["labels"][output["labels"] != IGNORED]
    assert processor.tokenizer.decode(labelled) == "place3 </s> place7 </s>"
    assert int((output["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<image>")).sum()) == 16
    told = TinyWords().encode([[("Where is the red box?", "place3")]])
    single = ChatFormat(processor).encode(
        processor, turns[:1], images=[np.zeros((8, 8, 3), np.uint8)], return_tensors="pt"
    )
    assert {name: value.tolist() for name, value in told.items()} == {name: single[name].tolist() for name in told}


def test_a_model_without_a_chat_template_is_refused() -> None:
    processor = tiny_processor()
    processor.chat_template = None
    with pytest.raises(UsageError, match=r"no chat template.*chat_template.jinja"):
        prompt_format(processor)


def test_draws_depend_on_the_step_alone_and_drop_a_share_of_the_depth() -> None:
    settings = TrainingSettings(embedder_steps=0, steps=50, batch_size=8, accumulate=2, drop_depth=0.25)
    whole = list(_Parts(30, settings, 0, _Share(0, 1)))
    assert list(_Parts(30, settings, 20, _Share(0, 1))) == whole[40:]
    assert [len(part) for part in whole] == [4] * 100
    draws = [draw for part in whole for draw in part]
    assert sorted(draw.index for draw in draws[:30]) == list(range(30))
    assert 0.15 < np.mean([not draw.has_depth for draw in draws]) < 0.35
    shares = [list(_Parts(30, replace(settings, batch_size=4, accumulate=1), 0, _Share(rank, 2))) for rank in (0, 1)]
    both = [[draw.index for part in parts for draw in part] for parts in zip(*shares, strict=True)]
    assert both == [[draw.index for part in whole[2 * at : 2 * at + 2] for draw in part] for at in range(50)]


def test_a_dropped_example_has_rows_of_zero_and_the_same_picture(tiny: Path, questions: Path) -> None:
    _, processor = load_for_training(str(tiny), None, SMALL)
    examples = ConversationExamples(read_conversations(questions), processor, DepthCollator(0))
    shown, dropped = examples[Draw(0, True)], examples[Draw(0, False)]
    assert shown["depth_stats"].any()
    assert not dropped["depth_stats"].any()
    assert torch.equal(shown["pixel_values"], dropped["pixel_values"])


def test_statistics_are_those_of_the_file_on_the_patches_of_the_tower(tiny: Path, questions: Path) -> None:
    _, processor = load_for_training(str(tiny), None, SMALL)
    conversations = read_conversations(questions)
    examples = ConversationExamples(conversations, processor, DepthCollator(0))
    blocks = Blocks()[conversations[0].facts["frame"]].depth_m
    expected = torch.from_numpy(blocks[:: SIZE // 4, :: SIZE // 4].reshape(-1).copy())
    torch.testing.assert_close(examples[Draw(0, True)]["depth_stats"][0, :, 0], expected, atol=6e-4, rtol=0)


@pytest.mark.slow
def test_parts_of_a_step_weigh_every_answer_token_alike(tiny: Path, questions: Path, tmp_path: Path) -> None:
    """Accumulated in two parts, with answers of unequal lengths, as at once."""
    settings = replace(SETTINGS, embedder_steps=0, steps=1, batch_size=8, warmup_steps=0)
    _, once, _ = trained(tiny, questions, tmp_path / "once", settings)
    _, twice, _ = trained(tiny, questions, tmp_path / "twice", replace(settings, accumulate=2))
    assert twice[0]["loss"] == pytest.approx(once[0]["loss"], rel=1e-5)


@pytest.mark.slow
def test_files_without_depth_train_and_answer(tiny: Path, questions: Path, tmp_path: Path) -> None:
    conversations = read_conversations(questions)
    mixed = [replace(one, depth=None) if number % 2 else one for number, one in enumerate(conversations)]
    path = questions.with_name("mixed.json")
    write_conversations(path, mixed)
    _, logged, _ = trained(tiny, path, tmp_path)
    assert all(np.isfinite(one["loss"]) for one in logged)
    assistant = Assistant(*load_for_answers(str(tmp_path)), 2)
    asked = [mixed[1].image], [mixed[1].turns[0].question]
    assert assistant.answer(*asked, [None]) == assistant.answer(*asked)


@pytest.mark.slow
def test_a_set_without_any_depth_trains_too(tiny: Path, questions: Path, tmp_path: Path) -> None:
    bare = questions.with_name("bare.json")
    write_conversations(bare, [replace(one, depth=None) for one in read_conversations(questions)])
    model, logged, _ = trained(tiny, bare, tmp_path)
    assert len(logged) == SETTINGS.embedder_steps + SETTINGS.steps
    assert torch.equal(embedder_of(model).mean, torch.zeros(3)), "there is nothing to take moments from"


@pytest.mark.slow
def test_a_diverging_training_stops_and_keeps_its_state(tiny: Path, questions: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=1, lr=1e30, warmup_steps=0, clip_norm=1e30)
    with pytest.raises(TrainingError, match=r"training diverged at step \d: the loss is"):
        trained(tiny, questions, tmp_path, settings)
    assert (tmp_path / STATE_FILE).exists()
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_the_state_of_another_model_or_a_damaged_one_is_refused(tiny: Path, questions: Path, tmp_path: Path) -> None:
    trained(tiny, questions, tmp_path)
    model, processor = load_for_training(str(tiny), None, replace(SMALL, lora_rank=3))
    with pytest.raises(CheckpointError, match=r"another model or adapter: \d+ of its parameters differ"):
        train(model, processor, read_conversations(questions), tmp_path, SETTINGS, lambda *args: None)
    (tmp_path / STATE_FILE).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is not the state of a training"):
        trained(tiny, questions, tmp_path)


def test_depth_of_another_size_than_its_picture_is_named(tiny: Path, questions: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", np.ones((4, 4), np.float32))
    wrong = [replace(one, depth=tmp_path / "small.npy") for one in read_conversations(questions)]
    _, processor = load_for_training(str(tiny), None, SMALL)
    examples = ConversationExamples(wrong, processor, DepthCollator(0))
    with pytest.raises(DatasetError, match=rf"conversation {wrong[0].name}: .*small.npy is \(4, 4\)"):
        examples[Draw(0, True)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0, "embedder_steps": 0}, "nothing to train"),
        ({"steps": -1}, "steps must be at least 0, but got -1"),
        ({"batch_size": 6, "accumulate": 4}, "no multiple of accumulate"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"drop_depth": 1.0}, "from 0 to below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingSettings(**changes)


def test_folders_without_a_vision_language_model_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no processor of transformers"):
        load_for_training(str(tmp_path))
    tiny_processor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is no model of transformers"):
        load_for_training(str(tmp_path))
    with pytest.raises(CheckpointError, match="no 'mvde_depth', so the model has no depth"):
        load_for_answers(str(tiny))
