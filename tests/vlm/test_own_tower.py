"""Depth of a model's own tower: one pass for both, with the bits of the depth model run apart."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvde.camera import Camera
from mvde.config import Config, DecoderConfig, VitConfig
from mvde.errors import UsageError
from mvde.model import DepthModel
from mvde.stats import depth_to_patch_stats
from mvde.vlm import DepthConfig, add_depth, embedder_of
from mvde.vlm.config import CameraRule
from mvde.vlm.own_tower import OwnTower
from mvde.vlm.processor import DepthProcessor
from tests.vlm.tiny_llava import PATCH, SIDE, depth_map, image_processor_of, llava_model, llava_processor, picture

CANONICAL = 0.75
COLUMNS = ("mean", "var", "grad", "ray_x", "valid")


@pytest.fixture
def llava() -> Any:
    return add_depth(llava_model(num_layers=3), DepthConfig(columns=COLUMNS, hidden=8)).eval()


@pytest.fixture
def depth_model(llava: Any, tmp_path: Path) -> DepthModel:
    """Depth model with a random decoder on the tower of the LLaVA, loaded as training loads it."""
    llava.model.vision_tower.save_pretrained(tmp_path / "tower")
    vit = VitConfig(str(tmp_path / "tower"), (0, 1, 2, 3), image_size=(SIDE, SIDE), pretrained=True)
    decoder = DecoderConfig(16, 4, canonical_focal=CANONICAL)
    torch.manual_seed(1)
    return DepthModel(Config(name="own", vit=vit, decoder=decoder)).eval()


def test_the_rows_are_those_of_the_depth_model_run_apart_bit_for_bit(llava: Any, depth_model: DepthModel) -> None:
    processor = processor_of(llava, depth_model)
    cameras = [Camera(60, 90, 47.5, 31.5, (64, 96)), Camera(72, 48, 47.5, 31.5, (64, 96))]
    batch = processor(
        images=[picture(1, (64, 96)), picture(2, (64, 96))],
        text=["<image> ?", "<image> ?"],
        camera=cameras,
        return_tensors="pt",
    )
    passes: list[int] = []
    llava.model.vision_tower.register_forward_hook(lambda *_: passes.append(1))
    got = rows_that_reach_the_embedder(llava, batch)
    assert len(passes) == 1
    with torch.no_grad():
        depth = depth_model.depth_from_pixels(batch["pixel_values"])
    # The first camera's focal lengths at the input of 64x64 pixels are 60 * 64 / 96 and 90, over a canonical 0.75 of
    # the input; the second is the canonical one.
    factors = torch.tensor([(40 * 90) ** 0.5 / SIDE / CANONICAL, 1.0])
    expected = depth_to_patch_stats(depth * factors[:, None, None], PATCH, ("mean", "var", "grad", "valid"))
    assert torch.equal(got[..., [0, 1, 2, 4]], expected)
    assert torch.equal(got[0, :4, 3] > 0, torch.tensor([False, False, True, True]))


def test_generate_and_a_copy_of_the_model_have_the_same_depth(llava: Any, depth_model: DepthModel) -> None:
    train_a_little(llava)
    processor = processor_of(llava, depth_model)
    batch = processor(images=picture(1), text="<image> which ?", camera=camera(), return_tensors="pt")
    with torch.no_grad():
        expected = llava(**batch).logits
        without = llava(**{**batch, "depth_stats": torch.zeros_like(batch["depth_stats"])}).logits
        assert not torch.equal(expected, without)
        assert torch.equal(copy.deepcopy(llava)(**batch).logits, expected)
        answer = llava.generate(**batch, max_new_tokens=1, do_sample=False)
        beams = llava.generate(**batch, max_new_tokens=1, num_beams=2, do_sample=False)
    assert answer[0, -1] == expected[0, -1].argmax()
    assert beams[0, -1] == expected[0, -1].argmax()


def test_given_depth_takes_the_place_of_the_towers(llava: Any, depth_model: DepthModel) -> None:
    processor = processor_of(llava, depth_model)
    call: dict[str, Any] = {"text": ["<image> ?"] * 2, "camera": [camera()] * 2, "return_tensors": "pt"}
    given = processor(images=[picture(1), picture(2)], depth=[depth_map(), None], **call)
    assert torch.equal(rows_that_reach_the_embedder(llava, given), given["depth_stats"])
    own = processor(images=[picture(1), picture(2)], **call)
    mixed = torch.stack([given["depth_stats"][0], own["depth_stats"][1]])
    got = rows_that_reach_the_embedder(llava, {**given, "depth_stats": mixed})
    assert torch.equal(got[0], given["depth_stats"][0])
    assert torch.equal(got[1], rows_that_reach_the_embedder(llava, own)[1])


def test_depth_trains_the_embedder_and_nothing_of_the_tower(llava: Any, depth_model: DepthModel) -> None:
    train_a_little(llava)
    processor = processor_of(llava, depth_model)
    batch = processor(images=picture(1), text="<image> which ?", camera=camera(), return_tensors="pt")
    llava.train()(**batch, labels=batch["input_ids"]).loss.backward()
    assert all(bool(weight.grad.abs().sum() > 0) for weight in embedder_of(llava).parameters())
    assert all(weight.grad is None for weight in depth_model.decoder.parameters())


def test_padding_has_no_depth(llava: Any, depth_model: DepthModel) -> None:
    padding = image_processor_of(
        "LlavaImageProcessor",
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        do_pad=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = llava_processor()
    processor.image_processor = padding
    made = DepthProcessor.for_model(llava, processor, OwnTower(llava, depth_model, processor))
    wide = made(images=picture(1, (32, 64)), text="<image> ?", camera=camera((32, 64)), return_tensors="pt")
    valid = rows_that_reach_the_embedder(llava, wide)[0, :, 4].reshape(4, 4)
    assert valid[:, 0].tolist() == [0, 1, 1, 0]


def test_after_detaching_no_patch_has_depth(llava: Any, depth_model: DepthModel) -> None:
    train_a_little(llava)
    processor = processor_of(llava, depth_model)
    batch = processor(images=picture(1), text="<image> which ?", camera=camera(), return_tensors="pt")
    processor.source.detach()
    with torch.no_grad():
        none = {**batch, "depth_stats": torch.zeros_like(batch["depth_stats"])}
        assert torch.equal(llava(**batch).logits, llava(**none).logits)


def test_it_loads_a_checkpoint_and_the_model_records_its_hash(
    llava: Any, depth_model: DepthModel, tmp_path: Path
) -> None:
    depth_model.save(tmp_path / "depth.safetensors")
    source = OwnTower.load(llava, tmp_path / "depth.safetensors", llava_processor())
    config = DepthProcessor(llava_processor(), source).config()
    assert config.graph_sha256 == source.graph_sha256
    assert len(str(source.graph_sha256)) == 64
    assert (config.camera, str(config.depth_kind)) == (CameraRule.FRAME, "metric_focal")


def test_a_tower_with_other_weights_or_of_another_kind_is_refused(llava: Any, depth_model: DepthModel) -> None:
    with torch.no_grad():
        llava.model.vision_tower.get_parameter(a_weight(llava)).add_(1e-3)
    with pytest.raises(UsageError, match=r"layers\.0\..* differs; train the depth model on this model's tower"):
        OwnTower(llava, depth_model, llava_processor())
    llava.model.vision_tower.config.model_type = "pixtral"
    with pytest.raises(UsageError, match="is a pixtral, but depth of a model's own tower needs one of"):
        OwnTower(llava, depth_model, llava_processor())


def test_another_normalisation_is_refused(llava: Any, depth_model: DepthModel) -> None:
    processor = llava_processor()
    processor.image_processor.image_mean = [0.4, 0.5, 0.5]
    with pytest.raises(UsageError, match="image_mean is"):
        OwnTower(llava, depth_model, processor)


def test_a_picture_that_the_model_sees_in_tiles_is_refused(llava: Any, depth_model: DepthModel) -> None:
    source = OwnTower(llava, depth_model, llava_processor())
    tiling = image_processor_of(
        "LlavaNextImageProcessor",
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[[SIDE, 2 * SIDE]],
    )
    with pytest.raises(UsageError, match="sees picture 0 as 3 tiles, but depth of its own tower is that of whole"):
        DepthProcessor(tiling, source, patch_size=PATCH)(images=[picture(1)], return_tensors="pt")


def processor_of(llava: Any, depth_model: DepthModel) -> DepthProcessor:
    own = llava_processor()
    return DepthProcessor.for_model(llava, own, OwnTower(llava, depth_model, own))


def rows_that_reach_the_embedder(llava: Any, batch: Any) -> Tensor:
    rows: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows.append(args[0])

    handle = embedder_of(llava).register_forward_pre_hook(keep)
    with torch.no_grad():
        llava(**batch)
    handle.remove()
    (found,) = rows
    return found


def train_a_little(llava: Any) -> None:
    """Give the embedder weights that move the logits."""
    torch.manual_seed(2)
    with torch.no_grad():
        embedder_of(llava).layers[2].weight.normal_(std=0.5)


def camera(size: tuple[int, int] = (48, 80)) -> Camera:
    return Camera.from_fov(60, None, size)


def a_weight(llava: Any) -> str:
    return next(name for name, _ in llava.model.vision_tower.named_parameters() if "layers.0.mlp" in name)


def test_a_training_step_without_depth_leaves_the_rows_alone(llava: Any, depth_model: DepthModel) -> None:
    processor = processor_of(llava, depth_model)
    batch = dict(processor(images=picture(1), text="<image> which ?", camera=camera(), return_tensors="pt"))
    del batch["depth_stats"]
    with torch.no_grad():
        expected = llava(**batch).logits
    assert torch.equal(llava(**batch).logits, expected)  # gradients are on: the pass is remembered for its backward one
