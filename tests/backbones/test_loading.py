"""The tapped tower against transformers' SigLIP, and token order against feature maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from mvde.backbones.loading import (  # noqa: E402
    image_normalization,
    pretrained_tower,
    random_tower,
    tower_spec,
)
from mvde.backbones.sizes import NANO, TOWER_SIZES  # noqa: E402
from mvde.backbones.tower import TowerBackbone, map_from_tokens, tokens_from_map  # noqa: E402
from mvde.errors import CheckpointError, ConfigError, ResolutionError  # noqa: E402

# Same weights and operations in float32; only summation order in the attention kernels differs.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


class _CoordinatePosition(nn.Module):
    """Position "embedding" that writes a token's (row, column) into its first two channels."""

    def forward(self, grid: tuple[int, int]) -> torch.Tensor:
        return torch.tensor([[[row, column] for row in range(grid[0]) for column in range(grid[1])]]).float()


class _Unchanged(nn.Module):
    def forward(self, hidden: torch.Tensor, mask: None) -> torch.Tensor:
        return hidden


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (7, 1), (4, 4), (3, 5), (5, 3), (56, 42)])
def test_each_token_comes_back_at_its_own_coordinates(grid: tuple[int, int]) -> None:
    patch_embedding = nn.Conv2d(3, 2, kernel_size=4, stride=4)
    nn.init.zeros_(patch_embedding.weight)
    nn.init.zeros_(patch_embedding.bias)
    backbone = TowerBackbone(patch_embedding, _CoordinatePosition(), [_Unchanged(), _Unchanged()], (0, 1, 2))
    for feature_map in backbone(torch.zeros(2, 3, 4 * grid[0], 4 * grid[1])):
        assert feature_map.shape == (2, 2, *grid)
        for row in range(grid[0]):
            for column in range(grid[1]):
                assert feature_map[:, :, row, column].tolist() == [[row, column]] * 2


def test_a_patch_of_the_image_becomes_the_token_at_its_place() -> None:
    patch_embedding = nn.Conv2d(3, 1, kernel_size=4, stride=4, bias=False)
    nn.init.constant_(patch_embedding.weight, 1 / 48)
    image = torch.zeros(1, 3, 12, 20)
    image[:, :, 8:12, 4:8] = 1.0  # third patch row, second column
    tokens = tokens_from_map(patch_embedding(image))
    assert tokens.flatten().nonzero().item() == 2 * 5 + 1
    assert torch.equal(map_from_tokens(tokens, (3, 5)), patch_embedding(image))


@pytest.mark.parametrize("resolution", [(64, 64), (96, 160), (160, 96), (32, 48), (32, 32), (128, 128)])
def test_hidden_states_are_those_of_transformers(
    save_tower: Callable[..., tuple[Path, Any]], resolution: tuple[int, int]
) -> None:
    path, reference = save_tower()
    backbone, _ = pretrained_tower(str(path), (0, 1, 3, -1))
    pixels = torch.randn(2, 3, *resolution)
    with torch.no_grad():
        ours = backbone.eval()(pixels)
        states = reference(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    assert backbone.taps == (0, 1, 3, 4)
    for tap, feature_map in zip(backbone.taps, ours, strict=True):
        torch.testing.assert_close(tokens_from_map(feature_map), states[tap], **TOLERANCE)


def test_patch_14_towers_whose_side_is_no_multiple_of_14_are_those_of_transformers(
    save_tower: Callable[..., tuple[Path, Any]],
) -> None:
    path, reference = save_tower(patch_size=14, image_size=64)  # 4 patches of 14 make 56, as 27 make 378 of 384
    backbone, _ = pretrained_tower(str(path), (4,))
    pixels = torch.randn(1, 3, 70, 42)
    with torch.no_grad():
        state = reference(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[4]
        torch.testing.assert_close(tokens_from_map(backbone.eval()(pixels)[0]), state, **TOLERANCE)


@pytest.mark.parametrize("resolution", [(64, 64), (48, 96)])
def test_attention_for_training_gives_the_same_features(sizes: dict[str, Any], resolution: tuple[int, int]) -> None:
    backbone = random_tower(sizes, (4,))
    pixels = torch.randn(2, 3, *resolution)
    backbone.train()
    assert backbone.layers[0].self_attn.config._attn_implementation == "eager"
    trained = backbone(pixels)[0]
    backbone.eval()
    assert backbone.layers[0].self_attn.config._attn_implementation == "sdpa"
    torch.testing.assert_close(trained, backbone(pixels)[0], **TOLERANCE)


def test_only_the_vision_tower_of_a_whole_siglip_is_loaded(tmp_path: Path, sizes: dict[str, Any]) -> None:
    from transformers import SiglipConfig, SiglipModel, SiglipVisionModel

    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    whole = SiglipModel(SiglipConfig(vision_config=sizes, text_config={**text, "vocab_size": 99})).eval()
    whole.save_pretrained(tmp_path)
    backbone, spec = pretrained_tower(str(tmp_path), (2, 4))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tower = SiglipVisionModel.from_pretrained(
            tmp_path
        ).eval()  # in transformers 5.0, a part of a model has no states
        states = tower(pixels, output_hidden_states=True).hidden_states
        torch.testing.assert_close(tokens_from_map(backbone.eval()(pixels)[1]), states[4], **TOLERANCE)
    assert spec["num_hidden_layers"] == 4
    assert not [name for name, _ in backbone.named_parameters() if "text" in name or "head" in name]


def test_layers_past_the_deepest_tap_are_neither_kept_nor_run(
    save_tower: Callable[..., tuple[Path, Any]], sizes: dict[str, Any]
) -> None:
    path, _ = save_tower()
    for backbone in (pretrained_tower(str(path), (-4, -3))[0], random_tower(sizes, (1, 2))):
        assert backbone.taps == (1, 2)
        assert len(backbone.layers) == 2
        assert not [key for key in backbone.state_dict() if key.startswith(("layers.2", "post_layernorm", "head"))]


def test_a_fixed_backbone_gives_the_same_and_refuses_other_grids(sizes: dict[str, Any]) -> None:
    backbone = random_tower(sizes, (2, 4)).eval()
    nn.init.normal_(backbone.position.weight)
    fixed = backbone.at_resolution((48, 80))
    pixels = torch.randn(1, 3, 48, 80)
    for ours, theirs in zip(fixed(pixels), backbone(pixels), strict=True):
        assert torch.equal(ours, theirs)
    assert fixed.layers[0] is backbone.layers[0]
    assert not list(fixed.position.parameters())
    with pytest.raises(ResolutionError, match="3x5, but got 5x3"):
        fixed(torch.randn(1, 3, 80, 48))
    with pytest.raises(ResolutionError, match="48x80 or 64x80"):
        backbone.at_resolution((50, 80))


def test_every_known_tower_holds_together_and_gets_its_name_right() -> None:
    from transformers import SiglipVisionConfig

    for name, spec in TOWER_SIZES.items():
        assert f"patch{spec['patch_size']}-{spec['image_size']}" in name
        assert spec["hidden_size"] % spec["num_attention_heads"] == 0
        assert SiglipVisionConfig(**spec).hidden_size == spec["hidden_size"]
        assert tower_spec(name) == spec


def test_the_tower_trained_from_scratch_starts_with_positions_that_tell_near_from_far() -> None:
    position = random_tower(TOWER_SIZES[NANO], (6,)).position.weight.detach()
    side = 14
    similarity = torch.nn.functional.cosine_similarity(position[:1], position).reshape(side, side)
    assert similarity.argmax() == 0
    assert similarity[0, 1] > similarity[0, 4] > similarity[0, 12] - 0.2
    torch.testing.assert_close(similarity, similarity.T)  # symmetric in rows and columns


def test_an_unknown_tower_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match="google/siglip-base-patch16-384"):
        tower_spec("google/siglip-bass-patch16-384")


def test_weights_that_cannot_be_had_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvde.backbones.hub._query_hub", _unreachable)
    with pytest.raises(CheckpointError, match=r"google/siglip2-base-patch16-256.*no network.*pretrained=False"):
        pretrained_tower("google/siglip2-base-patch16-256", (12,))
    with pytest.raises(CheckpointError, match="has no pretrained weights of its own"):
        pretrained_tower(NANO, (6,))


def _unreachable(name: str) -> None:
    raise ConnectionError("no network")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "cannot read .*config.json"),
        (lambda path: (path / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda path: (path / "config.json").write_text('{"model_type": "vitdet"}'), "'vitdet', which is no tower"),
        (lambda path: (path / "model.safetensors").unlink(), "cannot load pretrained weights"),
        (lambda path: (path / "model.safetensors").write_bytes(b"\x10\x00"), "cannot load pretrained weights"),
        (lambda path: _drop_tensor(path / "model.safetensors"), "lacks 1 of the model's weights"),
    ],
    ids=["no config", "bad config", "another model", "no weights", "truncated weights", "missing tensor"],
)
def test_a_damaged_directory_is_refused(
    save_tower: Callable[..., tuple[Path, Any]], damage: Callable[[Path], object], message: str
) -> None:
    path, _ = save_tower()
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        pretrained_tower(str(path), (4,))


def _drop_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors[next(key for key in tensors if key.endswith("layers.1.mlp.fc1.weight"))]
    save_file(tensors, path, metadata={"format": "pt"})


def test_normalisation_is_read_from_a_local_directory(tmp_path: Path) -> None:
    assert image_normalization("google/siglip-base-patch16-384", {}) == ((0.5,) * 3, (0.5,) * 3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.5, 0.6]}))
    assert image_normalization(str(tmp_path), {}) == ((0.4, 0.5, 0.6), (0.5,) * 3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_std": [0.0, 0.5, 0.6]}))
    with pytest.raises(CheckpointError, match="image_std"):
        image_normalization(str(tmp_path), {})
