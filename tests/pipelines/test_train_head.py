"""The depth embedder of a vision-language model, trained alone, and answers about pictures with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

from PIL import Image  # noqa: E402

from mvde.datasets.folder import FolderDataset  # noqa: E402
from mvde.errors import CheckpointError, DatasetError, ImageError, UsageError  # noqa: E402
from mvde.pipelines.infer import infer_images  # noqa: E402
from mvde.pipelines.train_head import load_head, train_head  # noqa: E402
from mvde.vlm.choices import QuestionKind, Rounding  # noqa: E402
from mvde.vlm.questions_files import QuestionSettings, write_questions  # noqa: E402
from mvde.vlm.questions_sampling import SamplingSettings  # noqa: E402
from mvde.vlm.tiny import tiny_model, tiny_processor  # noqa: E402


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of blocks with depth in millimetres, as a plain folder."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for kind in ("rgb", "depth"):
        (folder / kind).mkdir()
    for number in range(4):
        depth_mm = rng.integers(500, 5000, (4, 4)).repeat(8, 0).repeat(8, 1).astype(np.uint16)
        Image.fromarray(depth_mm).save(folder / f"depth/{number}.png")
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"rgb/{number}.png")
    return folder


@pytest.fixture(scope="module")
def trained(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model whose embedder was trained for five steps."""
    folder = tmp_path_factory.mktemp("head")
    tiny_model().save_pretrained(folder / "base")
    tiny_processor().save_pretrained(folder / "base")
    kinds, sampling = (QuestionKind.RELATIVE,), SamplingSettings(cells=4, least_ratio=1.05)
    write_questions(FolderDataset(frames), folder / "qa.json", QuestionSettings(kinds, Rounding.PREFERRED, sampling))
    result = train_head(folder / "base", folder / "qa.json", folder / "out", hidden_width=8, steps=5, batch_size=2)
    assert (result.step, result.interrupted) == (5, False)
    return folder


def test_only_the_head_has_learned(trained: Path) -> None:
    model, _ = load_head(trained / "out")
    weights = dict(model.named_parameters())
    assert all(not value.any() for name, value in weights.items() if "lora_B" in name)
    assert any(value.any() for name, value in weights.items() if "depth_embedder.modules_to_save" in name)


def test_every_picture_is_answered_with_its_own_depth(trained: Path, frames: Path) -> None:
    photos = sorted((frames / "rgb").iterdir())
    answers = infer_images(
        trained / "out", photos, "Which box is nearer to the camera, red or blue?", frames / "depth", 3
    )
    assert len(answers) == 4
    assert answers[0] == infer_images(
        trained / "out", photos[:1], "Which box is nearer to the camera, red or blue?", frames / "depth"
    )[0]  # fmt: skip


def test_faults_are_named(trained: Path, frames: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none.json cannot be read"):
        train_head(trained / "base", tmp_path / "none.json", tmp_path / "out")
    with pytest.raises(UsageError, match="embedder_steps are both 0"):
        train_head(trained / "base", trained / "qa.json", tmp_path / "out", steps=0)
    with pytest.raises(CheckpointError, match="no depth"):
        load_head(trained / "base")
    with pytest.raises(ImageError, match=r"gone.png"):
        infer_images(trained / "out", [tmp_path / "gone.png"], "?", frames / "depth")
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        infer_images(trained / "out", [], "?", frames / "depth", 0)
