"""Configurations: parsing, validation and error messages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("omegaconf")

from omegaconf import OmegaConf

from mvde.config import DEFAULT_TAPS, Config, DecoderConfig, StageConfig, TrainConfig, load_config, override_config
from mvde.errors import ConfigError, ResolutionError
from mvde.resolution import check_resolution, parse_resolution

CONFIGS = Path(__file__).parents[1] / "configs"


def _written(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["base", "nano", "so400m"])
def test_the_configurations_of_the_package_are_valid_and_name_themselves(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    assert config.name == name
    patch_size = int(config.vit.name.split("patch")[1].split("-")[0])
    check_resolution(config.vit.image_size, patch_size)


def test_base_yaml_keeps_the_keys_that_users_know() -> None:
    given = OmegaConf.load(CONFIGS / "base.yaml")
    for key in (
        "vit.name",
        "vit.tap_layers",
        "vit.select_feature",
        "vit.image_size",
        "decoder.c_dec",
        "decoder.blocks",
    ):
        assert OmegaConf.select(given, key) is not None, key
    for key in ("decoder.scale_invariant", "train.res", "train.freeze_backbone_steps", "train.lr"):
        assert OmegaConf.select(given, key) is not None, key


def test_missing_keys_take_their_defaults() -> None:
    config = load_config({"vit": {"pretrained": False}})
    assert config.vit.tap_layers == DEFAULT_TAPS
    assert config == dataclasses.replace(Config(), vit=dataclasses.replace(Config().vit, pretrained=False))


def test_a_mapping_an_omegaconf_object_a_file_and_a_config_are_read_alike(tmp_path: Path) -> None:
    given = {"name": "x", "vit": {"image_size": [64, 96]}, "train": {"lr": 1e-3}}
    config = load_config(given)
    path = _written(tmp_path, OmegaConf.to_yaml(OmegaConf.create(given)))
    assert load_config(OmegaConf.create(given)) == load_config(path) == load_config(str(path)) == config
    assert load_config(config) is config
    assert config.vit.image_size == (64, 96)


def test_one_number_means_a_square(tmp_path: Path) -> None:
    config = load_config(_written(tmp_path, "vit: {image_size: 448}\ntrain: {res: 224}"))
    assert config.vit.image_size == (448, 448)
    assert config.train.res == (224, 224)


def test_the_given_object_is_left_as_it_was() -> None:
    given = OmegaConf.create({"vit": {"image_size": 448}, "train": {"stages": [{"steps": 3}]}})
    before = OmegaConf.to_container(given)
    load_config(given)
    assert OmegaConf.to_container(given) == before


@pytest.mark.parametrize("name", ["base", "nano", "so400m"])
def test_a_configuration_survives_json(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    assert load_config(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"vti": {}}, "vti"),
        ({"vit": {"tap_layer": [1]}}, "vit.tap_layer"),
        ({"decoder": {"c_dek": 3}}, "decoder.c_dek"),
        ({"train": {"loss": {"silogg": 1.0}}}, "train.loss.silogg"),
        ({"train": {"stages": [{"steps": 1}, {"step": 1}]}}, "train.stages[1].step"),
        ({"train": {"stages": [{"supervise": None}]}}, "train.stages[0].supervise"),
        ({"train": {"stages": [{"res": [[96]]}]}}, "train.stages[0].res"),
        ({"decoder": {"c_dec": "wide"}}, "decoder.c_dec"),
        ({"decoder": {"scale_invariant": "perhaps"}}, "decoder.scale_invariant"),
        ({"decoder": {"c_dec": 25.5}}, "decoder.c_dec"),
        ({"vit": {"tap_layers": 3}}, "vit.tap_layers"),
        ({"vit": {"tap_layers": ["deep"]}}, "vit.tap_layers"),
        ({"vit": 3}, "vit"),
        ({"vit": {"image_size": "896"}}, "vit.image_size"),
        ({"vit": {"image_size": [1, 2, 3]}}, "vit.image_size"),
        ({"vit": {"image_size": [64, 0]}}, "vit.image_size"),
        ({"vit": {"image_size": [64, "wide"]}}, "vit.image_size"),
        ({"train": {"res": [64]}}, "train.res"),
        ({"train": {"lr": "fast"}}, "train.lr"),
        ({"train": {"lr": 0.0}}, "train.lr"),
        ({"train": {"batch_size": -1}}, "train.batch_size"),
        ({"train": {"schedule": "cosinus"}}, "train.schedule"),
        ({"train": {"stages": [{"steps": 0}]}}, "train.stages"),
        ({"train": {"stages": [7]}}, "train.stages"),
        ({"vit": {"select_feature": "cls"}}, "vit.select_feature"),
        ({"decoder": {"min_depth": 3.0, "max_depth": 2.0}}, "decoder.min_depth"),
        ({"decoder": {"canonical_focal": 0.0}}, "decoder.canonical_focal"),
        ({"decoder": {"canonical_focal": "wide"}}, "decoder.canonical_focal"),
        ({"decoder": {"canonical_focal": 0.9, "scale_invariant": True}}, "decoder.canonical_focal"),
        ({"decoder": {"blocks": 3}}, "decoder.blocks"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(given)
    message = str(caught.value)
    assert key in message
    assert "\n" not in message
    assert "$" not in message


OUT_OF_RANGE = {
    "decoder.min_depth": (0.0, -1.0),
    "decoder.max_depth": (0.0, -1.0),
    "decoder.canonical_focal": (0.0, -1.0),
    "train.lr": (0.0, -1e-3),
    "train.backbone_lr_scale": (-0.1,),
    "train.weight_decay": (-0.1,),
    "train.beta2": (-0.1, 1.0),
    "train.clip_grad_norm": (0.0, -1.0),
    "train.ema_decay": (-0.1, 1.0),
    "train.loss.silog": (-1.0,),
    "train.loss.silog_lambda": (-0.1, 1.1),
    "train.loss.log_l1": (-1.0,),
    "train.loss.l1": (-1.0,),
    "train.loss.berhu": (-1.0,),
    "train.loss.gradient": (-1.0,),
    "train.augment.flip": (-0.1, 1.1),
    "train.augment.crop_min_scale": (0.0, 1.1),
    "train.augment.colour_jitter": (-0.1, 50.0),
    "data.depth_scale": (0.0, -1.0),
}  # fmt: skip
"""Fields of type float; infinity and NaN are invalid for each."""

WHOLE_NUMBERS_OUT_OF_RANGE = {
    "train.freeze_backbone_steps": -1, "train.warmup_steps": -1, "train.decay_steps": -1, "train.num_workers": -1,
    "train.validate_every": -1, "train.checkpoint_every": -1, "train.log_every": 0, "train.seed": -1,
    "train.loss.gradient_scales": 0,
}  # fmt: skip


def _floats(section: type, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for spec in dataclasses.fields(section):
        factory: Any = spec.default_factory
        if dataclasses.is_dataclass(factory):
            found |= _floats(factory, f"{prefix}{spec.name}.")
        elif "float" in str(spec.type):
            found.add(f"{prefix}{spec.name}")
    return found


def test_the_table_of_wrong_numbers_is_whole() -> None:
    assert set(OUT_OF_RANGE) == _floats(Config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, text) for key in OUT_OF_RANGE for text in (".inf", "-.inf", ".nan")),
        *((key, str(value)) for key, values in OUT_OF_RANGE.items() for value in values),
        *((key, str(value)) for key, value in WHOLE_NUMBERS_OUT_OF_RANGE.items()),
    ],
)
def test_a_number_out_of_range_is_a_wrong_value(tmp_path: Path, key: str, value: str) -> None:
    path = _written(tmp_path, "name: x")
    with pytest.raises(ConfigError) as caught:
        override_config(path, [f"{key}={value}"])
    assert key.split(".")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_losses_that_are_all_left_out_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.loss\.silog.*every weight is 0"):
        load_config({"train": {"loss": {"silog": 0.0, "gradient": 0.0}}})


def test_values_are_checked_however_a_configuration_is_made() -> None:
    with pytest.raises(ConfigError, match="lr must be positive, but got 0"):
        TrainConfig(lr=0.0)
    with pytest.raises(ConfigError, match="supervise must be one of depth, tokens, but got 'all'"):
        StageConfig(supervise="all")
    with pytest.raises(ConfigError, match=r"decoder\.blocks must equal the number of taps: got 3 blocks and 4 taps"):
        Config(decoder=DecoderConfig(blocks=3))
    with pytest.raises(ConfigError, match=r"config: train\.stages\[1\]\.steps must be positive, but got 0"):
        load_config({"train": {"stages": [{"steps": 1}, {"steps": 0}]}})


def test_an_unknown_key_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    path = _written(tmp_path, "decoder: {c_dek: 3}")
    with pytest.raises(ConfigError, match=r"some\.yaml.*decoder\.c_dek.*known keys: c_dec, blocks"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not valid YAML"), ("- 1", "holds a list"), ("!!python/object:os.system {}", "not valid YAML")],
)
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_other_objects_are_refused() -> None:
    with pytest.raises(ConfigError, match="but got int"):
        load_config(3)  # type: ignore[arg-type]


def test_stages_stand_in_for_resolution_batch_and_steps() -> None:
    config = load_config({"train": {"res": [64, 96], "batch_size": 3, "steps": 7}})
    assert config.train.all_stages() == (StageConfig(steps=7, res=("64x96",), batch_size=3),)
    staged = load_config({"train": {"stages": [{"steps": 1, "res": ["96"]}, {"steps": 2, "res": ["128", "96x128"]}]}})
    assert [(stage.steps, stage.res) for stage in staged.train.all_stages()] == [(1, ("96",)), (2, ("128", "96x128"))]


def test_assignments_override_a_file(tmp_path: Path) -> None:
    path = _written(tmp_path, "train: {lr: 1.0e-3, stages: [{steps: 5}]}")
    config = override_config(path, ["train.lr=0.5", "vit.image_size=64", "train.stages.0.steps=9", "data.val=there"])
    assert (config.train.lr, config.vit.image_size) == (0.5, (64, 64))
    assert config.train.stages[0].steps == 9
    assert config.data.val == "there"
    with pytest.raises(ConfigError, match=r"\.yaml train\.lrr=0\.5: train\.lrr: "):
        override_config(path, ["train.lrr=0.5"])
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        override_config(path, ["train.lr"])


@pytest.mark.parametrize(
    ("text", "resolution"), [("896", (896, 896)), ("672x896", (672, 896)), ("672X896", (672, 896))]
)
def test_resolutions_are_height_by_width(text: str, resolution: tuple[int, int]) -> None:
    assert parse_resolution(text) == resolution


@pytest.mark.parametrize("text", ["", "x", "0", "-16", "1x2x3", "16.0", "16x", "x16", "896 px", "0x16"])
def test_other_texts_are_no_resolution(text: str) -> None:
    with pytest.raises(ResolutionError, match="is not understood"):
        parse_resolution(text)


@pytest.mark.parametrize("text", ["16385", "16x89600"])
def test_a_side_beyond_every_camera_is_refused_before_it_fills_the_memory(text: str) -> None:
    with pytest.raises(ResolutionError, match="at most 16384 pixels"):
        parse_resolution(text)


@pytest.mark.parametrize(
    ("resolution", "patch_size", "nearest"),
    [
        ((900, 900), 16, "896x896 or 912x912"),
        ((900, 896), 14, "896x896 or 910x896"),
        ((3, 16), 16, "use 16x16$"),
        ((0, 16), 16, "16x16"),
    ],
)
def test_the_nearest_resolutions_that_fit_are_named(resolution: tuple[int, int], patch_size: int, nearest: str) -> None:
    with pytest.raises(ResolutionError, match=nearest):
        check_resolution(resolution, patch_size)


def test_multiples_of_the_patch_fit() -> None:
    check_resolution((896, 672), 16)
    check_resolution((14, 28), 14)
