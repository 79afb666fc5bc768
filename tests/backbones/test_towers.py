"""Every tower of the table against transformers' own model, trained and exported; towers within language models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mvde.backbones.loading import pretrained_tower, random_tower  # noqa: E402
from mvde.backbones.tower import TowerBackbone, tokens_from_map  # noqa: E402
from mvde.config import Config, DecoderConfig, VitConfig  # noqa: E402
from mvde.errors import CheckpointError, ConfigError  # noqa: E402
from mvde.model import DepthModel  # noqa: E402

# Same weights and operations in float32; only summation order in the attention kernels differs.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
# NaFlex's linear layer sums 768 products in another order than a convolution: at most 2.9e-5 over eight seeds, of
# states up to 29 (7x5 patches). CLIP, DINOv3, DINOv2 with registers and with SwiGLU gave equal bits.
NAFLEX_TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP_PIXELS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
MLP = {"intermediate_size": 48}

# model_type: classes of transformers, changed sizes, preprocessor, side of a patch, tokens before the patches
TOWERS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], int, int]] = {
    "dinov2": ("Dinov2Model", "Dinov2Config", {"patch_size": 14, "image_size": 56}, IMAGENET, 14, 1),
    "dinov2_giant": (
        "Dinov2Model",
        "Dinov2Config",
        {"patch_size": 14, "image_size": 56, "use_swiglu_ffn": True},
        IMAGENET,
        14,
        1,
    ),
    "dinov2_with_registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {"patch_size": 14, "image_size": 56, "num_register_tokens": 4},
        IMAGENET,
        14,
        5,
    ),
    "dinov3_vit": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**MLP, "patch_size": 16, "image_size": 64, "num_register_tokens": 4},
        IMAGENET,
        16,
        5,
    ),
    "dinov3_vit_plus": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**MLP, "patch_size": 16, "image_size": 64, "num_register_tokens": 4, "use_gated_mlp": True},
        {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]},  # satellite images
        16,
        5,
    ),
    "siglip2_vision_model": (
        "Siglip2VisionModel",
        "Siglip2VisionConfig",
        {**MLP, "patch_size": 16, "num_patches": 16},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        16,
        0,
    ),
    "clip_vision_model": (
        "CLIPVisionModel",
        "CLIPVisionConfig",
        {**MLP, "patch_size": 14, "image_size": 56},
        CLIP_PIXELS,
        14,
        1,
    ),
}


def _randomized(model: Any) -> Any:
    """Give every vector and scale a value of its own: zeros and ones hide a lost or swapped one."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Directory of a small random tower with its preprocessor file, and transformers' model as reference."""
    made: dict[str, tuple[Path, Any]] = {}

    def save(name: str) -> tuple[Path, Any]:
        if name not in made:
            model_class, config_class, sizes, pixels, _, _ = TOWERS[name]
            config = getattr(transformers, config_class)(**{**SIZES, **sizes})
            model = _randomized(getattr(transformers, model_class)(config))
            path = tmp_path_factory.mktemp(name)
            model.save_pretrained(path)
            _write_preprocessor(path, **pixels)
            made[name] = path, model
        return made[name]

    return save


def _write_preprocessor(path: Path, **changed: Any) -> None:
    plain = {"do_normalize": True, "do_rescale": True, "rescale_factor": 0.00392156862745098, "resample": 3}
    (path / "preprocessor_config.json").write_text(json.dumps({**plain, **changed}))


def _reference_states(name: str, model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Hidden states of transformers' tower."""
    arguments: dict[str, Any] = {}
    if name == "clip_vision_model":
        arguments["interpolate_pos_encoding"] = True
    if name == "siglip2_vision_model":
        naflex = pytest.importorskip("transformers.models.siglip2.image_processing_pil_siglip2")
        shape = torch.tensor([[side // 16 for side in pixels.shape[2:]]] * len(pixels))
        pixels = torch.stack([_naflex_patches(naflex, image) for image in pixels])
        arguments = {"spatial_shapes": shape, "pixel_attention_mask": torch.ones(pixels.shape[:2], dtype=torch.long)}
    states: tuple[torch.Tensor, ...] = model(pixels, output_hidden_states=True, **arguments).hidden_states
    return states


def _naflex_patches(naflex: Any, image: torch.Tensor) -> torch.Tensor:
    """Patches (rows * columns, 16 * 16 * 3) of an image (3, H, W), by transformers' preprocessing."""
    return torch.from_numpy(naflex.convert_image_to_patches(image.numpy(), 16).copy())


def _depth_model(path: Path, resolution: tuple[int, int], pretrained: bool = True) -> DepthModel:
    torch.manual_seed(1)
    vit = VitConfig(str(path), (1, 2, 4), image_size=resolution, pretrained=pretrained)
    return DepthModel(Config("small", vit, DecoderConfig(c_dec=8, blocks=3)))


@pytest.mark.parametrize("grid", [(4, 4), (3, 6), (7, 5), (2, 2)])
@pytest.mark.parametrize("name", TOWERS)
def test_hidden_states_are_those_of_transformers(
    saved: Callable[[str], tuple[Path, Any]], name: str, grid: tuple[int, int]
) -> None:
    path, reference = saved(name)
    patch, num_prefix = TOWERS[name][4:]
    backbone, _ = pretrained_tower(str(path), (0, 1, 3, -1))
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, patch * grid[0], patch * grid[1])
    tolerance = NAFLEX_TOLERANCE if name == "siglip2_vision_model" else TOLERANCE
    fixed = backbone.eval().at_resolution((patch * grid[0], patch * grid[1]))
    with torch.no_grad():
        states = _reference_states(name, reference, pixels)
        for tower in (backbone, fixed):
            for tap, feature_map in zip((0, 1, 3, 4), tower(pixels), strict=True):
                assert feature_map.shape == (2, 32, *grid)
                torch.testing.assert_close(tokens_from_map(feature_map), states[tap][:, num_prefix:], **tolerance)


@pytest.mark.parametrize("name", TOWERS)
def test_pixels_are_normalised_as_the_preprocessor_file_says(
    saved: Callable[[str], tuple[Path, Any]], name: str
) -> None:
    path, _ = saved(name)
    preprocess = _depth_model(path, (112, 112)).describe().preprocess
    assert list(preprocess.mean) == pytest.approx(TOWERS[name][3]["image_mean"])
    assert list(preprocess.std) == pytest.approx(TOWERS[name][3]["image_std"])


@pytest.mark.parametrize("name", TOWERS)
def test_one_step_of_training_lowers_the_loss_and_reaches_every_weight(
    saved: Callable[[str], tuple[Path, Any]], name: str
) -> None:
    path, _ = saved(name)
    patch = TOWERS[name][4]
    model = _depth_model(path, (4 * patch, 3 * patch)).train()
    images = torch.randint(0, 256, (2, 3, 4 * patch, 3 * patch), dtype=torch.uint8)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = (model(images).log() - 1).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[1] < losses[0]
    assert not [key for key, weight in model.backbone.named_parameters() if weight.grad is None]


@pytest.mark.parametrize("name", TOWERS)
def test_a_saved_model_loads_without_the_towers_directory(
    saved: Callable[[str], tuple[Path, Any]], name: str, tmp_path: Path
) -> None:
    patch = TOWERS[name][4]
    model = _depth_model(saved(name)[0], (4 * patch, 3 * patch)).eval()
    model.save(tmp_path / "model.safetensors")
    loaded = DepthModel.load(tmp_path / "model.safetensors")
    images = torch.randint(0, 256, (1, 3, 5 * patch, 3 * patch), dtype=torch.uint8)
    assert torch.equal(loaded.predict_depth(images), model.predict_depth(images))


@pytest.mark.parametrize(
    "name",
    [
        "dinov2_with_registers",
        "dinov3_vit",
        *(
            pytest.param(name, marks=pytest.mark.extended)
            for name in ("dinov2", "siglip2_vision_model", "clip_vision_model")
        ),
    ],
)
def test_the_exported_graph_gives_the_depth_of_pytorch_in_onnx_runtime(
    saved: Callable[[str], tuple[Path, Any]], name: str, tmp_path: Path
) -> None:
    ort = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from mvde.export.graph.save import save_model
    from mvde.export.torch_graph import traced

    patch = TOWERS[name][4]
    resolution = (5 * patch, 3 * patch)
    model = _depth_model(saved(name)[0], resolution).eval()
    image = np.random.default_rng(5).integers(0, 256, (1, *resolution, 3), dtype=np.uint8)
    expected = model.predict_depth(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
    with traced(model, resolution, 1) as graph:
        save_model(graph, tmp_path / "model.onnx", {})
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert expected.max() / expected.min() > 1.05, "a constant depth would hide every mistake"
    np.testing.assert_allclose(session.run(None, {"image": image})[0], expected, rtol=1e-3)
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node}
    assert not operators & {"Cos", "Sin", "Expand", "Shape", "If"}, "positions and class tokens are constants"


@pytest.mark.parametrize("tower", ["clip_vision_model", "siglip_vision_model"])
def test_the_tower_of_a_llava_gives_its_features_without_a_word_about_the_rest(
    tmp_path: Path, tower: str, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = {"patch_size": 14, "image_size": 56, "model_type": tower}
    text = {"model_type": "llama", "vocab_size": 99, "num_key_value_heads": 2}
    config = transformers.LlavaConfig(
        vision_config={**SIZES, **MLP, **sizes}, text_config={**SIZES, **MLP, **text}, image_token_index=98
    )
    whole = _randomized(transformers.LlavaForConditionalGeneration(config))
    whole.save_pretrained(tmp_path)
    _write_preprocessor(tmp_path, **CLIP_PIXELS)
    capfd.readouterr()
    backbone, _ = pretrained_tower(str(tmp_path), (1, 3))
    assert capfd.readouterr() == ("", "")
    pixels = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        states = whole.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        features = backbone.eval()(pixels)[1]
    num_prefix = 1 if tower == "clip_vision_model" else 0
    torch.testing.assert_close(tokens_from_map(features), states[3][:, num_prefix:], **TOLERANCE)
    assert list(_depth_model(tmp_path, (56, 56)).describe().preprocess.mean) == pytest.approx(CLIP_PIXELS["image_mean"])


def test_a_side_of_the_tower_that_is_no_multiple_of_its_patch_is_cropped(tmp_path: Path) -> None:
    sizes = {**SIZES, **MLP, "patch_size": 14, "image_size": 64}  # 64 to 56, as 384 to 378
    reference = _randomized(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes)))
    reference.save_pretrained(tmp_path)
    backbone, _ = pretrained_tower(str(tmp_path), (4,))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        state = reference(pixels, output_hidden_states=True).hidden_states[4]
        torch.testing.assert_close(tokens_from_map(backbone.eval()(pixels)[0]), state, **TOLERANCE)
    model = _depth_model(tmp_path, (64, 64))
    assert model.config.vit.image_size == model.describe().sizing.size == (56, 56)
    assert model.predict_depth(torch.zeros(1, 3, 56, 56, dtype=torch.uint8)).shape == (1, 56, 56)


@pytest.mark.parametrize(
    ("changed", "mean", "std"),
    [
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, 0.5, 0.2),
        ({"rescale_factor": 2 / 255, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, 0.5, 0.5),
        ({"do_normalize": False}, 0.0, 1.0),
    ],
)
def test_other_scales_of_pixels_are_part_of_mean_and_deviation(
    saved: Callable[[str], tuple[Path, Any]], tmp_path: Path, changed: dict[str, Any], mean: float, std: float
) -> None:
    path = _copy(saved("dinov2")[0], tmp_path)
    _write_preprocessor(path, **{**IMAGENET, **changed})
    preprocess = _depth_model(path, (56, 56)).describe().preprocess
    assert (*preprocess.mean, *preprocess.std) == pytest.approx((mean,) * 3 + (std,) * 3)


def test_the_processor_file_of_newer_transformers_is_read(
    saved: Callable[[str], tuple[Path, Any]], tmp_path: Path
) -> None:
    path = _copy(saved("dinov2")[0], tmp_path)
    (path / "preprocessor_config.json").unlink()
    (path / "processor_config.json").write_text(json.dumps({"image_processor": CLIP_PIXELS}))
    assert list(_depth_model(path, (56, 56)).describe().preprocess.mean) == pytest.approx(CLIP_PIXELS["image_mean"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "cannot read .*config.json"),
        (lambda path: (path / "config.json").write_text('{"model_type": "bert"}'), "'bert', which is no tower.*dinov3"),
        (
            lambda path: (path / "config.json").write_text(
                '{"model_type": "blip", "vision_config": {"model_type": "blip_vision_model"}}'
            ),
            "'blip' with a tower 'blip_vision_model'",
        ),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "is a pickle, which can run"),
        (lambda path: (path / "model.safetensors").unlink(), "cannot load pretrained weights"),
        (lambda path: (path / "preprocessor_config.json").unlink(), "preprocessor_config.json does not exist"),
        (lambda path: _write_preprocessor(path, image_mean=[0.5]), "must be three numbers each"),
        (lambda path: _write_preprocessor(path, **IMAGENET, rescale_factor="1/255"), "rescale_factor must be"),
    ],
    ids=["no config", "another task", "another tower", "pickle", "no weights", "no pixels", "bad mean", "bad rescale"],
)
def test_a_directory_without_a_usable_tower_is_refused(
    saved: Callable[[str], tuple[Path, Any]], tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    path = _copy(saved("dinov2")[0], tmp_path)
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        _depth_model(path, (56, 56))


def test_a_name_that_the_hub_does_not_give_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise PermissionError("401: access to this model is restricted")

    monkeypatch.setattr("mvde.backbones.hub._query_hub", refuse)
    with pytest.raises(CheckpointError, match=r"facebook/dinov3.*restricted.*local directory"):
        pretrained_tower("facebook/dinov3-vits16-pretrain-lvd1689m", (1,))
    assert asked == ["facebook/dinov3-vits16-pretrain-lvd1689m"]


def test_a_checkpoint_of_an_unknown_tower_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'vjepa'; known are siglip_vision_model.*dinov3_vit"):
        random_tower({"model_type": "vjepa", "num_hidden_layers": 2}, (1,))


def test_a_structured_start_is_refused_for_dino() -> None:
    from mvde.pipelines.initialization import initialize_structured

    sizes = {**SIZES, "model_type": "dinov2", "patch_size": 14, "image_size": 56}
    backbone: TowerBackbone = random_tower(sizes, (1,))
    with pytest.raises(ConfigError, match="not for DINO"):
        initialize_structured(backbone, torch.zeros(1, 3, 56, 56))


def _copy(source: Path, target: Path) -> Path:
    path = target / "tower"
    path.mkdir()
    for file in source.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path
