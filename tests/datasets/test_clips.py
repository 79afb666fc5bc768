"""Synthetic clips: truth that agrees with the poses, determinism, resumption, and errors for damaged folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mvde import cli
from mvde.datasets.clips import Clip, ClipDataset, ClipIndex, clip_path, generate_clips, read_clip
from mvde.datasets.formats import open_dataset
from mvde.datasets.splits import Split
from mvde.errors import DatasetError, UsageError

SIZE, FRAMES = (40, 56), 5


@pytest.fixture(scope="module")
def folder(opengl: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of each kind; read-only by convention."""
    root = tmp_path_factory.mktemp("clips") / "clips"
    assert generate_clips(root, 9, num_frames=FRAMES, size=SIZE, seed=3, split=Split.TEST) == 9
    return root


def write_clip(root: Path, num_clips: int = 1) -> Path:
    """Write a small folder in the format without rendering."""
    root.mkdir()
    ClipIndex(0, Split.TRAIN, (16, 18), num_clips, 3).write(root)
    parts = {
        "kind": np.asarray("forward"),
        "rgb": np.zeros((3, 16, 18, 3), np.uint8),
        "depth": np.full((3, 16, 18), 6000, np.uint16),
        "intrinsics": np.ones((3, 4), np.float32),
        "poses": np.tile(np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0.7]]), (3, 1, 1)),
        "is_cut": np.zeros(3, np.bool_),
    }
    for number in range(num_clips):
        np.savez(clip_path(root, number), **parts)
    return root


def seen_in_first(clip: Clip, frame: int) -> np.ndarray:
    """Depth that the truth of ``frame`` and the poses predict in the first one, over the depth that is there."""
    fx, fy, cx, cy = clip.intrinsics[frame].astype(np.float64)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    depth = clip.depth_m[frame].astype(np.float64)
    points = np.stack([(x - cx) / fx * depth, (y - cy) / fy * depth, depth], axis=-1)
    now, before = clip.poses[frame], clip.poses[0]
    inside = (points @ now[:, :3].T + now[:, 3] - before[:, 3]) @ before[:, :3]
    u, v = inside[..., 0] / inside[..., 2] * fx + cx, inside[..., 1] / inside[..., 2] * fy + cy
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    kept = (column >= 0) & (column < SIZE[1]) & (row >= 0) & (row < SIZE[0]) & (depth > 0)
    return inside[..., 2][kept] / clip.depth_m[0][row[kept], column[kept]]


@pytest.mark.slow
def test_truth_poses_and_intrinsics_of_a_clip_agree(folder: Path) -> None:
    kinds = set()
    for clip in ClipDataset(folder).clips():
        kinds.add(clip.kind)
        assert (clip.rgb.shape, clip.rgb.dtype) == ((FRAMES, *SIZE, 3), np.uint8)
        assert (clip.depth_m > 0).mean() > 0.9
        assert clip.rgb.std() > 3.0
        for frame in range(1, FRAMES):
            if not clip.is_cut[: frame + 1].any():
                ratio = seen_in_first(clip, frame)
                assert abs(np.median(ratio) - 1) < 0.005  # half a pixel of a floor that recedes
                assert np.mean(np.abs(ratio - 1) < 0.05) > 0.8  # the others are at edges, or moved
        assert clip.is_cut.sum() == (clip.kind == "cut")
        robot = clip.kind != "arm"
        assert not robot or (clip.height_m > 0.15).all()
        assert not robot or (clip.height_m < 1.55).all()
    assert len(kinds) == 9


@pytest.mark.slow
def test_a_static_camera_has_fresh_noise_and_one_pose_and_a_driving_one_goes_ahead(folder: Path) -> None:
    clips = {clip.kind: clip for clip in ClipDataset(folder).clips()}
    static, forward = clips["static"], clips["forward"]
    assert (static.poses == static.poses[0]).all()
    assert (static.depth_m == static.depth_m[0]).all()
    assert all((static.rgb[t] != static.rgb[t - 1]).mean() > 0.2 for t in range(1, FRAMES))
    step = forward.poses[1, :2, 3] - forward.poses[0, :2, 3]
    assert 0.15 / 30 < np.linalg.norm(step) < 0.4 / 30
    assert step @ forward.poses[0, :2, 2] > 0
    turned = clips["turn"].poses
    angle = np.degrees(np.arccos(turned[0, :, 2] @ turned[-1, :, 2])) * 30 / (FRAMES - 1)
    assert 10 < angle < 45  # degrees a second
    moved = clips["moving_things"]
    assert (moved.poses == moved.poses[0]).all()
    assert (moved.depth_m[0] != moved.depth_m[-1]).any()


@pytest.mark.slow
def test_a_run_that_is_resumed_renders_what_is_missing_and_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("index.json", clip_path(folder, 0).name, clip_path(folder, 2).name):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "index.json").write_text((folder / "index.json").read_text().replace('"count": 9', '"count": 2'))
    done: list[int] = []
    made = generate_clips(
        tmp_path, 3, num_frames=FRAMES, size=SIZE, seed=3, split=Split.TEST, num_workers=2, progress=done.append
    )
    assert made == 1
    assert done == [2, 3]
    for number in range(3):
        assert clip_path(tmp_path, number).read_bytes() == clip_path(folder, number).read_bytes()


def test_the_reader_gives_metres_height_pitch_and_frames_of_every_clip(tmp_path: Path) -> None:
    dataset = open_dataset("clips", write_clip(tmp_path / "clips", 2))
    assert len(dataset) == 6
    sample = dataset[4]
    assert sample.name == "clip 1 frame 1"
    np.testing.assert_allclose(sample.depth_m, 1.2)
    clip = read_clip(tmp_path / "clips", 0)
    np.testing.assert_allclose(clip.height_m, 0.7)
    np.testing.assert_allclose(clip.pitch_rad, 0.0)
    np.testing.assert_allclose(clip.time_s, [0, 1 / 30, 2 / 30])
    with pytest.raises(IndexError, match="frame 6 of 6"):
        dataset[6]


def test_a_damaged_clip_is_named_with_the_way_out(tmp_path: Path) -> None:
    root = write_clip(tmp_path / "clips")
    path = clip_path(root, 0)
    data = bytearray(path.read_bytes())
    data[data.index(np.full(24, 6000, np.uint16).tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"clip-00000.npz is damaged .*delete it and run 'mvde data synth --video'"):
        read_clip(root, 0)
    path.unlink()
    with pytest.raises(DatasetError, match="holds no finished clip yet"):
        ClipDataset(root)
    with pytest.raises(DatasetError, match="is missing; run 'mvde data synth --video' again"):
        read_clip(root, 0)


def test_the_index_says_how_the_clips_were_filmed_and_is_that_of_earlier_versions_where_nothing_is_new(
    tmp_path: Path,
) -> None:
    root = write_clip(tmp_path / "clips")
    plain = json.loads((root / "index.json").read_text())
    assert "bare" not in plain
    assert "rolling_shutter_ms" not in plain
    assert read_clip(root, 0).rolling_shutter_ms == 0
    filmed = ClipIndex(0, Split.TRAIN, (16, 18), 1, 3, fps=10, rolling_shutter_ms=20, bare=True)
    filmed.write(root)
    assert ClipIndex.read(root) == filmed
    clip = read_clip(root, 0)
    np.testing.assert_allclose(clip.time_s, [0, 0.1, 0.2])
    assert clip.rolling_shutter_ms == 20


@pytest.mark.parametrize(
    "change",
    [{"size": [4]}, {"num_frames": 0}, {"split": "all"}, {"extra": 1}, {"count": "2"}, {"fps": 0}, {"fps": "30"},
     {"rolling_shutter_ms": -1}, {"bare": 1}],
)  # fmt: skip
def test_a_malformed_index_is_an_error(tmp_path: Path, change: dict[str, object]) -> None:
    root = write_clip(tmp_path / "clips")
    plain = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps({**plain, **change}))
    with pytest.raises(DatasetError, match="is not the index of a folder of clips"):
        ClipDataset(root)


def test_a_folder_without_an_index_or_of_another_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is missing: not a folder of clips"):
        ClipDataset(tmp_path)
    with pytest.raises(DatasetError, match="holds the split train, not test"):
        ClipDataset(write_clip(tmp_path / "clips"), Split.TEST)


def test_other_settings_than_those_of_the_folder_are_refused(opengl: None, tmp_path: Path) -> None:
    root = write_clip(tmp_path / "clips", 2)
    with pytest.raises(UsageError, match=r"holds clips with num_frames 3, but 4 was requested"):
        generate_clips(root, 2, num_frames=4, size=(16, 18))
    with pytest.raises(UsageError, match=r"holds clips with bare False, but True was requested"):
        generate_clips(root, 2, num_frames=3, size=(16, 18), bare=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_frames": 0}, "a clip of 0 frames was asked for; expected 1 to 3600"),
        ({"fps": 60.0}, "60 frames per second were asked for; expected 1 to 30"),
        ({"fps": float("nan")}, "nan frames per second"),
        (
            {"rolling_shutter_ms": 40.0},
            r"a rolling shutter of 40 ms was asked for; expected 0 \(all rows at once\) to 33",
        ),
        ({"rolling_shutter_ms": -1.0}, "a rolling shutter of -1 ms"),
    ],
)
def test_clips_that_no_camera_films_are_refused(tmp_path: Path, options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        generate_clips(tmp_path / "clips", 2, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "clips").exists()


@pytest.mark.parametrize("option", [["--clip-frames", "5"], ["--fps", "10"], ["--rolling-shutter", "20"], ["--bare"]])
def test_what_is_of_clips_needs_video(capsys: pytest.CaptureFixture[str], tmp_path: Path, option: list[str]) -> None:
    assert cli.execute(["data", "synth", "--count", "1", *option, "-o", str(tmp_path / "x")]) == 2
    assert "give --video too" in capsys.readouterr().err


def test_an_engine_is_measured_over_clips_frame_by_frame_and_stabilised(tmp_path: Path, engine_folder: Path) -> None:
    from mvde.cli.assess import Assessor
    from mvde.runtime.depth import DepthRuntime

    root = tmp_path / "clips"
    root.mkdir()
    ClipIndex(0, Split.TRAIN, (32, 48), 2, 6).write(root)
    picture = np.random.default_rng(0).integers(60, 90, (32, 48, 3), dtype=np.uint8)
    rgb = np.stack([picture + np.uint8(12 * (t % 2)) for t in range(6)])  # the tiny graph's depth grows with it
    parts = {
        "kind": np.asarray("static"),
        "depth": np.full((6, 32, 48), 7500, np.uint16),
        "intrinsics": np.tile(np.float32([40, 40, 23.5, 15.5]), (6, 1)),
        "poses": np.tile(np.eye(3, 4), (6, 1, 1)),
        "is_cut": np.zeros(6, np.bool_),
    }
    for number in range(2):
        np.savez(clip_path(root, number), rgb=rgb, **parts)
    with DepthRuntime.load(engine_folder) as runtime:
        depth = np.stack([one.depth for one in runtime.stream(rgb)])
        found = Assessor(ClipDataset(root), 0, ()).assess(runtime).accuracy
    assert found is not None
    step = np.abs(np.diff(np.median(np.log(depth), axis=(1, 2)))).mean()
    assert found["scale_flicker"] == pytest.approx(step, rel=0.02)
    assert found["point_flicker"] == pytest.approx(np.abs(np.diff(np.log(depth), axis=0)).mean(), rel=0.05)
    assert found["steady_scale_flicker"] < 0.7 * found["scale_flicker"]
    assert (found["num_clips"], found["num_images"]) == (2, 12)
