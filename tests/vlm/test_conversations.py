"""Conversations in LLaVA's JSON: what is written is read, and files of another layout are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde.datasets.decode import read_depth_png
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError, OutputError, UsageError
from mvde.vlm.choices import QuestionKind
from mvde.vlm.conversations import Conversation, Turn, read_conversations
from mvde.vlm.questions_files import QuestionSettings, write_questions
from mvde.vlm.questions_sampling import SamplingSettings


class Steps:
    """Frames with blocks at several distances; ``far`` makes some farther than 16 bits of millimetres reach."""

    depth_range_m = (0.1, 200.0)

    def __init__(self, count: int = 4, far: float = 1.0) -> None:
        self.count, self.far = count, far

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DepthSample:
        rng = np.random.default_rng(index)
        depth = rng.uniform(1, 5, (4, 6)).repeat(8, 0).repeat(8, 1).astype(np.float32) * np.float32(self.far)
        depth[0, 0] = np.nan
        rgb = rng.integers(60, 200, (32, 48, 3), dtype=np.uint8)
        return DepthSample(rgb, depth, np.array([40, 41, 23.5, 15.5], np.float32), f"frame {index}")


SETTINGS = QuestionSettings(sampling=SamplingSettings(cells=4, pairs_per_frame=4))


def test_questions_are_read_as_they_were_written(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = write_questions(Steps(), tmp_path / "qa.json", SETTINGS, lambda done, total: seen.append((done, total)))
    found = read_conversations(tmp_path / "qa.json")
    assert len(found) == report.num_questions == 3 * report.num_pictures
    assert seen[-1] == (report.num_pictures, report.num_pictures)
    assert {one.facts["kind"] for one in found} == {str(kind) for kind in QuestionKind}
    for one in found:
        assert one.camera == (40, 41, 23.5, 15.5)
        frame = Steps()[one.facts["frame"]]
        assert one.depth is not None
        stored = read_depth_png(one.depth, 1000)
        np.testing.assert_allclose(stored, np.nan_to_num(frame.depth_m), atol=5.1e-4)
        (turn,) = one.turns
        if one.facts["kind"] == "relative":
            assert turn.answer == min(one.facts["distances_m"], key=one.facts["distances_m"].get)


def test_boxes_are_outlined_and_their_middle_and_the_rest_stay_as_they_were(tmp_path: Path) -> None:
    write_questions(Steps(), tmp_path / "qa.json", SETTINGS)
    for one in read_conversations(tmp_path / "qa.json"):
        picture = np.asarray(Image.open(one.image))
        changed = (picture != Steps()[one.facts["frame"]].rgb).any(axis=-1)
        expected = np.zeros_like(changed)
        for colour, (left, top, right, bottom) in one.facts["boxes"].items():
            expected[top:bottom, left:right] = True
            expected[top + 1 : bottom - 1, left + 1 : right - 1] = False
            assert (picture[top, left:right] == {"red": (255, 0, 0), "blue": (0, 0, 255)}[colour]).all()
        assert not (changed & ~expected).any()


def test_depth_beyond_16_bits_of_millimetres_is_kept_in_metres(tmp_path: Path) -> None:
    write_questions(Steps(far=30.0), tmp_path / "qa.json", SETTINGS)
    for one in read_conversations(tmp_path / "qa.json"):
        assert one.depth is not None
        assert one.depth.suffix == ".npy"
        np.testing.assert_array_equal(np.load(one.depth), Steps(far=30.0)[one.facts["frame"]].depth_m)


def test_nothing_is_written_where_there_is_nothing_to_ask_or_no_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name it qa.json"):
        write_questions(Steps(), tmp_path / "qa", SETTINGS)
    with pytest.raises(UsageError, match="no kind of question"):
        write_questions(Steps(), tmp_path / "qa.json", QuestionSettings(kinds=()))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="no questions were written"):
        write_questions(Steps(), tmp_path / "file/qa.json", SETTINGS)


def record(**changes: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "a cat"}]
    return {"id": 7, "image": "cat.png", "conversations": said} | changes


def written(folder: Path, *records: Any) -> Path:
    Image.new("RGB", (8, 6)).save(folder / "cat.png")
    path = folder / "qa.json"
    path.write_text(json.dumps(list(records)))
    return path


def test_records_of_other_programs_are_read_too(tmp_path: Path) -> None:
    several = [
        {"from": "human", "value": "What is this?\n<image>"},
        {"from": "gpt", "value": "a cat"},
        {"from": "human", "value": "Is it near?"},
        {"from": "gpt", "value": "yes"},
    ]
    path = written(tmp_path, record(conversations=several), {"id": 8, "conversations": several})
    (found,) = read_conversations(path)  # text alone is left out
    assert found == Conversation(
        "7", tmp_path / "cat.png", (Turn("What is this?", "a cat"), Turn("Is it near?", "yes"))
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "a cat"}]}, "has 0 <image>"),
        (
            {"conversations": [{"from": "human", "value": "<image>a<image>"}, {"from": "gpt", "value": "b"}]},
            "has 2 <image> tokens",
        ),
        ({"conversations": [{"from": "human", "value": "<image>"}]}, "is said by human; expected human and gpt"),
        ({"conversations": []}, "is said by nobody"),
        ({"conversations": "text"}, 'has no "conversations"'),
        ({"image": ["a.png", "b.png"]}, "has list as image; expected the path of one picture"),
        ({"depth": 3}, "has int as depth"),
        ({"mvde": []}, 'has list as "mvde"'),
        ({"camera": [1, 2]}, r"has the camera \[1, 2\]"),
    ],
)
def test_a_record_of_another_layout_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=r"qa.json: record 1 \(id 7\) ") as caught:
        read_conversations(written(tmp_path, record(), record(**changes)))
    caught.match(message)


def test_missing_pictures_and_depth_are_counted_and_named(tmp_path: Path) -> None:
    path = written(tmp_path, record(), *(record(image=f"{number}.png") for number in range(7)), record(image="0.png"))
    with pytest.raises(DatasetError, match=r"7 of the 8 pictures .*/0.png, .*4.png and 2 more; .*--image-folder"):
        read_conversations(path)
    with pytest.raises(DatasetError, match="1 of the 1 depth files"):
        read_conversations(written(tmp_path, record(depth="gone.png"), record()))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("{}", "holds dict, not a list"), ("[1]", "not a list of records"), ("[]", "an empty list")],
)
def test_a_file_of_another_layout_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "qa.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_conversations(tmp_path / "qa.json")
    with pytest.raises(DatasetError, match=r"none.json cannot be read: No such file"):
        read_conversations(tmp_path / "none.json")
    (tmp_path / "qa.json").write_text(json.dumps([{"id": 1, "text": "no picture"}]))
    with pytest.raises(DatasetError, match="1 records, none with an image"):
        read_conversations(tmp_path / "qa.json")
