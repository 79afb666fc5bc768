"""The processor: the model's own output bit for bit, and depth_stats that follow every form of its call."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.errors import ImageError, UsageError
from mvde.stats import depth_to_patch_stats
from mvde.vlm import DepthConfig, add_depth
from mvde.vlm.config import CameraRule
from mvde.vlm.processor import DepthProcessor
from mvde.vlm.rows import PictureDepth
from tests.vlm.tiny_llava import PATCH, SIDE, depth_map, image_processor_of, llava_model, llava_processor, picture


def test_everything_but_depth_is_what_the_processor_itself_gives() -> None:
    processor = llava_processor()
    images, text = [picture(1), picture(2, (90, 50))], ["<image> which is nearer ?", "<image> a ?"]
    options: dict[str, Any] = {"return_tensors": "pt", "padding": True}
    expected = processor(images=images, text=text, **options)
    output = DepthProcessor(processor)(images=images, text=text, depth=[None, None], **options)
    assert set(output) == {*expected, "depth_stats"}
    assert all(torch.equal(output[key], value) for key, value in expected.items())
    assert output["depth_stats"].shape == (2, (SIDE // PATCH) ** 2, 3)
    assert not output["depth_stats"].any()


def test_rows_of_a_picture_at_the_towers_size_are_its_patch_statistics() -> None:
    depth = depth_map((SIDE, SIDE))
    columns = ("mean", "var", "grad", "min", "max", "valid")
    processor = DepthProcessor(llava_processor(), columns=columns)
    output = processor(images=picture(1, (SIDE, SIDE)), text="<image> ?", depth=depth, return_tensors="pt")
    assert torch.equal(output["depth_stats"], torch.from_numpy(depth_to_patch_stats(depth[None], PATCH, columns)))


def test_holes_stay_holes_and_a_patch_of_holes_is_zero() -> None:
    depth = depth_map((2 * SIDE, 2 * SIDE))
    depth[:32, :32] = np.nan
    depth[:32, 32:64] = np.inf
    depth[32:64, :16] = 0
    output = DepthProcessor(llava_processor(), columns=("mean", "valid"))(
        images=picture(1, depth.shape), text="<image> ?", depth=depth, return_tensors="np"
    )
    rows = output["depth_stats"][0].reshape(4, 4, 2)
    assert isinstance(output["depth_stats"], np.ndarray)
    assert np.isfinite(rows).all()
    assert not rows[0, :2].any()
    assert rows[1, 0, 1] == 0.5
    assert (rows[2:, :, 1] == 1).all()


def test_a_call_that_tiles_one_picture_and_not_two_is_replayed_as_a_whole() -> None:
    """LLaVA-OneVision tiles the picture of a text, but not several pictures of one text."""
    image_processor = image_processor_of(
        "LlavaOnevisionImageProcessor",
        size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[[SIDE, 2 * SIDE], [2 * SIDE, 2 * SIDE]],
    )
    output = DepthProcessor(image_processor, patch_size=PATCH, columns=("mean",))(
        images=[[picture(1, (100, 200))], [picture(2, (100, 200)), picture(3, (60, 60))]],
        depth=[[np.full((100, 200), 1.0)], [np.full((100, 200), 2.0), np.full((60, 60), 3.0)]],
        return_tensors="pt",
    )
    rows = output["depth_stats"]
    assert rows.shape[:2] == output["pixel_values"].shape[:2] == (3, 3)
    assert (rows[..., 0] > 0).any(-1).sum(1).tolist() == [3, 1, 1]
    assert [float(one[0].max()) for one in rows] == [1, 2, 3]


def test_options_that_a_processor_hands_to_its_image_processor_are_replayed() -> None:
    class Cropping:
        image_processor = image_processor_of("CLIPImageProcessor", crop_size={"height": 96, "width": 96})

        def __call__(self, images: Any, **options: Any) -> Any:
            return self.image_processor(images, size={"shortest_edge": 96}, **options)

    depth = np.zeros((96, 192), np.float32)
    depth[:, 48:144] = 1  # the centre crop
    output = DepthProcessor(Cropping(), patch_size=16, columns=("valid",))(
        images=[picture(1, (96, 192))], depth=depth, return_tensors="pt"
    )
    assert output["depth_stats"].shape == (1, 36, 1)
    assert (output["depth_stats"] == 1).all()


def test_sizes_are_traced_once_and_again_for_other_options() -> None:
    calls = []

    class Counting(type(image_processor_of("SiglipImageProcessor"))):  # type: ignore[misc]
        def __call__(self, images: Any, **options: Any) -> Any:
            calls.append(options)
            return super().__call__(images, **options)

    processor = DepthProcessor(Counting(size={"height": SIDE, "width": SIDE}), patch_size=PATCH)
    depth = depth_map((40, 60))
    for _ in range(3):
        processor(images=[picture(1, (40, 60))], depth=[depth])
    assert len(calls) == 3 + 3
    processor(images=[picture(1, (40, 60))], depth=[depth], size={"height": 32, "width": 32})
    assert len(calls) == 7 + 3


def test_viewing_rays_are_those_of_the_camera_at_the_centre_of_each_patch() -> None:
    camera = Camera(100.0, 120.0, 40.0, 30.0, (2 * SIDE, 2 * SIDE))
    depth = depth_map((2 * SIDE, 2 * SIDE))
    depth[:32, :32] = np.nan
    columns = ("ray_y", "mean", "ray_x")
    output = DepthProcessor(llava_processor(), columns=columns)(
        images=picture(1, depth.shape), text="<image> ?", depth=depth, camera=camera, return_tensors="np"
    )
    rows = output["depth_stats"][0].reshape(4, 4, 3)
    centres = (np.arange(4) + 0.5) * 32 - 0.5
    # Nearest-neighbour sampling of every second pixel shifts a centre by half a pixel at most.
    np.testing.assert_allclose(rows[1:, 1:, 2], np.tile((centres[1:] - 40) / 100, (3, 1)), atol=0.5 / 100 + 1e-6)
    np.testing.assert_allclose(rows[1:, 1:, 0].T, np.tile((centres[1:] - 30) / 120, (3, 1)), atol=0.5 / 120 + 1e-6)
    assert not rows[0, 0].any()
    with pytest.raises(UsageError, match="need the camera of each picture"):
        DepthProcessor(llava_processor(), columns=columns)(images=picture(1), text="<image> ?", depth=depth_map())
    with pytest.raises(UsageError, match="the camera is of frames of 128x128"):
        DepthProcessor(llava_processor(), camera=camera)(images=picture(1), text="<image> ?", depth=depth_map())


def test_text_alone_passes_through() -> None:
    output = DepthProcessor(llava_processor())(text="which is nearer ?", return_tensors="pt")
    assert set(output) == {"input_ids", "attention_mask"}


def test_a_chat_is_processed_as_by_the_processor_itself() -> None:
    processor = llava_processor()
    chat = [{"role": "user", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "nearer ?"}]}]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    expected = processor.apply_chat_template(chat, **options)
    output = DepthProcessor(processor).apply_chat_template(chat, depth=[depth_map()], **options)
    assert torch.equal(output["input_ids"], expected["input_ids"])
    assert torch.equal(output["pixel_values"], expected["pixel_values"])
    assert (output["depth_stats"][..., 0] > 0).all()
    assert DepthProcessor(processor).apply_chat_template(chat) == processor.apply_chat_template(chat)


def test_the_processor_of_a_model_has_its_patches_and_columns() -> None:
    model = add_depth(llava_model(), DepthConfig(columns=("mean", "valid"), hidden=8))
    processor = DepthProcessor.for_model(model, llava_processor())
    assert (processor.columns, processor.patch_size) == (("mean", "valid"), PATCH)
    batch = processor(images=picture(1), text="<image> ?", depth=depth_map(), return_tensors="pt")
    assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1]


def test_a_source_of_another_kind_than_the_models_is_refused() -> None:
    model = add_depth(llava_model(), DepthConfig(hidden=8))
    with pytest.raises(UsageError, match="takes depth of kind metric, but this source gives inverse_relative"):
        DepthProcessor.for_model(model, llava_processor(), Constant(DepthKind.INVERSE_RELATIVE))
    DepthProcessor.for_model(model, llava_processor(), Constant(DepthKind.METRIC_FOCAL))  # metres, too
    with pytest.raises(UsageError, match="add_depth"):
        DepthProcessor.for_model(llava_model(), llava_processor())


def test_depth_of_another_graph_than_the_models_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for graph, expected in (("0" * 64, 0), ("1" * 64, 1)):
        caplog.clear()
        model = add_depth(llava_model(), DepthConfig(hidden=8, graph_sha256=graph))
        DepthProcessor.for_model(model, llava_processor(), Constant(DepthKind.METRIC))
        assert len(caplog.records) == expected


def test_casting_a_batch_to_bfloat16_leaves_depth_in_float32() -> None:
    made = DepthProcessor(llava_processor())(
        images=picture(1), text="<image> ?", depth=depth_map(), return_tensors="pt"
    )
    rows, pixels = made["depth_stats"].clone(), made["pixel_values"].clone()
    batch = pickle.loads(pickle.dumps(made)).to("cpu", torch.bfloat16)
    assert torch.equal(batch["depth_stats"], rows)
    assert torch.equal(batch["pixel_values"], pixels.to(torch.bfloat16))


def test_the_configuration_of_a_model_follows_from_the_source() -> None:
    config = DepthProcessor(llava_processor(), Constant(DepthKind.INVERSE_RELATIVE), columns=("mean",)).config(hidden=8)
    assert (config.columns, config.depth_kind, config.unit) == (("mean",), DepthKind.INVERSE_RELATIVE, "1/u")
    assert (config.camera, config.graph_sha256, config.hidden) == (CameraRule.NONE, "0" * 64, 8)


def test_the_source_is_asked_for_each_picture_in_order(tmp_path: Path) -> None:
    picture(5).save(tmp_path / "five.png")
    source = Constant(DepthKind.METRIC)
    processor = DepthProcessor(llava_processor(), source, columns=("mean",))
    images = [picture(1, (30, 40)), tmp_path / "five.png", np.asarray(picture(2, (20, 20)))]
    output = processor(images=images, text=["<image> ?"] * 3, return_tensors="pt")
    assert source.sizes == [(30, 40), (48, 80), (20, 20)]
    assert output["depth_stats"][:, 0, 0].tolist() == [1, 2, 3]


def test_it_survives_a_loaders_workers() -> None:
    processor = DepthProcessor(llava_processor())
    expected = processor(images=picture(1), text="<image> ?", depth=depth_map(), return_tensors="pt")
    copied = pickle.loads(pickle.dumps(processor))
    output = copied(images=picture(1), text="<image> ?", depth=depth_map(), return_tensors="pt")
    assert torch.equal(output["depth_stats"], expected["depth_stats"])


def test_depth_that_does_not_fit_its_picture_is_refused_with_both_sizes() -> None:
    processor = DepthProcessor(llava_processor())
    call: dict[str, Any] = {"images": [picture(1), picture(2)], "text": ["<image> ?"] * 2}
    with pytest.raises(UsageError, match=r"is \(48, 81\) \(H, W\), but the picture is \(48, 80\); register"):
        processor(**call, depth=[depth_map(), depth_map((48, 81))])
    with pytest.raises(UsageError, match=r"2 pictures were given, but 1 depth maps"):
        processor(**call, depth=[depth_map()])
    with pytest.raises(UsageError, match=r"ndarray of uint16.*whole millimetres are depth / 1000"):
        processor(**call, depth=[depth_map(), np.ones((48, 80), np.uint16)])
    with pytest.raises(UsageError, match="no source to ask"):
        processor(**call)
    with pytest.raises(UsageError, match="2 pictures were given, but 3 cameras"):
        processor(**call, depth=[None, None], camera=[None] * 3)


def test_input_that_it_cannot_read_is_refused(tmp_path: Path) -> None:
    processor = DepthProcessor(llava_processor())
    with pytest.raises(ImageError, match=r"missing\.png"):
        processor(images=tmp_path / "missing.png", text="<image> ?", depth=[None])
    with pytest.raises(UsageError, match="is not a file; download the picture"):
        processor(images="https://example.org/room.jpg", text="<image> ?", depth=[None])
    with pytest.raises(ImageError, match="has dtype float64"):
        processor(images=np.zeros((8, 8, 3)), text="<image> ?", depth=[None])
    with pytest.raises(UsageError, match="give their frames as images"):
        processor(videos=[picture(1)], text="?")
    with pytest.raises(UsageError, match="depth was given without images"):
        processor(text="?", depth=[depth_map()])
    with pytest.raises(UsageError, match="needs a map of confidence"):
        DepthProcessor(llava_processor(), columns=("mean", "conf"))


class Constant:
    """Source whose depth is 1 in the first picture it is asked for, 2 in the second, and so on."""

    camera_rule = CameraRule.NONE
    graph_sha256 = "0" * 64

    def __init__(self, depth_kind: DepthKind) -> None:
        self.depth_kind = depth_kind
        self.sizes: list[tuple[int, int]] = []

    def depth_of(self, picture: Any, camera: Camera | None) -> PictureDepth:
        assert picture.pixels().shape == (*picture.size, 3)
        self.sizes.append(picture.size)
        return PictureDepth(np.full(picture.size, len(self.sizes), np.float32), camera)
