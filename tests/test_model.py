"""The depth model: inference, input validation and checkpoints."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from omegaconf import OmegaConf  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from mvde import checkpoint  # noqa: E402
from mvde.checkpoint import write_tensors  # noqa: E402
from mvde.config import Config, DecoderConfig, VitConfig, load_config  # noqa: E402
from mvde.errors import (  # noqa: E402
    CheckpointError,
    ConfigError,
    MvdeError,
    OutputError,
    ResolutionError,
    UsageError,
)
from mvde.model import DepthModel, DepthModelFactory  # noqa: E402

CONFIGS = Path(__file__).parents[1] / "configs"
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a small pretrained tower with its own normalisation."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tower"
    transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIZES)).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3}))
    return path


@pytest.fixture
def make(tower: Path) -> Callable[..., DepthModel]:
    """Factory of small models on that tower."""

    def model(pretrained: bool = False, **decoder: Any) -> DepthModel:
        torch.manual_seed(1)
        vit = VitConfig(str(tower), (1, 2, 3), image_size=(64, 64), pretrained=pretrained)
        return DepthModel(Config("small", vit, DecoderConfig(**{"c_dec": 8, "blocks": 3, **decoder}))).eval()

    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 48, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_metric_depth_has_the_size_of_the_image_and_stays_in_range(
    make: Callable[..., DepthModel], images: torch.Tensor
) -> None:
    depth_m = make(min_depth=0.5, max_depth=4.0)(images)
    assert depth_m.shape == (2, 48, 80)
    assert depth_m.dtype == torch.float32
    assert depth_m.min() >= 0.5
    assert depth_m.max() <= 4.0


def test_depth_for_another_camera_grows_with_its_focal_length(
    make: Callable[..., DepthModel], images: torch.Tensor, tmp_path: Path
) -> None:
    model = make(canonical_focal=0.8)
    canonical = model.predict_depth(images)
    model.set_camera(1.2)
    assert torch.allclose(model.predict_depth(images), 1.5 * canonical, rtol=1e-5)
    decoder = model.config.decoder
    assert (decoder.canonical_focal, decoder.min_depth, decoder.max_depth) == pytest.approx((1.2, 0.15, 15.0))
    model.save(tmp_path / "camera.safetensors")
    again = DepthModel.load(tmp_path / "camera.safetensors")
    assert torch.equal(again.predict_depth(images), model.predict_depth(images))
    again.set_camera(0.8)
    assert torch.allclose(again.predict_depth(images), canonical, rtol=1e-5)


def test_a_model_without_a_canonical_camera_cannot_be_given_another(make: Callable[..., DepthModel]) -> None:
    with pytest.raises(UsageError, match=r"'small' was trained without a canonical camera"):
        make().set_camera(1.0)


@pytest.mark.parametrize("focal", [0.0, -1.0, float("nan"), float("inf")])
def test_a_focal_length_that_is_none_leaves_the_model_alone(make: Callable[..., DepthModel], focal: float) -> None:
    model = make(canonical_focal=0.8)
    before = model.config
    with pytest.raises(UsageError, match="positive number"):
        model.set_camera(focal)
    assert model.config == before


def test_relative_depth_is_positive(make: Callable[..., DepthModel], images: torch.Tensor) -> None:
    assert (make(scale_invariant=True).predict_depth(images) > 0).all()


def test_bytes_and_unit_floats_are_the_same_image(make: Callable[..., DepthModel], images: torch.Tensor) -> None:
    model = make()
    torch.testing.assert_close(model.predict_depth(images), model.predict_depth(images.float() / 255))


def test_pixels_are_normalised_as_the_tower_was_trained(make: Callable[..., DepthModel], images: torch.Tensor) -> None:
    normal = make().normalize(images)
    expected = (images.double().numpy() / 255 - [[[[0.4]], [[0.5]], [[0.6]]]]) / 0.2
    torch.testing.assert_close(normal.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_prediction_keeps_no_gradients_and_restores_the_mode(
    make: Callable[..., DepthModel], images: torch.Tensor
) -> None:
    model = make().train()
    assert not model.predict_depth(images).requires_grad
    assert model.training
    assert model.backbone.training
    assert model(images).requires_grad


def test_every_parameter_learns(make: Callable[..., DepthModel], images: torch.Tensor) -> None:
    model = make().train()
    model(images).log().square().mean().backward()
    # The key bias adds a constant to all scores of a query, to which softmax is invariant.
    still = [
        name
        for name, parameter in model.named_parameters()
        if (parameter.grad is None or not parameter.grad.any()) and not name.endswith("k_proj.bias")
    ]
    assert not still


def test_patch_statistics_are_those_of_each_patch(make: Callable[..., DepthModel], images: torch.Tensor) -> None:
    model = make()
    depth_m = model.predict_depth(images)
    stats = model._compute_patch_stats(depth_m)
    assert stats.shape == (2, 15, 3)
    patch = depth_m[1, 16:32, 64:80].double()  # second patch row, last column: token 1 * 5 + 4
    assert stats[1, 9, 0].item() == pytest.approx(patch.mean().item(), rel=1e-5)
    assert stats[1, 9, 1].item() == pytest.approx(patch.var(correction=0).item(), rel=1e-3, abs=1e-9)
    assert torch.equal(stats, model.compute_patch_stats(depth_m))
    assert model.compute_patch_stats(depth_m, stats=("valid",)).unique().tolist() == [1.0]


def test_a_fixed_model_gives_the_same_depth(make: Callable[..., DepthModel], images: torch.Tensor) -> None:
    model = make()
    torch.nn.init.normal_(model.backbone.position.weight)
    fixed = model.at_resolution((48, 80))
    with torch.no_grad():
        assert torch.equal(fixed(model.normalize(images)), model(images))
    with pytest.raises(ResolutionError, match="50x80 is not a multiple of the patch size 16; use 48x80 or 64x80"):
        model.at_resolution((50, 80))


def test_the_exported_program_of_a_fixed_model_does_not_resample_positions(
    make: Callable[..., DepthModel], images: torch.Tensor
) -> None:
    model = make()
    pixels = model.normalize(images)
    program = torch.export.export(model.at_resolution((48, 80)), (pixels,))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("bilinear" in name for name in called)
    assert not [name for name in called if "bicubic" in name]
    assert any("scaled_dot_product_attention" in name for name in called)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((3, 48, 80), UsageError, r"\(B, 3, H, W\) RGB, but got \(3, 48, 80\)"),
        ((1, 1, 48, 80), UsageError, r"got \(1, 1, 48, 80\)"),
        ((1, 4, 48, 80), UsageError, r"got \(1, 4, 48, 80\)"),
        ((1, 48, 80, 3), UsageError, r"got \(1, 48, 80, 3\)"),
        ((1, 3, 47, 80), ResolutionError, "47x80 is not a multiple of the patch size 16; use 32x80 or 48x80"),
        ((1, 3, 0, 80), ResolutionError, "use 16x80"),
    ],
)
def test_images_of_another_shape_are_refused(
    make: Callable[..., DepthModel], shape: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((1, 3, 16, 16), 255.0), "got 255 to 255; divide 8-bit values by 255"),
        (torch.full((1, 3, 16, 16), -1.0), "got -1 to -1"),
        (torch.full((1, 3, 16, 16), float("nan")), "got nan to nan"),
        (torch.zeros((1, 3, 16, 16), dtype=torch.int64), "got torch.int64"),
        (torch.zeros((1, 3, 16, 16), dtype=torch.bool), "got torch.bool"),
    ],
)
def test_images_of_another_range_or_dtype_are_refused(
    make: Callable[..., DepthModel], image: torch.Tensor, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make()(image)


def test_a_checkpoint_brings_back_the_same_depth_and_configuration(
    make: Callable[..., DepthModel], images: torch.Tensor, tmp_path: Path
) -> None:
    model = make(pretrained=True)
    model.save(tmp_path / "model.safetensors")
    loaded = DepthModel.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded.predict_depth(images), model.predict_depth(images))
    assert loaded.config == model.config
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loaded.train()(images).sum().backward()  # no parameter is left on the meta device


def test_a_checkpoint_is_readable_by_whoever_may_read_new_files(
    make: Callable[..., DepthModel], tmp_path: Path
) -> None:
    make().save(tmp_path / "model.safetensors")
    (tmp_path / "new").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_half_precision_halves_the_file_and_loads_to_float32(
    make: Callable[..., DepthModel], images: torch.Tensor, tmp_path: Path
) -> None:
    model = make()
    model.save(tmp_path / "full.safetensors")
    model.save(tmp_path / "half.safetensors", dtype=torch.float16)
    header = 20_000  # upper bound on names and configuration, in bytes
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert half < full / 2 + header
    loaded = DepthModel.load(tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    # Weights have a relative error of up to 2^-11; the error in depth is of that order.
    torch.testing.assert_close(loaded.predict_depth(images), model.predict_depth(images), rtol=1e-2, atol=0)


def test_loading_a_checkpoint_asks_neither_the_hub_nor_the_tower_directory(
    tower: Path, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tower"
    copy.mkdir()
    for file in tower.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    model = DepthModelFactory.create_siglip_model(str(copy), 64, (1, 4), decoder_channels=8, decoder_blocks=2)
    model.save(tmp_path / "model.safetensors")
    for file in copy.iterdir():
        file.unlink()
    monkeypatch.setattr("mvde.model.pretrained_tower", None)
    monkeypatch.setattr("mvde.model.tower_spec", None)
    loaded = DepthModel.load(tmp_path / "model.safetensors")
    assert torch.equal(loaded.predict_depth(images), model.predict_depth(images))


def test_loading_repeats_no_warning_about_mapped_taps(tmp_path: Path) -> None:
    config = {"vit": {"name": "mvde/siglip-nano-patch16-224", "pretrained": False}, "decoder": {"c_dec": 8}}
    with pytest.warns(UserWarning, match="mapped") as caught:
        model = DepthModel(config)
    assert len(caught) == 1
    model.save(tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DepthModel.load(tmp_path / "model.safetensors").backbone.taps == model.backbone.taps


def test_pretrained_weights_are_those_of_the_directory(make: Callable[..., DepthModel], tower: Path) -> None:
    stored = load_file(tower / "model.safetensors")
    key = next(key for key in stored if key.endswith("layers.1.mlp.fc1.weight"))
    assert torch.equal(make(pretrained=True).backbone.layers[1].mlp.fc1.weight, stored[key])
    assert not torch.equal(make(pretrained=False).backbone.layers[1].mlp.fc1.weight, stored[key])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "there is no checkpoint"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a whole safetensors file"),
        (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
        (lambda path: path.write_bytes(b"PK\x03\x04 a pickle in a zip"), "not a whole safetensors file"),
        (lambda path: save_file(load_file(path), path), "has no checksum"),
        (lambda path: write_tensors(path, load_file(path), {}), "has no mvde configuration"),
        (lambda path: write_tensors(path, load_file(path), {"mvde": "{"}), "not valid JSON"),
        (lambda path: write_tensors(path, load_file(path), {"mvde": "{}"}), "lacks config, tower, mean, std"),
        (lambda path: _reconfigure(path, config={"vit": {"nmae": "x"}}), r"cannot use.*vit\.nmae"),
        (lambda path: _reconfigure(path, tower={}), "cannot use.*num_hidden_layers"),
    ],
    ids=[
        "missing",
        "truncated",
        "empty",
        "pickle",
        "foreign",
        "no configuration",
        "bad JSON",
        "empty metadata",
        "bad key",
        "no sizes",
    ],
)
def test_a_damaged_checkpoint_is_refused(
    make: Callable[..., DepthModel], tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "model.safetensors"
    make().save(path)
    damage(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        DepthModel.load(path)
    assert str(path) in str(caught.value)


def _reconfigure(path: Path, **changed: object) -> None:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["mvde"])
    write_tensors(path, load_file(path), {"mvde": json.dumps({**about, **changed})})


def test_weights_of_another_architecture_are_refused_by_name_and_shape(
    make: Callable[..., DepthModel], tmp_path: Path
) -> None:
    path = tmp_path / "wide.safetensors"
    make(c_dec=16).save(path)
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"decoder.fusion.0.lateral.conv1.bias is \(16,\) in the file, but \(8,\)"
    ):
        model.load_weights(path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_checkpoint_whose_tensors_are_not_those_of_its_configuration_is_refused(
    make: Callable[..., DepthModel], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    make().save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del tensors["backbone.layers.0.mlp.fc1.bias"]
    write_tensors(path, tensors, metadata)
    with pytest.raises(CheckpointError, match=r"backbone.layers.0.mlp.fc1.bias is absent in the file, but \(48,\)"):
        DepthModel.load(path)


def test_weights_of_the_same_architecture_are_taken(
    make: Callable[..., DepthModel], images: torch.Tensor, tmp_path: Path
) -> None:
    trained = make(pretrained=True)
    trained.save(tmp_path / "trained.safetensors")
    model = make(max_depth=20.0)
    model.load_weights(tmp_path / "trained.safetensors")
    assert torch.equal(model.backbone.position.weight, trained.backbone.position.weight)
    assert model.config.decoder.max_depth == 20.0


def test_a_failed_write_leaves_the_old_checkpoint(
    make: Callable[..., DepthModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    model = make()
    model.save(path)
    before = path.read_bytes()

    def full_disk(tensor: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_bytes_of", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_calls_of_the_readme_work_offline() -> None:
    with pytest.warns(UserWarning, match=r"mapped to \(-9, -6, -3, -1\)"):
        model = DepthModelFactory.create_siglip_model(
            model_name="google/siglip-base-patch16-384",
            image_size=896,
            tap_layers=(-18, -12, -6, -2),
            decoder_channels=16,
            decoder_blocks=4,
            pretrained=False,
        )
    assert model.backbone.taps == (4, 7, 10, 12)
    assert model.backbone.width == 768
    depth = model.predict_depth(torch.rand(1, 3, 64, 96))
    assert model._compute_patch_stats(depth).shape == (1, 24, 3)


def test_the_base_configuration_builds_the_base_model() -> None:
    config = OmegaConf.load(CONFIGS / "base.yaml")
    config.vit.pretrained = False
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        model = DepthModel(config)
    assert model.decoder.head[0].in_channels == 256
    assert model.backbone.position.weight.shape == (24 * 24, 768)
    assert len(model.backbone.layers) == 12


def test_the_large_configuration_drops_the_layer_past_its_deepest_tap() -> None:
    config = OmegaConf.load(CONFIGS / "so400m.yaml")
    config.vit.pretrained = False
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        model = DepthModel(config)
    assert model.patch_size == 14
    assert len(model.backbone.layers) == 26
    assert model.config.vit.image_size == (896, 896)


def test_the_model_that_ships_is_small_and_runs_at_its_native_resolution() -> None:
    config = load_config(CONFIGS / "nano.yaml")
    model = DepthModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 8_000_000
    assert model.predict_depth(torch.rand(1, 3, *config.vit.image_size)).shape == (1, *config.vit.image_size)


def test_models_that_do_not_hold_together_are_refused(tower: Path) -> None:
    with pytest.raises(ConfigError, match="9 is not among the 5 hidden states"):
        DepthModelFactory.create_siglip_model(str(tower), 64, (1, 9), decoder_blocks=2, pretrained=False)
    with pytest.raises(ConfigError, match="2 taps"):
        DepthModelFactory.create_siglip_model(str(tower), 64, (1, 2), decoder_blocks=4, pretrained=False)
    with pytest.raises(ResolutionError, match="use 64x64 or 80x80"):
        DepthModelFactory.create_siglip_model(str(tower), 70, (1, 2), decoder_blocks=2, pretrained=False)
    with pytest.raises(MvdeError, match=r"vit\.nmae"):
        DepthModel({"vit": {"nmae": "google/siglip-base-patch16-384"}})
