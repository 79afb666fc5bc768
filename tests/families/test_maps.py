"""Maps of mvde's models against transformers' processor, model and post-processing, on one photograph.

Where the photograph has the network's size, resizing is the identity: what differs is normalisation, axes, unit, the
choice of head and the size of the map. At another size, it is the resizing, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mvde.camera import Camera
from mvde.contract import DepthKind, FocalConvention, Interpolation
from mvde.errors import ResolutionError
from mvde.families import load_family_model
from mvde.pipelines.eval_depth import torch_predictor
from mvde.resampling import Resampling
from mvde.runtime.placement import depth_to_source, fit_image, place
from tests.families.cases import ALL_SHAPES, CASES, photograph, shape_name
from tests.families.reference import bilinear_reference, reference_map

Save = Callable[[str], Path]

TOLERANCE = 2e-5
"""Largest |Δ| relative to the map's range. The same float32 network gives 1e-6; a mean or unit that is wrong, 1e-2."""

ROUNDED_PIXELS = {"depth-pro": 8e-3, "tipsv2": 2e-3}
"""The same by model where pixels differ, measured 6e-3 and 6e-4: Depth Pro's processor resamples floating-point pixels,
which mvde rounds to bytes, and torch rounds TIPSv2's between its two passes in another order."""


def as_batch(photo: np.ndarray) -> torch.Tensor:
    """Images (1, 3, H, W), uint8."""
    return torch.from_numpy(photo.copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("name", "shape"),
    [pytest.param(*each, id=shape_name(*each), marks=pytest.mark.slow if each[1] else ()) for each in ALL_SHAPES],
)
def test_map_is_that_of_transformers_for_a_photograph(name: str, shape: int, saved: Save) -> None:
    case, (size, frame) = CASES[name], CASES[name].shapes[shape]
    photo = photograph(size)
    expected = reference_map(saved(case.model), photo, case, size)
    model = load_family_model(str(saved(case.model)), **case.options)
    actual = model.predict_depth(as_batch(photo))[0].numpy()
    spread = float(np.ptp(expected))
    assert spread > 0.01 * abs(expected).max(), "a constant map would hide every mistake"
    assert abs(actual - expected).max() <= TOLERANCE * spread

    photo = photograph(frame)
    of_network, expected = bilinear_reference(saved(case.model), photo, case, size)
    preprocess = model.describe().preprocess
    placement = place(frame, size, preprocess.fit, Resampling.of(preprocess))
    actual = model.predict_depth(as_batch(fit_image(photo, placement)))[0].numpy()
    tolerance = ROUNDED_PIXELS.get(case.model, TOLERANCE) * float(np.ptp(expected))
    assert abs(actual - of_network).max() <= tolerance
    assert abs(depth_to_source(actual, placement) - expected).max() <= tolerance

    model.mean.add_(0.02)  # a mean that is wrong by 2 % of the range is noticed
    wrong = model.predict_depth(as_batch(fit_image(photo, placement)))[0].numpy()
    assert abs(wrong - of_network).max() > 2 * tolerance


@pytest.mark.parametrize("name", ["depth anything", "dpt", "glpn", "depth pro", "tipsv2"])
def test_another_filter_than_the_authors_is_noticed(name: str, saved: Save) -> None:
    case, (size, frame) = CASES[name], CASES[name].shapes[0]
    photo = photograph(frame)
    expected, _ = bilinear_reference(saved(case.model), photo, case, size)
    model = load_family_model(str(saved(case.model)), **case.options)
    right = Resampling.of(model.describe().preprocess)
    is_bicubic = right.interpolation is Interpolation.BICUBIC
    others = [
        Resampling(antialias=not right.antialias),
        Resampling(interpolation=Interpolation.BICUBIC, bicubic_coefficient=-0.5 - 0.25 * is_bicubic),
    ]
    tolerance = ROUNDED_PIXELS.get(case.model, TOLERANCE) * float(np.ptp(expected))
    for other in others:
        pixels = fit_image(photo, place(frame, size, "stretch", other))
        assert abs(model.predict_depth(as_batch(pixels))[0].numpy() - expected).max() > 1.5 * tolerance, other


@pytest.mark.parametrize("name", ["depth anything", "glpn"])
def test_evaluation_prepares_frames_as_the_author_does(name: str, saved: Save) -> None:
    case, (size, frame) = CASES[name], CASES[name].shapes[0]
    model = load_family_model(str(saved(case.model)), **case.options)
    photo = photograph(frame)
    _, expected = bilinear_reference(saved(case.model), photo, case, size)
    (found,) = torch_predictor(model, size, model.describe())([photo], [None])
    assert abs(found - expected).max() <= TOLERANCE * float(np.ptp(expected))


def test_evaluation_takes_an_inverse_map_for_the_frames_camera(saved: Save) -> None:
    model = load_family_model(str(saved("depth-pro")))
    predict = torch_predictor(model, (256, 256), model.describe())
    photo = photograph((300, 400))
    camera = Camera(800, 800, 200, 150, (300, 400))  # twice the canonical focal length, which is the width
    assumed, known = predict([photo, photo], [None, camera])
    np.testing.assert_allclose(known, assumed / 2, rtol=1e-5)  # metres grow with the focal length, 1 / metres shrink


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


def test_nothing_beyond_the_position_embeddings_is_computed_to_fix_them(saved: Save) -> None:
    model = load_family_model(str(saved("depth-anything")))
    calls: list[str] = []
    network = model.network.network
    network.backbone.embeddings.register_forward_hook(lambda *_: calls.append("embeddings"))
    network.head.register_forward_hook(lambda *_: calls.append("head"))
    fixed = model.at_resolution((56, 84))
    assert calls == []
    fixed(torch.zeros(1, 3, 56, 84))
    assert calls == ["embeddings", "head"]


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
    images = as_batch(photograph((256, 256)))
    fov = metric.network.network(pixel_values=(images / 255 - 0.5) / 0.5).field_of_view
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
