"""Sequences in the layout of 7-Scenes, written as its page describes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.datasets.formats import open_dataset
from mvde.datasets.seven_scenes import SevenScenesClips, SevenScenesDataset
from mvde.errors import DatasetError

NUMBERS = (0, 1, 2, 3, 90, 91)
QUARTER = np.array([[0.0, -1, 0, 0.5], [1, 0, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]])  # a quarter turn about the axis


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four frames, and two more after a gap of three seconds; the third one's pose was lost."""
    root = tmp_path / "kitchen" / "seq-01"
    root.mkdir(parents=True)
    for number in NUMBERS:
        stem = root / f"frame-{number:06d}"
        depth = np.full((48, 64), 1000 + number, np.uint16)
        depth[0, :2] = 0, 65535
        Image.fromarray(np.full((48, 64, 3), number, np.uint8)).save(f"{stem}.color.{'jpg' if number % 2 else 'png'}")
        Image.fromarray(depth).save(f"{stem}.depth.png")
        pose = QUARTER + np.eye(4, k=3) * number
        np.savetxt(f"{stem}.pose.txt", np.full((4, 4), np.nan) if number == 2 else pose, fmt="%.6e")
    return root


def test_frames_have_metres_and_the_intrinsics_of_the_data_set_s_page(root: Path) -> None:
    dataset = open_dataset("7scenes", root)
    assert isinstance(dataset, SevenScenesDataset)
    assert len(dataset) == 6
    assert dataset.scene(0) == "kitchen"
    sample = dataset[4]
    assert sample.name == "frame-000090.color.png"
    assert (sample.depth_m[0, :3] == np.float32([0, 0, 1.09])).all()
    assert sample.intrinsics is not None
    np.testing.assert_allclose(sample.intrinsics, [58.5, 58.5, 31.55, 23.55], rtol=1e-6)  # of 640x480, a tenth
    (root / "camera-intrinsics.txt").write_text("60 0 30\n0 61 20\n0 0 1")
    own = SevenScenesDataset(root)[0].intrinsics
    assert own is not None
    assert own.tolist() == [60, 61, 30, 20]


def test_a_sequence_gives_clips_and_ends_at_gaps_and_lost_poses(root: Path) -> None:
    dataset = SevenScenesClips(root)
    assert dataset.num_clips == 2
    first, second = dataset.clips()
    np.testing.assert_allclose(first.time_s, [0, 1 / 30])
    np.testing.assert_allclose(second.time_s, [3, 91 / 30])
    np.testing.assert_allclose(second.poses[1], (QUARTER + np.eye(4, k=3) * 91)[:3], atol=1e-5)
    assert first.depth_m[0, 0, :3].tolist() == [0, 0, 1]
    assert not first.is_cut.any()
    (root / "frame-000002.pose.txt").write_text((root / "frame-000001.pose.txt").read_text())
    assert [len(clip.rgb) for clip in SevenScenesClips(root, 3).clips()] == [3, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "frame-000001.pose.txt").write_text("1 2 3"), r"pose\.txt holds 3 numbers; expected 4x4"),
        (lambda root: (root / "frame-000001.pose.txt").write_text("x"), r"pose\.txt is not a matrix of numbers"),
        (lambda root: np.savetxt(root / "frame-000000.pose.txt", np.ones((4, 4))), "expected a rotation in the upper"),
        (lambda root: (root / "frame-000003.pose.txt").unlink(), r"frame-000003\.pose\.txt is missing"),
        (lambda root: (root / "frame-000000.depth.png").unlink(), r"frame-000000\.depth\.png is missing"),
        (lambda root: (root / "camera-intrinsics.txt").write_text("0 0 1\n" * 3), "focal lengths must be positive"),
        (lambda root: [one.unlink() for one in root.glob("*.color.*")], r"holds no frame-NNNNNN\.color\.png"),
        (
            lambda root: [np.savetxt(one, np.full((4, 4), np.inf)) for one in root.glob("*.pose.txt")],
            "no two pictures in a row have a pose",
        ),
    ],
)
def test_what_is_missing_or_malformed_is_named(root: Path, change: Callable[[Path], object], said: str) -> None:
    change(root)
    with pytest.raises(DatasetError, match=said):
        SevenScenesClips(root)


def test_pictures_of_another_aspect_need_intrinsics(root: Path) -> None:
    for path in [*root.glob("*.color.*"), *root.glob("*.depth.png")]:
        with Image.open(path) as opened:
            opened.crop((0, 0, 64, 32)).save(path)
    with pytest.raises(DatasetError, match=r"need a camera-intrinsics\.txt"):
        SevenScenesClips(root)
