"""Rows for the patches of a model's own processor, and stored rows as the depth of a training loop."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

from mvde import DepthRuntime, bulk
from mvde.bulk.formats import OutputFormat, StatsDtype
from mvde.bulk.run import StatsOptions, Summary, compute_stats
from mvde.bulk.work import CameraRule
from mvde.errors import DatasetError, UsageError
from mvde.image import read_image
from mvde.vlm.bulk_patches import ProcessorPatches
from mvde.vlm.processor import DepthProcessor
from mvde.vlm.stored import StoredStats
from tests.bulk.conftest import in_this_process
from tests.vlm.tiny_llava import image_processor_of, llava_processor

SIZES = {"a/wide.png": (40, 100), "a/tall.png": (90, 60), "b/square.png": (64, 64)}
BROKEN = "b/broken.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of different shapes, and a file that is none; read-only by convention."""
    root = tmp_path_factory.mktemp("photos")
    for number, (key, size) in enumerate(SIZES.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        (root / key).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / key)
    (root / BROKEN).write_bytes(b"no picture")
    return root


PROCESSORS: dict[str, Callable[[], Any]] = {
    "qwen": lambda: image_processor_of("Qwen2VLImageProcessor", min_pixels=56 * 56, max_pixels=112 * 112),
    "onevision": lambda: image_processor_of(
        "LlavaOnevisionImageProcessor",
        size={"height": 64, "width": 64},
        image_grid_pinpoints=[[64, 128], [128, 64], [128, 128]],
    ),
    "llava": llava_processor,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models with their processors; LLaVA-OneVision's tells its patch size in its configuration."""
    root = tmp_path_factory.mktemp("models")
    for name, make in PROCESSORS.items():
        make().save_pretrained(root / name)
    (root / "onevision/config.json").write_text(
        json.dumps({"model_type": "siglip_vision_model", "patch_size": 16, "image_size": 64})
    )
    return {name: root / name for name in PROCESSORS}


def run(photos: Path, engine: Path, out: Path, **options: Any) -> Summary:
    return compute_stats([str(photos)], engine, out, options=StatsOptions(**options), runner=in_this_process)


@pytest.fixture(scope="module")
def computed(
    photos: Path, folders: dict[str, Path], engine_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Statistics in float32 of each processor's patches, and of the engine's grid; read-only by convention."""
    root = tmp_path_factory.mktemp("computed")
    for name, folder in folders.items():
        run(photos, engine_folder, root / name, dtype=StatsDtype.F4, patches=ProcessorPatches(folder))
    run(photos, engine_folder, root / "grid", dtype=StatsDtype.F4)
    return {name: root / name for name in (*folders, "grid")}


def call(processor: DepthProcessor, paths: list[Path]) -> Any:
    """Output for a batch of pictures, as a training loop calls the processor."""
    if hasattr(processor.processor, "tokenizer"):
        text = ["<image> which ?"] * len(paths)
        return processor(images=[[path] for path in paths], text=text, return_tensors="np", padding=True)
    return processor(images=paths, return_tensors="np")


@pytest.mark.parametrize("name", PROCESSORS)
def test_stored_rows_are_those_that_the_runtime_gives_in_a_batch(
    name: str, photos: Path, folders: dict[str, Path], computed: dict[str, Path], engine_folder: Path
) -> None:
    own, patch = PROCESSORS[name](), None if name == "qwen" else 16
    paths = [photos / key for key in SIZES]
    with DepthRuntime.load(engine_folder) as runtime:
        expected = call(DepthProcessor(own, runtime, patch_size=patch), paths)
    found = call(DepthProcessor(own, StoredStats(computed[name], photos), patch_size=patch), paths)
    assert found["depth_stats"].any()
    assert np.array_equal(found["depth_stats"], expected["depth_stats"])


def test_a_picture_has_as_many_rows_as_the_processor_cuts_patches(photos: Path, computed: dict[str, Path]) -> None:
    from pyarrow import parquet

    rows = {row["key"]: row for row in parquet.read_table(next(computed["qwen"].glob("*.parquet"))).to_pylist()}
    for key in SIZES:
        cut = PROCESSORS["qwen"]()(images=Image.open(photos / key), return_tensors="np")
        assert rows[key]["grid"] == cut["image_grid_thw"][0, 1:].tolist()
        assert len(rows[key]["mean"]) == len(cut["pixel_values"])
        assert rows[key]["tiles"] == 1
    assert len({len(rows[key]["mean"]) for key in SIZES}) > 1
    assert (rows[BROKEN]["mean"], rows[BROKEN]["geometry"]) == (None, None)
    tiled = parquet.read_table(next(computed["onevision"].glob("*.parquet"))).to_pylist()
    assert [row["tiles"] for row in tiled if row["error"] is None] == [
        PROCESSORS["onevision"]()(images=[Image.open(photos / row["key"])], return_tensors="np")["pixel_values"].shape[
            1
        ]
        for row in tiled
        if row["error"] is None
    ]


@pytest.mark.parametrize("form", OutputFormat)
def test_rows_of_any_number_are_read_back_in_every_format(
    form: OutputFormat, photos: Path, folders: dict[str, Path], computed: dict[str, Path], engine_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    run(photos, engine_folder, tmp_path / "out", patches=ProcessorPatches(folders["qwen"]), output_format=form)
    folder, expected = bulk.open(tmp_path / "out"), bulk.open(computed["qwen"])
    assert folder.grid is None
    for item in map(folder.__getitem__, range(len(folder))):
        assert np.allclose(item["depth_stats"], expected.stats(item["key"]), rtol=0.01, atol=0)
        assert folder.picture(item["key"])[1] == expected.picture(item["key"])[1]
    assert {folder[index]["key"] for index in range(len(folder))} == set(SIZES)


def test_a_folder_of_another_processor_is_refused_and_another_processor_in_training_too(
    photos: Path, folders: dict[str, Path], computed: dict[str, Path], engine_folder: Path
) -> None:
    with pytest.raises(UsageError, match=r"processor: there 'Qwen2VL\w* .*patches of 14 pixels', now 'Llava"):
        run(photos, engine_folder, computed["qwen"], dtype=StatsDtype.F4, patches=ProcessorPatches(folders["llava"]))
    other = image_processor_of("Qwen2VLImageProcessor", min_pixels=56 * 56, max_pixels=60 * 60)
    with pytest.raises(UsageError, match=r"of other patches than this processor sees .*--processor"):
        call(DepthProcessor(other, StoredStats(computed["qwen"], photos)), [photos / "a/tall.png"])


def stretching(size: tuple[int, int]) -> Any:
    return image_processor_of("SiglipImageProcessor", size={"height": size[0], "width": size[1]})


def test_the_engines_grid_serves_a_tower_that_sees_the_whole_picture_in_it(
    photos: Path, computed: dict[str, Path]
) -> None:
    paths = [photos / "a/tall.png", photos / BROKEN.replace("broken", "square")]
    source = StoredStats(computed["grid"], photos)
    output = call(DepthProcessor(stretching((32, 48)), source, patch_size=16), paths)
    folder = bulk.open(computed["grid"], grid=(2, 3))
    assert np.array_equal(output["depth_stats"], [folder.stats("a/tall.png"), folder.stats("b/square.png")])


def test_a_tower_that_sees_otherwise_is_refused(photos: Path, computed: dict[str, Path]) -> None:
    crop = {"height": 32, "width": 48}
    cropping = image_processor_of("CLIPImageProcessor", size={"shortest_edge": 48}, crop_size=crop)
    tiling = PROCESSORS["onevision"]()
    for processor, message in (
        (stretching((48, 48)), r"of \(2, 3\) patches .* but the tower sees \(3, 3\)"),
        (cropping, "with the fit stretch, but this processor crops or pads"),
        (tiling, r"in \d parts; compute them for it: mvde stats --processor"),
    ):
        with pytest.raises(UsageError, match=message):
            call(
                DepthProcessor(processor, StoredStats(computed["grid"], photos), patch_size=16), [photos / "a/tall.png"]
            )
    with pytest.raises(UsageError, match=r"grad is per pixel of the input, which was \(32, 48\)"):
        call(DepthProcessor(stretching((64, 96)), StoredStats(computed["grid"], photos), patch_size=32), [
            photos / "a/tall.png"
        ])  # fmt: skip


def test_a_crop_is_accepted_for_a_tower_that_crops_the_same(photos: Path, engine_folder: Path, tmp_path: Path) -> None:
    run(photos, engine_folder, tmp_path / "out", fit="crop", dtype=StatsDtype.F4)
    processor = image_processor_of(
        "CLIPImageProcessor", size={"shortest_edge": 48}, crop_size={"height": 32, "width": 48}
    )
    output = call(DepthProcessor(processor, StoredStats(tmp_path / "out", photos), patch_size=16), [
        photos / "a/tall.png"
    ])  # fmt: skip
    assert np.array_equal(output["depth_stats"][0], bulk.open(tmp_path / "out").stats("a/tall.png"))
    with pytest.raises(UsageError, match="with the fit crop"):
        call(DepthProcessor(stretching((32, 48)), StoredStats(tmp_path / "out", photos), patch_size=16), [
            photos / "a/tall.png"
        ])  # fmt: skip


def test_pictures_that_are_turned_changed_or_unknown_are_refused(
    photos: Path, computed: dict[str, Path], tmp_path: Path
) -> None:
    processor = DepthProcessor(stretching((32, 48)), StoredStats(computed["grid"], photos), patch_size=16)
    turned = Image.open(photos / "b/square.png")
    turned.getexif()[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "PNG", exif=turned.getexif())
    sideways = Image.open(stream)
    sideways.filename = str(photos / "b/square.png")
    with pytest.raises(UsageError, match=r"EXIF orientation 6.*exif_transpose"):
        processor(images=[sideways], return_tensors="np")
    smaller = Image.open(photos / "a/wide.png").resize((50, 20))
    smaller.filename = str(photos / "a/wide.png")
    with pytest.raises(UsageError, match=r"is \(20, 50\) \(H, W\), but the statistics are of \(40, 100\)"):
        processor(images=[smaller], return_tensors="np")
    with pytest.raises(UsageError, match="given without one"):
        processor(images=[read_image(photos / "a/wide.png")], return_tensors="np")
    Image.new("RGB", (8, 8)).save(tmp_path / "stranger.png")
    with pytest.raises(DatasetError, match=r"no statistics of .*stranger\.png; its keys are as 'a/tall\.png'"):
        call(processor, [tmp_path / "stranger.png"])


def test_a_picture_whose_row_is_an_error_goes_without_depth(photos: Path, computed: dict[str, Path]) -> None:
    source = StoredStats(computed["grid"], photos)
    picture = Image.new("RGB", (30, 20))
    picture.filename = str(photos / BROKEN)  # such as one that only Pillow can read
    output = DepthProcessor(stretching((32, 48)), source, patch_size=16)(images=[picture], return_tensors="np")
    assert not output["depth_stats"].any()
    assert source.num_missing == 1


def test_viewing_rays_are_added_and_a_column_that_was_not_computed_is_refused(
    photos: Path, computed: dict[str, Path], engine_folder: Path
) -> None:
    from mvde.camera import Camera

    own, columns = PROCESSORS["qwen"](), ("mean", "ray_x", "ray_y")
    camera = Camera(80.0, 80.0, 50.0, 20.0, (40, 100))
    with DepthRuntime.load(engine_folder, camera=camera) as runtime:
        expected = DepthProcessor(own, runtime, columns=columns)(images=[photos / "a/wide.png"], camera=camera)
    stored = StoredStats(computed["qwen"], photos)
    found = DepthProcessor(own, stored, columns=columns)(images=[photos / "a/wide.png"], camera=camera)
    assert np.array_equal(found["depth_stats"][:, 1:], expected["depth_stats"][:, 1:])
    with pytest.raises(UsageError, match="without valid; compute them with --stats mean,var,grad,valid"):
        DepthProcessor(own, stored, columns=("mean", "valid"))(images=[photos / "a/wide.png"])


def test_metres_of_another_camera_are_refused(
    photos: Path, engine_folder: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    from mvde.camera import Camera

    rule = CameraRule(fov_deg=(90, 60))
    run(photos, engine_folder, tmp_path / "out", camera=rule, patches=ProcessorPatches(folders["qwen"]))
    record = tmp_path / "out/mvde-stats.json"
    record.write_text(record.read_text().replace('"depth_kind": "metric"', '"depth_kind": "metric_focal"'))
    source = StoredStats(tmp_path / "out", photos)
    assert source.depth_kind.has_canonical_camera
    processor = DepthProcessor(PROCESSORS["qwen"](), source)
    processor(images=[photos / "a/wide.png"], camera=rule((40, 100)))
    with pytest.raises(UsageError, match=r"computed with fx = 50, but its camera here has fx = 80 pixels"):
        processor(images=[photos / "a/wide.png"], camera=Camera(80.0, 80.0, 50.0, 20.0, (40, 100)))


def test_a_folder_without_a_processor_is_refused(photos: Path, engine_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (("absent", "but .*absent is none"), ("empty", "holds no processor")):
        with pytest.raises(UsageError, match=message):
            run(photos, engine_folder, tmp_path / "out", patches=ProcessorPatches(tmp_path / name))
    stretching((64, 64)).save_pretrained(tmp_path / "bare")
    with pytest.raises(UsageError, match="patch_size"):
        run(photos, engine_folder, tmp_path / "out", patches=ProcessorPatches(tmp_path / "bare"))
    assert not (tmp_path / "out").exists()
