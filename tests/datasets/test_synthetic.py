"""Synthetic frames: exact geometry, determinism, and errors for damaged folders."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mvde import cli
from mvde.datasets import synthetic
from mvde.datasets.splits import Split
from mvde.datasets.synthetic import SyntheticFrames, SyntheticIndex, frame_checksums, generate, shard_paths
from mvde.errors import DatasetError, MissingDependencyError, OutputError, UsageError

SIZE = (32, 48)
COUNT = 20  # 2.5 scenes


pytestmark = pytest.mark.usefixtures("opengl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames rendered by one worker in one run; read-only by convention."""
    root = tmp_path_factory.mktemp("synthetic") / "frames"
    generate(root, COUNT, size=SIZE, seed=11, num_workers=1)
    return root


def write_folder(root: Path, count: int = 3, done: int = 3) -> Path:
    """Write a small folder in the format without rendering."""
    root.mkdir()
    parts = (
        np.zeros((count, 8, 6, 3), np.uint8),
        np.full((count, 8, 6), 1234, np.uint16),
        np.ones((count, 4), np.float32),
    )
    checksums = np.array([frame_checksums(*frame) for frame in zip(*parts, strict=True)], np.uint32)
    for path, values in zip(shard_paths(root, 0), (*parts, checksums), strict=True):
        np.save(path, values)
    SyntheticIndex(seed=0, split=Split.TRAIN, size=(8, 6), count=count, done=[done]).write(root)
    return root


def assert_same_frames(first: Path, second: Path, count: int = COUNT) -> None:
    a, b = SyntheticFrames(first), SyntheticFrames(second)
    assert len(a) >= count
    assert len(b) >= count
    for i in range(count):
        for x, y in zip(a.frame(i), b.frame(i), strict=True):
            np.testing.assert_array_equal(x, y, err_msg=f"frame {i}")


# --- frame contents ----------------------------------------------------------------------------------------------


def test_frames_have_the_documented_types_and_plausible_content(folder: Path) -> None:
    frames = SyntheticFrames(folder)
    assert len(frames) == COUNT
    for i in range(COUNT):
        rgb, depth_m, intrinsics = frames.frame(i)
        assert (rgb.shape, rgb.dtype) == ((*SIZE, 3), np.uint8)
        assert (depth_m.shape, depth_m.dtype) == (SIZE, np.float32)
        valid = depth_m > 0
        assert valid.mean() > 0.9  # views are accepted at 0.97 on a 48 x 48 probe
        assert depth_m[valid].min() > 0.1
        assert depth_m.max() <= 10.0
        assert rgb.std() > 3.0
        fx, fy, cx, cy = intrinsics
        assert fx == fy
        assert (cx, cy) == (SIZE[1] / 2, SIZE[0] / 2)
        assert 50.0 <= math.degrees(2 * math.atan(SIZE[0] / 2 / fy)) <= 65.0


def test_views_of_a_scene_and_scenes_differ(folder: Path) -> None:
    frames = SyntheticFrames(folder)
    depths = [frames.frame(i)[1] for i in range(COUNT)]
    for i in range(COUNT):
        for j in range(i):
            assert np.abs(depths[i] - depths[j]).mean() > 0.01


def test_frame_past_the_end_is_an_index_error(folder: Path) -> None:
    with pytest.raises(IndexError, match="frame 20 of 20"):
        SyntheticFrames(folder).frame(COUNT)


# --- determinism and resumption ----------------------------------------------------------------------------------


def test_frames_do_not_depend_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, COUNT, size=SIZE, seed=11, num_workers=2)
    assert_same_frames(folder, tmp_path)


def test_an_interrupted_run_goes_on_and_gives_the_same_frames(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "_FLUSH_FRAMES", 8)

    def interrupt(done: int) -> None:
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, COUNT, size=SIZE, seed=11, num_workers=1, progress=interrupt)
    assert len(SyntheticFrames(tmp_path)) == 16
    assert generate(tmp_path, COUNT, size=SIZE, seed=11, num_workers=1) == COUNT - 16
    assert_same_frames(folder, tmp_path)
    assert generate(tmp_path, COUNT, size=SIZE, seed=11, num_workers=1) == 0


def test_a_larger_count_keeps_the_frames_and_adds_to_them(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, 5, size=SIZE, seed=11, num_workers=1)
    assert len(SyntheticFrames(tmp_path)) == 5
    assert generate(tmp_path, COUNT, size=SIZE, seed=11, num_workers=1) == COUNT - 5
    assert_same_frames(folder, tmp_path)


def test_other_seeds_and_splits_give_other_frames(folder: Path) -> None:
    from mvde.datasets.synth.render_pool import FrameRenderer

    reference = SyntheticFrames(folder).frame(0)[1]

    def first_depth_m(seed: int, split: Split) -> np.ndarray:
        return FrameRenderer((seed, split.stream), SIZE).scene(0)[1][0] / 1000

    np.testing.assert_allclose(first_depth_m(11, Split.TRAIN), reference, atol=1e-6)
    for seed, split in ((12, Split.TRAIN), (11, Split.VAL), (11, Split.TEST)):
        assert np.abs(first_depth_m(seed, split) - reference).mean() > 0.01


@pytest.mark.slow
def test_a_killed_run_leaves_whole_frames_and_no_process(tmp_path: Path) -> None:
    out = tmp_path / "frames"
    command = [sys.executable, "-m", "mvde", "data", "synth", "--count", "2000", "--out", str(out), "--size", "32x32"]
    with subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not ((out / "index.json").exists() and SyntheticIndex.read(out).num_done):
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    done = SyntheticIndex.read(out).num_done
    assert 0 < done < 2000
    frames = SyntheticFrames(out)
    assert len(frames) == done
    assert all((frames.frame(i)[1] > 0).any() for i in range(done))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(_is_running(int(child)) for child in children):
        time.sleep(0.1)
    assert not any(_is_running(int(child)) for child in children)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- geometry ----------------------------------------------------------------------------------------------------


def _rays(view: object, size: tuple[int, int]) -> np.ndarray:
    """World-space rays (H, W, 3) through the pixel centres, with unit component along the optical axis."""
    fx, fy, cx, cy = view.intrinsics(size).astype(np.float64)  # type: ignore[attr-defined]
    v, u = np.mgrid[: size[0], : size[1]] + 0.5
    camera = np.stack([(u - cx) / fx, -(v - cy) / fy, -np.ones(size)], axis=2)
    return camera @ view.world_from_camera.T  # type: ignore[attr-defined]


def _depth_of_box(eye: np.ndarray, rays: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """z-depth (H, W) where rays enter the box (slab method, Kay and Kajiya, 1986); inf where they miss."""
    with np.errstate(divide="ignore"):
        a, b = (low - eye) / rays, (high - eye) / rays
    near, far = np.minimum(a, b).max(axis=2), np.maximum(a, b).min(axis=2)
    return np.where((near < far) & (near > 0), near, np.inf)


@pytest.mark.parametrize("size", [(48, 64), (64, 40)])
@pytest.mark.parametrize(("yaw", "tilt", "roll"), [(0.0, -30.0, 0.0), (35.0, -20.0, 8.0), (-20.0, 10.0, -3.0)])
def test_depth_agrees_with_ray_casting(size: tuple[int, int], yaw: float, tilt: float, roll: float) -> None:
    from mvde.datasets.synth.builder import Material, SceneBuilder
    from mvde.datasets.synth.renderer import Renderer
    from mvde.datasets.synth.scene import Lights, Scene
    from mvde.datasets.synth.textures import TextureSet
    from mvde.datasets.synth.views import view_along

    layers = TextureSet(np.full((1, 8, 8, 3), 255, np.uint8), {"plaster": (0,)})
    builder = SceneBuilder(np.random.default_rng(0), layers.groups)
    red, grey = Material(0, 1.0, (1, 0, 0), (1, 0, 0)), Material(0, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    boxes = [
        (np.array([-9.0, -9.0, -0.1]), np.array([9.0, 9.0, 0.0]), grey),  # the floor
        (np.array([6.0, -9.0, 0.0]), np.array([6.2, 9.0, 3.0]), grey),  # a wall
        (np.array([2.0, 0.1, 0.0]), np.array([2.6, 0.9, 0.7]), red),  # left of a viewer looking along +x
    ]
    for low, high, material in boxes:
        builder.add("box", tuple((low + high) / 2), tuple(high - low), material)
    white, black, above = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.6, 0.0, 0.8)
    lights = Lights((3, 0, 2.8), white, above, black, (white, white), (black, black), white, white, 0.3)
    view = view_along(np.array([0.0, 0.0, 1.2]), *np.radians([yaw, tilt, roll, 60.0]))
    renderer = Renderer(layers, size)
    renderer.set_scene(Scene(builder.instances(), (6.0, 6.0, 3.0), (), (), lights))
    colour, depth_m = renderer.render(view)
    renderer.close()

    depths = np.stack([_depth_of_box(view.eye_m, _rays(view, size), low, high) for low, high, _ in boxes])
    expected = depths.min(axis=0)
    seen = np.isfinite(expected)
    # Pixel centres within the rasteriser's 1/256 px of an edge may fall on either side.
    agree = np.abs(depth_m[seen] - expected[seen]) < 1e-3
    assert agree.mean() > 0.995
    assert (depth_m[~seen] == 0).mean() > 0.995 if (~seen).any() else True
    is_box = (depths.argmin(axis=0) == 2) & seen
    looks_red = colour[..., 0] > 4 * colour[..., 1] + 0.01
    assert is_box.any() or yaw < 0
    assert (looks_red == is_box).mean() > 0.995  # colour and depth are aligned, rows and columns not swapped


def test_meshes_fit_the_unit_cube_and_have_unit_normals() -> None:
    from mvde.datasets.synth.meshes import MESHES

    for name, make in MESHES.items():
        vertices = make()
        assert vertices.shape[0] % 3 == 0, name
        assert np.abs(vertices[:, :3]).max() <= 0.5 + 1e-6, name
        np.testing.assert_allclose(np.linalg.norm(vertices[:, 3:6], axis=1), 1.0, atol=1e-4, err_msg=name)


def test_millimetres_round_and_drop_what_is_too_far() -> None:
    from mvde.datasets.synth.render_pool import millimetres_from_metres

    depth_m = np.array([0.0, 0.25, 1.2344, 1.2346, 10.0, 10.001], np.float32)
    np.testing.assert_array_equal(millimetres_from_metres(depth_m), [0, 250, 1234, 1235, 10000, 0])


# --- damaged folders ---------------------------------------------------------------------------------------------


def test_depth_is_read_in_metres(tmp_path: Path) -> None:
    _, depth_m, _ = SyntheticFrames(write_folder(tmp_path / "d")).frame(2)
    np.testing.assert_allclose(depth_m, 1.234, rtol=1e-6)


def test_only_finished_frames_are_read(tmp_path: Path) -> None:
    assert len(SyntheticFrames(write_folder(tmp_path / "d", count=3, done=2))) == 2


def test_a_folder_without_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"index\.json is missing.*mvde data synth"):
        SyntheticFrames(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"seed": 1}', '{"size": 3}'])
def test_a_malformed_index_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DatasetError, match=r"index\.json"):
        SyntheticFrames(tmp_path)


@pytest.mark.parametrize("done", [[4], [-1], [3, 0], []])
def test_an_index_that_counts_wrongly_is_refused(tmp_path: Path, done: list[int]) -> None:
    root = write_folder(tmp_path / "d")
    SyntheticIndex(seed=0, split=Split.TRAIN, size=(8, 6), count=3, done=done).write(root)
    with pytest.raises(DatasetError, match=r"index\.json does not have the keys"):
        SyntheticFrames(root)


def test_no_flipped_bit_of_an_index_changes_what_is_read(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "d") / "index.json"
    content, index = path.read_bytes(), SyntheticIndex.read(path.parent)
    num_refused = 0
    for at in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
            try:
                assert SyntheticIndex.read(path.parent) == index  # a space became another one
            except DatasetError as error:
                num_refused += "index.json" in str(error)
    assert num_refused > 7 * len(content)


def test_an_edited_index_and_one_without_a_checksum_are_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "d") / "index.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "seed": 1}))
    with pytest.raises(DatasetError, match=r"index\.json is damaged or was edited: it has CRC-32"):
        SyntheticFrames(path.parent)
    del plain["crc32"]
    path.write_text(json.dumps(plain))
    with pytest.raises(DatasetError, match=r"index\.json states no checksum"):
        SyntheticFrames(path.parent)


def test_a_folder_without_a_finished_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no finished frame"):
        SyntheticFrames(write_folder(tmp_path / "d", done=0))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_missing_or_damaged_shard_is_named(tmp_path: Path, which: int) -> None:
    root = write_folder(tmp_path / "d")
    path = shard_paths(root, 0)[which]
    whole = path.read_bytes()
    for broken, reason in ((whole[:-5], "damaged"), (b"", "damaged"), (b"\x93NUMPY", "damaged")):
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=f"{path.name}.*{reason}"):
            SyntheticFrames(root)
    np.save(path, np.zeros((3, 2)))
    with pytest.raises(DatasetError, match=f"{path.name} has shape"):
        SyntheticFrames(root)
    path.unlink()
    with pytest.raises(DatasetError, match=f"{path.name} is missing"):
        SyntheticFrames(root)


# --- arguments, missing packages, a full disk --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"size": (8, 64)}, "size is 8x64"),
        ({"size": (64, 5000)}, "size is 64x5000"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "training"}, "split is 'training'.*train, val, test"),
        ({"num_workers": 0}, "workers is 0"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(tmp_path / "d", **{"count": 1, **arguments})  # type: ignore[arg-type]
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("changed", [{"seed": 12}, {"size": (32, 32)}, {"split": "val"}, {"count": 5}])
def test_a_folder_made_with_other_settings_is_not_touched(folder: Path, changed: dict[str, object]) -> None:
    before = (folder / "index.json").read_bytes()
    with pytest.raises(UsageError, match="choose another folder"):
        generate(folder, **{"count": COUNT, "size": SIZE, "seed": 11, **changed})  # type: ignore[arg-type]
    assert (folder / "index.json").read_bytes() == before


def test_without_the_renderer_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moderngl", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mvde\[data\]'"):
        generate(tmp_path / "d", 1)
    assert not (tmp_path / "d").exists()


def test_a_full_disk_is_one_clear_error_and_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        generate(tmp_path, 1, size=SIZE, num_workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json"]


def test_reading_needs_neither_torch_nor_the_renderer(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    code = (
        "import sys; from mvde.datasets.synthetic import SyntheticFrames; SyntheticFrames(sys.argv[1]).frame(0);"
        "print([m for m in ('torch', 'moderngl', 'skimage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_makes_a_folder_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "frames"
    arguments = ["--count", "3", "--out", str(out), "--size", "24x40", "--seed", "4", "--split", "test"]
    assert cli.execute(["data", "synth", *arguments, "--workers", "1"]) == 0
    assert "3 frames of 24x40, 3 of them new" in capsys.readouterr().out
    frames = SyntheticFrames(out)
    assert len(frames) == 3
    assert frames.frame(0)[0].shape == (24, 40, 3)
    assert (frames.index.seed, frames.index.split) == (4, Split.TEST)


@pytest.mark.parametrize("arguments", [["--size", "big"], ["--count", "0"], ["--split", "x"]])
def test_the_command_refuses_wrong_usage_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    out = tmp_path / "d"
    assert cli.execute(["data", "synth", "--count", "1", "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mvde: error: ")
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("which", range(4))
def test_no_flipped_bit_of_a_frame_is_read(tmp_path: Path, which: int) -> None:
    root = write_folder(tmp_path / "d")
    path = shard_paths(root, 0)[which]
    content = path.read_bytes()
    for at in range(128, len(content)):  # after the header, which is checked against the index
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        frames = SyntheticFrames(root)
        with pytest.raises(DatasetError, match=r"-00000\.npy is damaged: frame .* has CRC-32 .*copy it again"):
            [frames.frame(number) for number in range(3)]


def test_a_folder_without_checksums_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d")
    shard_paths(root, 0)[3].unlink()
    with pytest.raises(DatasetError, match=r"checksums-00000\.npy is missing"):
        SyntheticFrames(root)
