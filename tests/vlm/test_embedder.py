"""Tokens of patch statistics."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mvde.errors import UsageError  # noqa: E402
from mvde.vlm import DepthConfig, DepthEmbedder  # noqa: E402

COLUMNS = ("mean", "var", "grad", "valid", "ray_x")


def rows(*shape: int) -> torch.Tensor:
    """Plausible statistics (*shape, 5) of patches that all have depth."""
    generator = torch.Generator().manual_seed(0)
    stats = torch.rand(*shape, len(COLUMNS), generator=generator) + 0.1
    stats[..., 4] -= 0.6
    return stats


def ready(width: int = 8, dtype: torch.dtype = torch.float32) -> DepthEmbedder:
    """An embedder with moments, whose last layer is no longer zero."""
    torch.manual_seed(0)
    embedder = DepthEmbedder(COLUMNS, width, hidden=16).to(dtype)
    embedder.fit(rows(4, 25))
    torch.nn.init.normal_(embedder.layers[2].weight)
    return embedder


def test_tokens_are_those_of_the_formula() -> None:
    embedder, stats = ready(), rows(2, 3)
    values = stats.numpy().astype(np.float64)
    values[..., :3] = np.log(values[..., :3] + 1e-4)
    moments = rows(4, 25).numpy().astype(np.float64).reshape(-1, 5)
    moments[:, :3] = np.log(moments[:, :3] + 1e-4)
    values = (values - moments.mean(axis=0)) / moments.std(axis=0)
    first, _, last = embedder.layers
    hidden = values @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2)))
    expected = hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    np.testing.assert_allclose(embedder(stats).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_an_untrained_embedder_gives_zero_and_has_a_gradient() -> None:
    embedder = DepthEmbedder(COLUMNS, 8)
    tokens = embedder(rows(2, 3))
    assert torch.equal(tokens, torch.zeros(2, 3, 8))
    (tokens - 1).square().sum().backward()
    assert bool((embedder.layers[2].weight.grad != 0).any())


@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 3, 7)])
def test_every_shape_of_rows_gives_the_same_tokens(shape) -> None:
    embedder, stats = ready(), rows(*shape)
    tokens = embedder(stats)
    assert tokens.shape == (*shape, 8)
    torch.testing.assert_close(tokens.reshape(-1, 8), embedder(stats.reshape(1, -1, 5))[0])


def without_depth() -> dict[str, torch.Tensor]:
    all_zero = rows(2, 3)
    all_zero[0, 1] = 0
    zero_but_ray = rows(2, 3)
    zero_but_ray[0, 1, :4] = 0
    not_a_number = rows(2, 3)
    not_a_number[0, 1, 1] = float("nan")
    infinite = rows(2, 3)
    infinite[0, 1, 0] = float("inf")
    return {"all_zero": all_zero, "zero_but_ray": zero_but_ray, "not_a_number": not_a_number, "infinite": infinite}


@pytest.mark.parametrize("kind", without_depth())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_patch_without_depth_changes_no_bit_and_no_gradient(kind, dtype) -> None:
    embedder, stats = ready(dtype=dtype), without_depth()[kind]
    tokens = embedder(stats)
    image = torch.randn(2, 3, 8, dtype=dtype)
    image[0, 1, :2] = torch.tensor([-0.0, 0.0])
    added = image + tokens
    assert torch.equal(added[0, 1].view(torch.uint8), image[0, 1].view(torch.uint8))
    assert bool((tokens[0, 0] != 0).all())

    def gradient(rows_of: torch.Tensor) -> torch.Tensor:
        embedder.zero_grad()
        embedder(rows_of).float().square().sum().backward()
        return embedder.layers[0].weight.grad.clone()

    others = torch.cat([stats[0, :1], stats[0, 2:], stats[1]])
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(gradient(stats), gradient(others), rtol=tolerance, atol=tolerance)


def test_patches_without_depth_do_not_enter_the_moments() -> None:
    stats = rows(1, 50)
    one, other = ready(), ready()
    one.fit(stats)
    other.fit(torch.cat([stats, torch.zeros(1, 9, 5), torch.full((1, 2, 5), float("nan"))], dim=1))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.std, other.std)
    with pytest.raises(UsageError, match="no patch with depth"):
        one.fit(torch.zeros(1, 4, 5))


def test_a_constant_column_stays_finite() -> None:
    embedder = ready()
    stats = rows(1, 20)
    stats[..., 3] = 1
    embedder.fit(stats)
    assert bool(embedder(stats).isfinite().all())


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16().float()])
def test_moments_stay_in_fp32_when_a_model_is_cast(cast) -> None:
    embedder = ready()
    before = embedder.mean.clone(), embedder.std.clone()
    cast(torch.nn.Sequential(embedder))
    assert torch.equal(embedder.mean, before[0])
    assert torch.equal(embedder.std, before[1])


def test_bf16_tells_two_distances_apart_that_bf16_itself_does_not() -> None:
    near, far = rows(1, 1), rows(1, 1)
    near[..., 0], far[..., 0] = 4.0, 4.004
    assert near[..., 0].bfloat16() == far[..., 0].bfloat16()
    embedder = DepthEmbedder(COLUMNS, 8)
    scenes = rows(1, 30)
    scenes[..., 0] = 4 + 0.01 * scenes[..., 0]  # a narrow range: 0.1 % is a third of a deviation
    embedder.fit(scenes)
    embedder.to(torch.bfloat16)
    torch.nn.init.normal_(embedder.layers[2].weight)
    assert not torch.equal(embedder(near), embedder(far))


def test_autocast_agrees_with_fp32() -> None:
    embedder, stats = ready(), rows(2, 9)
    expected = embedder(stats)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = embedder(stats)
    assert bool(((tokens.float() - expected).abs() <= 0.02 * expected.abs().max()).all())  # 3 roundings to 8 bits


def test_a_copy_and_a_state_dict_are_bit_equal() -> None:
    embedder, stats = ready(), rows(2, 3)
    loaded = DepthEmbedder(COLUMNS, 8, hidden=16)
    loaded.load_state_dict(embedder.state_dict())
    assert torch.equal(loaded(stats), embedder(stats))
    assert torch.equal(copy.deepcopy(embedder)(stats), embedder(stats))


def test_rows_with_other_columns_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(\.\.\., N, 5\) with the columns mean, var.*but got \(2, 3, 4\)"):
        ready()(torch.rand(2, 3, 4))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": ("mean", "hue")}, r"unknown columns \['hue'\]; .*mean, var"),
        ({"columns": ("mean", "mean")}, "each may be there once"),
        ({"columns": ("var", "ray_x")}, "do not tell whether a patch has depth; add one of valid, mean"),
        ({"columns": ()}, "do not tell"),
        ({"hidden": 0}, "hidden must be a whole number of at least 1, but got 0"),
        ({"width": -3}, "width must be"),
        ({"depth_kind": "metres"}, "depth_kind is 'metres', but expected one of metric"),
        ({"camera": "mine"}, "camera is 'mine', but expected one of frame, canonical, none"),
        ({"unit": "mm"}, "unit is 'mm', but metric"),
        ({"graph_sha256": "abc"}, "64 hexadecimal digits"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(fields, message) -> None:
    with pytest.raises(UsageError, match=message):
        DepthConfig(**fields)


def test_a_configuration_survives_json() -> None:
    config = DepthConfig(columns=("mean", "valid"), depth_kind="inverse_relative", unit="1/u", graph_sha256="0" * 64)
    assert DepthConfig.from_dict(config.to_dict(), "config.json") == config


def test_depth_in_metres_of_a_calibrated_relative_model_is_accepted() -> None:
    assert DepthConfig(depth_kind="inverse_relative", unit="m").unit == "m"
