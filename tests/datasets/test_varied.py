"""Varied frames: what they vary, that they repeat, their sensor, and their textures."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("moderngl")

from mvde.datasets.splits import Split
from mvde.datasets.synth.outdoor import build_outdoor, is_good_outdoor_view, sample_outdoor_view
from mvde.datasets.synth.sensor import compress, expose
from mvde.datasets.synth.texture_files import load_textures, save_textures, with_photographs
from mvde.datasets.synth.textures import TextureSet
from mvde.datasets.synth.variations import Variations
from mvde.datasets.synth.varied import VariedFrames, with_people
from mvde.errors import BackendError, ConfigError, DatasetError

SIDE = 48
NONE = Variations(balance=0.0, noise=0.0, jpeg_share=0.0)


@pytest.fixture(scope="module")
def textures() -> TextureSet:
    """One flat layer for every group: the renderer's textures take seconds to make."""
    names = (
        "plaster", "carpet", "planks", "wood", "tiles", "brick", "pattern", "stone", "weave", "picture", "outside",
        "screen", "text", "keys", "photo",
    )  # fmt: skip
    layers = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    return TextureSet(layers, dict.fromkeys(names, (0, 1)))


def frames(textures: TextureSet, variations: Variations | None = None, seed: int = 0) -> VariedFrames:
    made = VariedFrames(SIDE, 800, seed, Split.TRAIN, variations, textures)
    try:
        _ = made[0]
    except BackendError as error:
        pytest.skip(f"no OpenGL: {error}")
    return made


@pytest.mark.slow
def test_frames_vary_in_shape_and_field_of_view_and_repeat(textures: TextureSet) -> None:
    variations = Variations(outdoor_share=0.0)
    made = frames(textures, variations)
    samples = [made[index] for index in range(0, 160, 8)]
    shapes = {sample.rgb.shape[:2] for sample in samples}
    assert shapes <= {(48, 27), (48, 36), (48, 48), (36, 48), (27, 48)}
    assert len(shapes) >= 3
    degrees = []
    for sample in samples:
        assert sample.intrinsics is not None
        height, width = sample.rgb.shape[:2]
        np.testing.assert_allclose(sample.intrinsics[2:], (width / 2, height / 2), atol=0.5)  # odd rests are cut
        degrees.append(2 * math.degrees(math.atan(max(height, width) / 2 / float(sample.intrinsics[0]))))
        assert 0 < sample.depth_m.max() <= 40
    assert 40 <= min(degrees) < 55
    assert 85 < max(degrees) <= 100.001
    again = frames(textures, variations)[8]
    np.testing.assert_array_equal(again.rgb, samples[1].rgb)
    np.testing.assert_array_equal(again.depth_m, samples[1].depth_m)
    other = frames(textures, variations, seed=1)[8]
    assert other.rgb.shape != again.rgb.shape or (other.rgb != again.rgb).any()


@pytest.mark.slow
def test_streets_are_seen_to_forty_metres_and_not_beyond(textures: TextureSet) -> None:
    made = frames(textures, Variations(outdoor_share=1.0))
    depth = np.concatenate([made[8 * scene].depth_m.ravel() for scene in range(6)])
    assert 25 < depth.max() <= 40
    assert (depth == 0).any()  # sky
    assert (depth > 10).mean() > 0.02
    near = frames(textures, Variations(outdoor_share=1.0, max_depth_m=12.0))
    assert max(near[8 * scene].depth_m.max() for scene in range(4)) <= 12


def test_a_set_is_sent_to_workers_without_its_context(textures: TextureSet) -> None:
    made = frames(textures, NONE)
    there = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(there[3].rgb, made[3].rgb)


def test_people_stand_where_nothing_else_does(textures: TextureSet) -> None:
    rng = np.random.default_rng(3)
    scene = build_outdoor(rng, textures.groups)
    more = with_people(scene, rng, textures.groups, 5)
    added = more.obstacles[len(scene.obstacles) :]
    assert len(added) == 5
    for number, a in enumerate(added):
        for b in (*scene.obstacles, *added[:number]):
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
    assert len(more.instances["sphere"]) == len(scene.instances.get("sphere", ())) + 5  # a head each
    assert with_people(scene, rng, textures.groups, 0).obstacles == scene.obstacles


def test_outdoor_views_are_outside_of_things_and_judged(textures: TextureSet) -> None:
    scene = build_outdoor(np.random.default_rng(4), textures.groups)
    for seed in range(10):
        x, y, z = sample_outdoor_view(np.random.default_rng(seed), scene).eye_m
        assert not any(r[0] < x < r[2] and r[1] < y < r[3] for r in scene.obstacles)
        assert 0.2 < z < 2
    ramp = np.linspace(1.0, 30.0, 100, dtype=np.float32).reshape(10, 10)
    assert is_good_outdoor_view(ramp, 40.0)
    assert not is_good_outdoor_view(ramp, 5.0)  # too little is known
    assert not is_good_outdoor_view(np.full((10, 10), 3.0, np.float32), 40.0)  # a wall


def test_a_sensor_without_faults_changes_no_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    np.testing.assert_array_equal(expose(image, np.random.default_rng(1), NONE), image)


def test_noise_grows_with_its_setting_and_balance_moves_the_mean() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)

    def spread(noise: float) -> float:
        made = [expose(grey, np.random.default_rng(seed), Variations(balance=0.0, noise=noise, jpeg_share=0.0))
                for seed in range(20)]  # fmt: skip
        return float(np.mean([image.std() for image in made]))

    assert 0.5 < spread(0.02) < spread(0.06) / 2
    assert max(image.std() for image in [expose(grey, np.random.default_rng(0), NONE)]) == 0
    tinted = expose(grey, np.random.default_rng(0), Variations(balance=0.2, noise=0.0, jpeg_share=0.0))
    assert np.ptp(tinted.reshape(-1, 3).mean(0)) > 3


def test_jpeg_of_a_low_quality_is_that_of_pillow() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=40)
    np.testing.assert_array_equal(compress(image, 40), np.asarray(Image.open(content).convert("RGB")))
    always = Variations(balance=0.0, noise=0.0, jpeg_share=1.0, jpeg=(40, 40))
    np.testing.assert_array_equal(expose(image, np.random.default_rng(0), always), compress(image, 40))


@pytest.mark.parametrize(
    "wrong",
    [{"fov_deg": (100.0, 40.0)}, {"aspects": ()}, {"outdoor_share": 1.5}, {"max_depth_m": 70.0}, {"jpeg": (0, 50)}],
)
def test_wrong_variations_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Variations(**wrong)  # type: ignore[arg-type]


def test_textures_survive_their_file(textures: TextureSet, tmp_path: Path) -> None:
    save_textures(textures, tmp_path / "t.npz")
    found = load_textures(tmp_path / "t.npz")
    np.testing.assert_array_equal(found.layers, textures.layers)
    assert found.groups == textures.groups
    (tmp_path / "t.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DatasetError, match="holds no textures"):
        load_textures(tmp_path / "t.npz")


def test_photographs_need_a_stated_licence(textures: TextureSet, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), (255, 0, 0)).save(tmp_path / "wall.png")
    with pytest.raises(DatasetError, match=r"no readable LICENSES\.md"):
        with_photographs(textures, tmp_path)
    (tmp_path / "LICENSES.md").write_text("nothing of it")
    with pytest.raises(DatasetError, match=r"wall\.png: not named"):
        with_photographs(textures, tmp_path)
    (tmp_path / "LICENSES.md").write_text("wall.png, by A, CC0")
    found = with_photographs(textures, tmp_path)
    assert found.groups["photo"] == (0, 1, 2)
    assert found.layers[2].tolist() == [[[255, 0, 0]] * 256] * 256
