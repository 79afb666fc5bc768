"""Structured initialisation of a tower: whitened patch embedding, attention near the identity."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from mvde.backbones.loading import random_tower  # noqa: E402
from mvde.errors import ConfigError  # noqa: E402
from mvde.pipelines.initialization import initialize_structured, mimic_attention, whiten_patch_embedding  # noqa: E402


def smooth_pictures() -> torch.Tensor:
    """Images with correlated neighbouring pixels, in [-1, 1]."""
    torch.manual_seed(0)
    coarse = torch.rand(40, 3, 9, 9)
    noise = torch.rand(40, 3, 64, 64)
    return 2 * (0.8 * nn.functional.interpolate(coarse, size=64, mode="bilinear") + 0.2 * noise) - 1


def test_outputs_over_the_patches_are_centred_and_uncorrelated() -> None:
    embedding = nn.Conv2d(3, 12, 8, stride=8)
    pixels = smooth_pictures()
    whiten_patch_embedding(embedding, pixels)
    tokens = embedding(pixels).flatten(2).transpose(1, 2).flatten(0, 1)
    assert tokens.mean(dim=0).abs().max() < 1e-4
    covariance = torch.cov(tokens.T)
    variances = covariance.diagonal()
    assert (covariance - torch.diag(variances)).abs().max() < 2e-3
    assert variances.min() > 0.5
    assert variances.max() < 1.001


def test_the_start_is_the_same_every_time() -> None:
    first, second = nn.Conv2d(3, 12, 8, stride=8), nn.Conv2d(3, 12, 8, stride=8)
    for embedding in (first, second):
        whiten_patch_embedding(embedding, smooth_pictures())
    assert torch.equal(first.weight, second.weight)


def test_more_channels_than_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 12 channels"):
        whiten_patch_embedding(nn.Conv2d(3, 16, 2, stride=2), smooth_pictures())


def test_attention_starts_near_multiples_of_the_identity() -> None:
    torch.manual_seed(0)
    spec = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 3}
    backbone = random_tower({**spec, "patch_size": 8, "image_size": 32}, (1,))
    attention = backbone.layers[0].self_attn
    mimic_attention(attention)
    value_out = attention.out_proj.weight @ attention.v_proj.weight
    # Mean of 48 diagonal entries of -0.4 + 0.4 * N(0, 1 / 48): 0.1 is many standard deviations.
    assert value_out.diagonal().mean().item() == pytest.approx(-0.4, abs=0.1)
    assert (value_out - torch.diag(value_out.diagonal())).std().item() == pytest.approx(0.4 / 48**0.5, rel=0.1)
    for first in range(0, 48, 16):
        product = attention.q_proj.weight[first : first + 16].T @ attention.k_proj.weight[first : first + 16]
        assert product.diagonal().mean() > 2 * product.std()  # a third of the identity's rank is kept


def test_patches_attend_to_themselves_more_than_by_chance() -> None:
    torch.manual_seed(0)
    spec = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 3}
    backbone = random_tower({**spec, "patch_size": 8, "image_size": 64}, (1,))
    initialize_structured(backbone, smooth_pictures())
    backbone.set_attention("eager")
    tokens = backbone.patch_embedding(smooth_pictures()[:2]).flatten(2).transpose(1, 2) + backbone.position((8, 8))
    layer = backbone.layers[0]
    _, weights = layer.self_attn(layer.layer_norm1(tokens))
    assert weights.diagonal(dim1=-2, dim2=-1).mean() > 5 / 64
