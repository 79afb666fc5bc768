"""``mvde run``: output files, and errors on bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.runtime.depth import DepthRuntime

pytest.importorskip("openvino")


@pytest.fixture
def robot(engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with an engine and two photographs."""
    shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name)
    (tmp_path / "photos").mkdir()
    for index, name in enumerate(("a", "b")):
        pixels = np.random.default_rng(index).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_photograph_gives_millimetres_a_picture_and_statistics(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute(["run", "photos/a.png", "--engine", "fp32"]) == 0
    assert "openvino:fp32: computes in fp32 on" in capsys.readouterr().out
    assert sorted(path.name for path in (robot / "depth").iterdir()) == ["a.depth.jpg", "a.depth.png", "a.stats.npz"]
    image = np.asarray(Image.open("photos/a.png"))
    expected = DepthRuntime.load("fp32").infer(image)
    with Image.open("depth/a.depth.png") as depth_file:
        assert depth_file.mode == "I;16"
        np.testing.assert_allclose(np.asarray(depth_file) / 1000, expected.depth, atol=5.1e-4)
    with np.load("depth/a.stats.npz") as stored:
        np.testing.assert_array_equal(stored["stats"], expected.stats)
        assert stored["columns"].tolist() == ["mean", "var", "grad"]
        assert stored["grid"].tolist() == [2, 3]
        assert int(stored["patch_size"]) == 16
    with Image.open("depth/a.depth.jpg") as picture:
        assert picture.width == 80
        assert picture.height > 60


def test_a_folder_gives_a_set_of_files_per_photograph(robot: Path) -> None:
    assert cli.execute(["run", "photos", "--out", "results", "--fit", "crop"]) == 0
    assert len(list((robot / "results").iterdir())) == 6


def test_relative_depth_is_not_called_millimetres(robot: Path, edit_manifest: Callable[..., None]) -> None:
    def make_relative(plain: dict[str, Any]) -> None:
        plain["depth_kind"], plain["unit"] = "scale_invariant", "1"

    edit_manifest(next((robot / "engines").rglob("engine.json")), make_relative)
    assert cli.execute(["run", "photos/a.png"]) == 0
    assert sorted(path.name for path in (robot / "depth").iterdir()) == ["a.depth.jpg", "a.depth.npy", "a.stats.npz"]
    expected = DepthRuntime.load("fp32").infer(np.asarray(Image.open("photos/a.png"))).depth
    np.testing.assert_array_equal(np.load("depth/a.depth.npy"), expected)


def test_inverse_depth_is_written_as_it_is_and_its_picture_is_near_to_far(
    robot: Path, edit_manifest: Callable[..., None]
) -> None:
    from mvde.runtime.render import colour_table

    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32] = 255  # larger inverse depth: near
    Image.fromarray(pixels).save("photos/a.png")
    manifest = next((robot / "engines").rglob("engine.json"))
    edit_manifest(manifest, lambda plain: plain.update(depth_kind="inverse_relative", unit="1/u"))
    assert cli.execute(["run", "photos/a.png"]) == 0
    raw = np.load("depth/a.depth.npy")
    assert raw[0, 0] == pytest.approx(4.5, rel=1e-4)
    with Image.open("depth/a.depth.jpg") as picture:
        shown = np.asarray(picture.convert("RGB")).astype(int)
    near, far = colour_table()[[0, -1]].astype(int)
    assert np.abs(shown[8, 48] - near).max() < 12  # JPEG
    assert np.abs(shown[56, 48] - far).max() < 12


def test_the_camera_of_the_frames_makes_their_metres_and_an_assumed_one_is_said(
    robot: Path, edit_manifest: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def depth_mm(*options: str) -> np.ndarray:
        assert cli.execute(["run", "photos/a.png", *options]) == 0
        return np.asarray(Image.open("depth/a.depth.png")).astype(float)

    plain = depth_mm("--fov", "90x90")
    assert "the camera has no effect: depth of kind metric" in capsys.readouterr().out
    manifest = next((robot / "engines").rglob("engine.json"))
    focal = {"depth_kind": "metric_focal", "canonical_focal": 0.5, "focal_convention": "horizontal"}
    edit_manifest(manifest, lambda plain: plain.update(focal))
    np.testing.assert_array_equal(depth_mm(), plain)
    assert "camera assumed: relative focal length 0.5 (horizontal); field of view" in capsys.readouterr().out
    with np.load("depth/a.stats.npz") as stored:
        assert (bool(stored["camera_assumed"]), float(stored["camera_factor"])) == (True, 1.0)
        assert str(stored["depth_kind"]) == "metric_focal"
    (robot / "camera.json").write_text('{"fx": 80, "fy": 80, "cx": 39.5, "cy": 29.5, "width": 80, "height": 60}')
    for options in (["--camera", "80,80,39.5,29.5"], ["--camera", "camera.json"], ["--fov", "53.13010235x50"]):
        np.testing.assert_allclose(depth_mm(*options), 2 * plain, atol=1)  # f / W of 1
        assert "camera assumed" not in capsys.readouterr().out
    assert cli.execute(["run", "photos/a.png", "--camera", "80,80,39.5,29.5", "--frame", "80x60"]) == 2
    assert "frames of 80x60, but this frame is 60x80" in _one_error_line(capsys)
    for options in (
        ["--camera", "80,-80,39.5,29.5"],
        ["--camera", "nan,80,1,1"],
        ["--camera", "1,2"],
        ["--fov", "0x9"],
    ):
        assert cli.execute(["run", "photos/a.png", *options]) == 2
        _one_error_line(capsys)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "there is no image"),
        (lambda path: path.write_bytes(b"\x89PNG"), "cannot read the image"),
        (lambda path: Image.new("RGBA", (9, 9)).save(path), "is partly transparent (RGBA)"),
        (lambda path: Image.new("I;16", (9, 9)).save(path), "is a 16-bit grey image"),
        (lambda path: Image.new("RGB", (1, 1)).save(path), "1x1 pixels"),
    ],
)
def test_a_bad_image_is_one_line_and_writes_nothing(
    robot: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path], object] | None, message: str
) -> None:
    if write is not None:
        write(robot / "bad.png")
    assert cli.execute(["run", "bad.png"]) == 1
    assert message in _one_error_line(capsys)
    assert not (robot / "depth").exists()


def test_a_run_goes_on_past_bad_inputs_and_counts_them(
    robot: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvde.image._said", set())
    Image.new("L", (9, 9), 70).save(robot / "photos" / "grey.png")
    Image.new("I;16", (9, 9)).save(robot / "photos" / "deep.png")
    (robot / "photos" / "aa.png").write_bytes(b"\x89PNG")
    shutil.copy(robot / "photos" / "a.png", robot / "photos" / "a.bmp.png")
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(robot / "photos" / "b.jpg")
    assert cli.execute(["run", "photos", "missing.png"]) == 1
    printed = capsys.readouterr()
    assert "5 frames in depth/" in printed.out
    stems = {path.name.split(".depth")[0] for path in (robot / "depth").glob("*.depth.png")}
    assert stems == {"a", "a.bmp", "grey", "photos-b-jpg", "photos-b-png"}
    assert [line.split(";")[0] for line in printed.err.splitlines() if line.startswith("skipped: ")] == [
        "skipped: cannot read the image photos/aa.png: its content is not a JPEG, PNG, BMP, WebP, TIFF or PPM image",
        "skipped: photos/deep.png is a 16-bit grey image, but 8-bit RGB is expected",
        "skipped: there is no image missing.png",
    ]
    last = printed.err.splitlines()[-1]
    assert "3 of 8 inputs could not be read" in last
    assert "photos/aa.png, photos/deep.png, missing.png" in last


def test_a_broken_video_keeps_its_good_frames(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av")
    with av.open("clip.mp4", "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 1
        for seed in range(6):
            pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = Path("clip.mp4").read_bytes()
    Path("clip.mp4").write_bytes(content[: int(len(content) * 0.7)])
    assert cli.execute(["run", "clip.mp4"]) == 1
    num_written = len(list((robot / "depth").glob("clip-*.depth.png")))
    assert 0 < num_written < 6
    assert f"clip.mp4: {num_written} of 6 frames could be read" in _one_error_line(capsys)


def test_as_many_results_as_announced_or_a_named_input(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    data = Path(__file__).parents[1] / "data"
    names = ["crash_0.jpg", "srat_m1_0.jpg", "float_tag.jpg", "avif_named_png.png", "upright.png", "rot.mp4", "cut.mp4"]
    assert cli.execute(["run", *(str(data / name) for name in names)]) == 1
    printed = capsys.readouterr()
    assert "7 frames in depth/" in printed.out
    assert "2 of 7 inputs could not be read" in printed.err.splitlines()[-1]
    sizes = {}
    for path in (robot / "depth").glob("*.depth.png"):
        with Image.open(path) as depth:
            sizes[path.name.removesuffix(".depth.png")] = depth.size
    upright = {"crash_0": (48, 64), "srat_m1_0": (48, 64), "float_tag": (48, 64), "upright": (320, 240)}
    assert sizes == {**upright, **{f"rot-00000{index}": (320, 240) for index in range(3)}}


def test_wrong_ids_and_options_are_wrong_usage(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = (["-e", "fp32", "-e", "bf16"], ["--res", "32x48", "--res", "64"])
    for extra in (["--engine", "fp17"], ["--fit", "zoom"], ["--res", "tall"], *twice):
        assert cli.execute(["run", "photos/a.png", *extra]) == 2
        _one_error_line(capsys)


def test_without_an_engine_the_command_that_builds_one_is_named(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(robot / "engines")
    assert cli.execute(["run", "photos/a.png"]) == 1
    assert "mvde build" in _one_error_line(capsys)


def test_a_truncated_engine_is_one_line(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob = next((robot / "engines").rglob("*.blob"))
    blob.write_bytes(blob.read_bytes()[:1000])
    assert cli.execute(["run", "photos/a.png"]) == 1
    assert "mvde build" in _one_error_line(capsys)


def test_a_result_that_cannot_be_written_leaves_the_older_one(
    robot: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.execute(["run", "photos/a.png"]) == 0
    before = (robot / "depth" / "a.depth.png").read_bytes()
    capsys.readouterr()

    def full(self: Image.Image, path: object, **options: object) -> None:
        Path(str(path)).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert cli.execute(["run", "photos/a.png"]) == 1
    assert "No space left on device" in _one_error_line(capsys)
    assert (robot / "depth" / "a.depth.png").read_bytes() == before
    assert not list((robot / "depth").glob(".*"))


def test_ctrl_c_leaves_only_whole_files(
    robot: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvde.runtime import render

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "depth_picture", interrupt)
    assert cli.execute(["run", "photos"]) == 130
    assert "interrupted" in _one_error_line(capsys)
    assert [path.name for path in (robot / "depth").iterdir()] == ["a.depth.png"]


def test_a_steady_run_is_that_of_the_stream_and_each_video_begins_anew(robot: Path) -> None:
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)] * 3
    for name in ("one.mkv", "two.mkv"):
        with av.open(str(robot / name), "w") as container:
            stream = container.add_stream("ffv1", rate=30)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "bgr0"
            for pixels in frames:
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
    assert cli.execute(["run", "one.mkv", "two.mkv", "photos", "--stabilize"]) == 0
    ages = {path.name[:10]: int(np.load(path)["num_steady"]) for path in sorted((robot / "depth").glob("*.npz"))}
    assert list(ages.values()) == [1, 1, 1, 2, 3, 1, 2, 3]  # two photographs of noise are a cut
    assert cli.execute(["run", "photos", "--out", "plain"]) == 0
    assert int(np.load(robot / "plain" / "a.stats.npz")["num_steady"]) == 0
