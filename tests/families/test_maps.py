"""Maps of mvde's models against transformers' processor, model and post-processing, on one photograph.

The photograph has the network's size, where resizing is the identity: what differs is normalisation, axes, unit, the
choice of head and the size of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mvde.assets import sample_photos
from mvde.contract import DepthKind, FocalConvention, Interpolation
from mvde.errors import ResolutionError
from mvde.families import load_family_model
from tests.families.reference import reference_map

Save = Callable[[str], Path]

TOLERANCE = 2e-5
"""Largest |Δ| relative to the map's range. The same float32 network gives 1e-6; a mean or unit that is wrong, 1e-2."""

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "depth anything": ("depth-anything", {}, (56, 84)),
    "depth anything, metric": ("depth-anything-metric", {}, (84, 56)),
    "dpt": ("dpt", {"kind": DepthKind.INVERSE_RELATIVE}, (64, 64)),
    "dpt, hybrid": ("dpt-hybrid", {"kind": DepthKind.INVERSE_RELATIVE}, (64, 64)),
    "dpt, beit": ("dpt-beit", {"kind": DepthKind.INVERSE_RELATIVE}, (64, 96)),
    "dpt, swin": ("dpt-swin", {"kind": DepthKind.INVERSE_RELATIVE}, (64, 96)),
    "dpt, dinov2": ("dpt-dinov2", {"kind": DepthKind.METRIC}, (56, 84)),
    "glpn": ("glpn", {"kind": DepthKind.METRIC}, (64, 96)),
    "zoedepth": ("zoedepth", {"kind": DepthKind.METRIC}, (80, 112)),
    "zoedepth, kitti": ("zoedepth-two", {"kind": DepthKind.METRIC, "domain": "kitti"}, (80, 112)),
    "depth pro": ("depth-pro", {}, (128, 128)),
    "depth pro, metric": ("depth-pro", {"kind": DepthKind.METRIC}, (128, 128)),
    "tipsv2": ("tipsv2", {"kind": DepthKind.METRIC}, (56, 56)),
}


def photograph(size: tuple[int, int]) -> np.ndarray:
    """Photograph (H, W, 3), uint8, of ``size`` (H, W)."""
    with Image.open(sample_photos()[0]) as opened:
        return np.asarray(opened.convert("RGB").resize(size[::-1]))


def as_batch(photo: np.ndarray) -> torch.Tensor:
    """Images (1, 3, H, W), uint8."""
    return torch.from_numpy(photo.copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize("case", CASES)
def test_map_is_that_of_transformers_for_a_photograph(case: str, saved: Save) -> None:
    key, options, size = CASES[case]
    photo = photograph(size)
    expected = reference_map(saved(key), photo, **options)
    model = load_family_model(str(saved(key)), **options)
    actual = model.predict_depth(as_batch(photo))[0].numpy()
    spread = float(np.ptp(expected))
    assert spread > 0.01 * abs(expected).max(), "a constant map would hide every mistake"
    assert abs(actual - expected).max() <= TOLERANCE * spread
    model.mean.add_(0.02)  # a mean that is wrong by 2 % of the range is noticed
    assert abs(model.predict_depth(as_batch(photo))[0].numpy() - expected).max() > 10 * TOLERANCE * spread


@pytest.mark.parametrize("key", ["dpt", "dpt-hybrid", "depth-pro"])
def test_sizes_that_transformers_cannot_compute_are_refused(key: str, saved: Save) -> None:
    kind = None if key == "depth-pro" else DepthKind.INVERSE_RELATIVE
    model = load_family_model(str(saved(key)), kind=kind)
    match = "square images only" if key == "dpt" else "runs at .* only"
    with pytest.raises(ResolutionError, match=match):
        model.predict_depth(torch.rand(1, 3, 64, 96))
    with pytest.raises(ResolutionError, match=match):
        model.at_resolution((64, 96))


@pytest.mark.parametrize(("key", "resolution"), [("depth-anything", (84, 28)), ("dpt-beit", (32, 96))])
def test_at_a_fixed_resolution_position_embeddings_are_constants(
    key: str, resolution: tuple[int, int], saved: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = DepthKind.INVERSE_RELATIVE
    model = load_family_model(str(saved(key)), kind=kind)
    pixels = torch.randn(1, 3, *resolution)
    with torch.no_grad():
        expected = model.depth_from_pixels(pixels)
        fixed = model.at_resolution(resolution)
        channels: list[int] = []

        original = F.interpolate

        def recording(*args: Any, **kwargs: Any) -> torch.Tensor:
            channels.append(args[0].shape[1])
            return original(*args, **kwargs)

        monkeypatch.setattr(torch.nn.functional, "interpolate", recording)
        torch.testing.assert_close(fixed(pixels), expected)
        tokens = 24 if key == "depth-anything" else 2  # width of a token, or heads of the bias table
        assert channels
        assert tokens not in channels
        torch.testing.assert_close(model.depth_from_pixels(pixels), expected)  # the original still resamples
        assert tokens in channels
    shared = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in fixed.parameters()} <= shared


def test_descriptions_say_what_the_numbers_mean(saved: Save) -> None:
    relative = load_family_model(str(saved("depth-anything"))).describe()
    assert relative.depth_kind is DepthKind.INVERSE_RELATIVE
    assert relative.preprocess.fit == "letterbox"
    assert relative.preprocess.multiple == 14
    assert relative.preprocess.interpolation is Interpolation.BICUBIC
    assert relative.preprocess.bicubic_coefficient == -0.5
    assert relative.preprocess.mean == (0.485, 0.456, 0.406)
    metric = load_family_model(str(saved("depth-anything-metric"))).describe()
    assert (metric.depth_kind, metric.valid_range) == (DepthKind.METRIC, (0.0, 20.0))
    pro = load_family_model(str(saved("depth-pro"))).describe()
    assert (pro.depth_kind, pro.canonical_focal) == (DepthKind.INVERSE_CANONICAL, 1.0)
    assert pro.focal_convention is FocalConvention.HORIZONTAL
    assert not pro.preprocess.antialias
    bytes_in = load_family_model(str(saved("dpt-dinov2")), kind=DepthKind.METRIC).describe().preprocess
    assert bytes_in.pixel_range == 255
    assert bytes_in.mean == (123.675, 116.28, 103.53)
    glpn = load_family_model(str(saved("glpn")), kind=DepthKind.METRIC).describe()
    assert (glpn.preprocess.mean, glpn.preprocess.std, glpn.stats_patch) == ((0.0,) * 3, (1.0,) * 3, 16)


def test_the_field_of_view_tower_is_loaded_for_metres_only(saved: Save) -> None:
    from_camera, metric = (load_family_model(str(saved("depth-pro")), kind=kind) for kind in (None, DepthKind.METRIC))
    assert metric.num_encoder_weights() > 1.1 * from_camera.num_encoder_weights()
    images = torch.rand(1, 3, 128, 128)
    fov = metric.network.network(pixel_values=(images - 0.5) / 0.5).field_of_view
    focal = 0.5 / torch.tan(torch.deg2rad(fov) / 2)  # fx / W
    torch.testing.assert_close(metric.predict_depth(images), focal / from_camera.predict_depth(images))


def test_a_depth_anything_with_a_wrong_outer_patch_uses_the_backbones(saved: Save, tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "outer16"
    shutil.copytree(saved("depth-anything"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "patch_size": 16}))
    images = torch.rand(1, 3, 56, 84)
    changed, right = load_family_model(str(folder)), load_family_model(str(saved("depth-anything")))
    assert changed.patch_size == 14
    torch.testing.assert_close(changed.predict_depth(images), right.predict_depth(images))
