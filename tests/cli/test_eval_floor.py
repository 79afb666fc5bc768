"""``mvde eval`` with scale from the floor: metrics without it and with it, of clips and of a mounting that is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.camera import Camera
from mvde.datasets.clips import ClipIndex, clip_path
from mvde.datasets.splits import Split
from mvde.runtime.mounting import Mounting
from mvde.runtime.scan_table import level_rotation
from tests.runtime.floor_rooms import picture, room_depth

pytest.importorskip("openvino")

SIZE = (32, 48)
CAMERA = Camera.from_fov(60.0, None, SIZE)
MOUNTINGS = [Mounting(0.6, 15.0), Mounting(0.6, 15.0), Mounting(0.7, 20.0, 5.0)]
WRONG = 0.8
"""What the engine's depth is of the room's."""


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A clip of rooms that the tiny engine sees too near, the second of them as a picture without a floor."""
    folder = tmp_path / "clips"
    folder.mkdir()
    ClipIndex(0, Split.TRAIN, SIZE, 1, len(MOUNTINGS)).write(folder)
    depth = np.stack([room_depth(CAMERA, one) for one in MOUNTINGS])
    rgb = np.stack([picture(one * WRONG) for one in depth])
    rgb[1] = 40
    turns = [level_rotation(one.pitch_deg, one.roll_deg) for one in MOUNTINGS]
    np.savez(
        clip_path(folder, 0),
        kind=np.asarray("forward"),
        rgb=rgb,
        depth=np.round(depth * 5000).astype(np.uint16),
        intrinsics=np.full((3, 4), (CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy), np.float32),
        poses=np.stack([np.c_[turn, (0, 0, one.height_m)] for turn, one in zip(turns, MOUNTINGS, strict=True)]),
        is_cut=np.zeros(3, np.bool_),
    )
    return folder


@pytest.fixture
def evaluate(engine_folder: Path, clips: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Report of an evaluation of the clip."""

    def report(*options: str) -> dict[str, Any]:
        path = tmp_path / "report.json"
        arguments = ["eval", str(engine_folder), "--data", str(clips), "--format", "clips", "--json", str(path)]
        assert cli.execute([*arguments, *options]) == 0
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    return report


def test_the_mounting_of_clips_is_their_own(
    evaluate: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    plain, found = evaluate(), evaluate("--floor")
    floor = found.pop("floor")
    assert found == plain  # depth without the floor is what it was
    assert floor["mounting"] == "known"
    assert [one["status"] for one in floor["images"].values()] == ["used", "unseen", "used"]
    scales = [one["scale"] for one in floor["images"].values()]
    assert scales == pytest.approx([1 / WRONG, 1, 1 / WRONG], rel=0.01)
    without, scaled = (
        [row["abs_rel"] for row in one["alignments"]["none"]["per_image"].values()] for one in (found, floor)
    )
    assert [without[0], without[2]] == pytest.approx([1 - WRONG] * 2, abs=0.02)
    assert max(scaled[0], scaled[2]) < 0.03
    assert scaled[1] == without[1]
    used = floor["abs_rel_where_used"]["none"]
    assert (used["without"], used["with"]) == (np.mean([without[0], without[2]]), np.mean([scaled[0], scaled[2]]))
    printed = capsys.readouterr().out
    assert "aligned: none, floor" in printed
    assert "scale from the floor in 2 of 3 frames, 1 showed none" in printed
    assert f"AbsRel of these, aligned: none: {used['without']:.4f} without the floor, {used['with']:.4f}" in printed


def test_one_mounting_is_that_of_all_frames(evaluate: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "mount.yaml").write_text("height_m: 0.6\npitch_deg: 15\n")
    of_file = evaluate("--mounting", str(tmp_path / "mount.yaml"), "--max-frames", "2")["floor"]
    of_numbers = evaluate("--camera-height", "0.6", "--pitch", "15", "--max-frames", "2")["floor"]
    assert of_file == of_numbers
    assert of_file["mounting"] == "given"
    first, last = of_file["images"].values()
    assert first["scale"] == pytest.approx(1 / WRONG, rel=0.01)
    assert (last["status"], last["scale"]) != (first["status"], first["scale"])  # of another mounting


def test_a_floor_that_cannot_be_had_is_wrong_usage(
    engine_folder: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, pixels in (("rgb", np.zeros((*SIZE, 3), np.uint8)), ("depth", np.full(SIZE, 1000, np.uint16))):
        (tmp_path / kind).mkdir()
        Image.fromarray(pixels).save(tmp_path / kind / "0.png")
    of_clips = ["--data", str(clips), "--format", "clips"]
    for target, options, words in (
        (engine_folder, ["--data", str(tmp_path), "--floor"], "do not say how their camera is mounted"),
        (engine_folder, [*of_clips, "--floor", "--camera-height", "1", "--pitch", "0"], "leave it out beside"),
        (engine_folder, [*of_clips, "--camera-height", "1"], "--camera-height needs --pitch"),
        ("model.safetensors", [*of_clips, "--floor"], "model.safetensors is a checkpoint; give an engine"),
        (engine_folder, [*of_clips, "--floor", "--assume-camera"], "needs the camera of the frame"),
    ):
        assert cli.execute(["eval", str(target), *options]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
