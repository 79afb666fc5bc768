"""Configuration: frozen dataclasses loaded from YAML through OmegaConf; unknown or ill-typed keys are errors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mvde.errors import ConfigError
from mvde.omegaconf_errors import explain, names_of, omegaconf, omegaconf_errors
from mvde.resolution import parse_resolution
from mvde.value_checks import check_choice, check_not_negative, check_positive, check_share, check_within

if TYPE_CHECKING:
    from omegaconf import DictConfig

DEFAULT_TAPS = (-18, -12, -6, -2)


@dataclass(frozen=True)
class VitConfig:
    """The backbone: a vision tower and its taps.

    ``name`` is a hub name, a local directory, or one of the towers in ``mvde.backbones.sizes``. ``tap_layers`` index
    the tower's hidden states; negative indices count from the end. ``select_feature`` is ``"patch"``: SigLIP has no
    class token, so every token is a patch. ``image_size`` is the native resolution, ``[H, W]`` or one number for both.
    """

    name: str = "google/siglip-base-patch16-384"
    tap_layers: tuple[int, ...] = DEFAULT_TAPS
    select_feature: str = "patch"
    image_size: tuple[int, int] = (896, 896)
    pretrained: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "image_size")
        check_choice(self, "select_feature", "patch")


@dataclass(frozen=True)
class DecoderConfig:
    """The DPT decoder. ``c_dec`` is its width, ``blocks`` the number of fusion blocks; depths are in metres.

    ``canonical_focal`` is the relative focal length (see :mod:`mvde.camera`) that the depth output refers to. Labels
    from other cameras are converted to it in training, and predictions are converted back in evaluation. With ``None``
    labels are used as they are.
    """

    c_dec: int = 256
    blocks: int = 4
    scale_invariant: bool = False
    min_depth: float = 0.1
    max_depth: float = 10.0
    canonical_focal: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "c_dec", "min_depth", "max_depth")
        if not self.min_depth < self.max_depth:
            raise ConfigError(f"min_depth must be below max_depth: got {self.min_depth} and {self.max_depth} metres")
        if self.canonical_focal is None:
            return
        check_positive(self, "canonical_focal")
        if self.scale_invariant:
            raise ConfigError(
                f"canonical_focal is {self.canonical_focal}, but the depth of a scale-invariant model is not in "
                "metres; set it to null"
            )


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; depth is transformed together with the image."""

    flip: float = 0.5
    crop_min_scale: float = 0.7
    colour_jitter: float = 0.3

    def __post_init__(self) -> None:
        check_within(self, 0, 1, "flip", "colour_jitter")
        check_positive(self, "crop_min_scale")
        check_within(self, 0, 1, "crop_min_scale")


@dataclass(frozen=True)
class LossConfig:
    """Loss weights; a weight of 0 disables the term."""

    silog: float = 1.0
    silog_lambda: float = 0.85
    log_l1: float = 0.0
    l1: float = 0.0
    berhu: float = 0.0
    gradient: float = 0.5
    gradient_scales: int = 4

    def __post_init__(self) -> None:
        weights = ("silog", "log_l1", "l1", "berhu", "gradient")
        check_not_negative(self, *weights)
        check_within(self, 0, 1, "silog_lambda")
        check_positive(self, "gradient_scales")
        if not any(getattr(self, name) for name in weights):
            raise ConfigError(f"{', '.join(weights)}: every weight is 0, so there is nothing to learn from; set one")


@dataclass(frozen=True)
class StageConfig:
    """A training stage with its own resolutions, e.g. small images first.

    Each step draws one of ``res`` (``"224"``, ``"192x256"``). ``data`` overrides ``data.train``. ``supervise: tokens``
    trains only the tower, through a linear head on its last tokens; ``depth`` trains the whole model, and the decoder
    adapts to the tower again within a few hundred steps.
    """

    steps: int = 1000
    res: tuple[str, ...] = ("224",)
    batch_size: int = 4
    data: str | None = None
    supervise: str = "depth"

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size")
        check_choice(self, "supervise", "depth", "tokens")
        for size in self.res:
            if not isinstance(size, str):  # OmegaConf accepts a nested list
                raise ConfigError(f"res must list sizes like 192x256, but got {size!r}")
            parse_resolution(size)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation. ``res`` is the training resolution; ``lr`` is the decoder's learning rate.

    ``batch_size`` is global, divided among all processes; each computes its part in ``accumulation`` equal pieces and
    adds up their gradients, which takes less memory. ``stages``, if given, replace ``res``, ``batch_size`` and
    ``steps``. The learning rate rises over ``warmup_steps`` and decays by ``schedule`` over the last ``decay_steps``
    (0: from the end of the warm-up).
    """

    res: tuple[int, int] = (896, 896)
    freeze_backbone_steps: int = 2000
    lr: float = 1e-4
    backbone_lr_scale: float = 0.1
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    batch_size: int = 4
    accumulation: int = 1
    steps: int = 50_000
    schedule: str = "cosine"
    warmup_steps: int = 500
    decay_steps: int = 0
    beta2: float = 0.999
    clip_grad_norm: float = 1.0
    autocast: str = "bf16"
    ema_decay: float = 0.999
    num_workers: int = 2
    validate_every: int = 1000
    checkpoint_every: int = 1000
    log_every: int = 20
    seed: int = 0
    tracker: str = "tensorboard"
    init_checkpoint: str | None = None
    start: str = "random"
    stages: tuple[StageConfig, ...] = ()
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_positive(self, "lr", "batch_size", "accumulation", "steps", "res", "clip_grad_norm", "log_every")
        check_not_negative(self, "backbone_lr_scale", "weight_decay", "freeze_backbone_steps", "warmup_steps")
        check_not_negative(self, "decay_steps", "num_workers", "validate_every", "checkpoint_every", "seed")
        check_share(self, "beta2", "ema_decay")
        check_choice(self, "optimizer", "adamw", "muon")
        check_choice(self, "schedule", "cosine", "linear", "constant")
        check_choice(self, "autocast", "bf16", "none")
        check_choice(self, "start", "random", "structured")
        check_choice(self, "tracker", "tensorboard", "wandb", "none")

    def all_stages(self) -> tuple[StageConfig, ...]:
        """Stages in order; without ``stages``, a single one from ``res``, ``batch_size`` and ``steps``."""
        res = f"{self.res[0]}x{self.res[1]}"
        return self.stages or (StageConfig(steps=self.steps, res=(res,), batch_size=self.batch_size),)


@dataclass(frozen=True)
class DataConfig:
    """Paths of training and validation frames. ``mvde train --help`` lists the values of ``format``.

    For the format ``shards``: training frames are shuffled among ``shuffle_shards`` shards at a time, and a batch takes
    equal parts from each of ``lanes`` sets of shards, which processes divide among themselves.
    """

    format: str = "folder"
    train: str = "data/train"
    val: str | None = None
    depth_scale: float | None = None
    shuffle_shards: int = 16
    lanes: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "depth_scale", "shuffle_shards", "lanes")


@dataclass(frozen=True)
class Config:
    """Complete configuration; ``name`` also names the artefacts made from it."""

    name: str = "base"
    vit: VitConfig = field(default_factory=VitConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.decoder.blocks != len(self.vit.tap_layers):
            raise ConfigError(
                f"decoder.blocks must equal the number of taps: got {self.decoder.blocks} blocks "
                f"and {len(self.vit.tap_layers)} taps in vit.tap_layers"
            )

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of JSON types with every key present."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def load_config(source: Config | DictConfig | Mapping[str, Any] | str | Path) -> Config:
    """Load a validated :class:`Config` from a YAML file, an OmegaConf object, a mapping or a Config (returned as is).

    Missing keys take their defaults. Raises :class:`ConfigError` naming the key that is unknown, ill-typed or out of
    range, or the unreadable file.
    """
    if isinstance(source, Config):
        return source
    if isinstance(source, (str, Path)):
        return _validated(_read_yaml(Path(source)), str(source))
    return _validated(omegaconf().create(_plain(source)), "config")


def _validated(given: Any, where: str) -> Config:
    """Validate an OmegaConf object; ``where`` names it in errors."""
    oc = omegaconf()
    schema = oc.structured(Config)
    oc.set_readonly(schema, None)
    for node in _sections(schema):
        oc.set_readonly(node, None)
    _expand_square_sizes(given, where)
    try:
        _merge_stages(given, where)
        merged = oc.to_container(oc.merge(schema, given), resolve=True, throw_on_missing=True)
    except omegaconf_errors() as error:
        raise ConfigError(explain(error, where, schema, given)) from error
    try:
        return cast("Config", _instantiate(Config, merged))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def override_config(source: str | Path, assignments: Sequence[str]) -> Config:
    """Load a YAML configuration and apply assignments such as ``train.lr=1e-3`` (values are YAML).

    List elements are addressed by index: ``train.stages.0.steps=100``. Raises :class:`ConfigError` as
    :func:`load_config` does, and for malformed assignments.
    """
    import yaml

    given = _read_yaml(Path(source))
    failures: tuple[type[Exception], ...] = (yaml.YAMLError, *omegaconf_errors())
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not (key and equals):
            raise ConfigError(f"{assignment!r} is not an assignment; write KEY=VALUE, e.g. train.lr=1e-3")
        try:
            omegaconf().update(given, key, yaml.safe_load(text), force_add=True)
        except failures as error:
            raise ConfigError(f"cannot set {assignment!r}: {' '.join(str(error).split())}") from error
    return _validated(given, " ".join([str(source), *assignments]))


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        given = omegaconf().load(path)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not omegaconf().is_dict(given):
        raise ConfigError(f"{path} holds a list; a configuration is a mapping with the keys {names_of(Config)}")
    return given


def _plain(source: Any) -> Any:
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        return dataclasses.asdict(source)
    if omegaconf().is_dict(source):
        return omegaconf().to_container(source, resolve=True)
    if isinstance(source, Mapping):
        return dict(source)
    raise ConfigError(
        f"a configuration is a path, a mapping, an OmegaConf DictConfig or a mvde.config.Config, "
        f"but got {type(source).__name__}"
    )


def _sections(schema: Any) -> list[Any]:
    return [schema.vit, schema.decoder, schema.data, schema.train.loss, schema.train.augment, schema.train]


def _expand_square_sizes(given: Any, where: str) -> None:
    """Expand a size given as one number to a square."""
    for section, key in (("vit", "image_size"), ("train", "res")):
        node = given.get(section)
        size: Any = node.get(key) if omegaconf().is_dict(node) else None
        if type(size) is int:
            node[key] = [size, size]
        elif size is not None and not (omegaconf().is_list(size) and len(size) == 2):
            raise ConfigError(f"{where}: {section}.{key} must be one number or [height, width], but got {size!r}")


def _merge_stages(given: Any, where: str) -> None:
    """Validate each stage separately, because OmegaConf does not merge list elements with their schema."""
    oc = omegaconf()
    stages: Any = oc.select(given, "train.stages")
    if oc.is_list(stages):
        if not all(oc.is_dict(stage) for stage in stages):
            raise ConfigError(f"{where}: train.stages must be a list of mappings with the keys {names_of(StageConfig)}")
        given.train.stages = [_merged_stage(stage, number) for number, stage in enumerate(stages)]


def _merged_stage(stage: Any, number: int) -> Any:
    oc = omegaconf()
    try:
        return oc.to_container(oc.merge(oc.structured(StageConfig), stage))
    except omegaconf_errors() as error:
        error.full_key = f"train.stages[{number}].{getattr(error, 'full_key', '')}"  # type: ignore[attr-defined]
        raise


def _instantiate(kind: type[Any], plain: Mapping[str, Any], prefix: str = "") -> Any:
    """Build a dataclass of type ``kind``; ``prefix`` is the key of its section in errors."""
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(kind):
        value, key = plain[spec.name], f"{prefix}{spec.name}"
        default_factory: Any = spec.default_factory
        if isinstance(default_factory, type) and dataclasses.is_dataclass(default_factory):
            value = _instantiate(default_factory, value, f"{key}.")
        elif spec.name == "stages":
            value = [_instantiate(StageConfig, stage, f"{key}[{index}].") for index, stage in enumerate(value)]
        values[spec.name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error
