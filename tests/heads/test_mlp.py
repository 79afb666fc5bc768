"""Projection of patch statistics to tokens."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from mvde.errors import UsageError  # noqa: E402
from mvde.heads.mlp import PatchStatsProjector  # noqa: E402
from mvde.stats import depth_to_patch_stats  # noqa: E402


def _stats(seed: int = 0) -> torch.Tensor:
    depth_m = torch.rand(2, 64, 96, generator=torch.Generator().manual_seed(seed)) * 5 + 0.2
    return depth_to_patch_stats(depth_m, patch_size=16)


def test_each_patch_becomes_one_token_that_depends_on_it_alone() -> None:
    projector = PatchStatsProjector(num_stats=3, token_width=20)
    stats = _stats()
    tokens = projector(stats)
    assert tokens.shape == (2, 24, 20)
    stats[:, 5] *= 2
    changed = (projector(stats) != tokens).any(dim=-1)
    assert changed.nonzero()[:, 1].tolist() == [5, 5]


def test_fitting_standardises_each_column() -> None:
    projector = PatchStatsProjector(num_stats=3, token_width=8)
    stats = _stats()
    projector.fit(stats)
    seen: list[torch.Tensor] = []
    projector.layers.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    projector(stats)
    torch.testing.assert_close(seen[0].mean(dim=(0, 1)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].std(dim=(0, 1), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_moments_travel_with_the_weights() -> None:
    fitted = PatchStatsProjector(3, 8)
    fitted.fit(_stats())
    other = PatchStatsProjector(3, 8)
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other(_stats(1)), fitted(_stats(1)))


def test_patches_without_a_valid_pixel_and_constant_columns_stay_finite() -> None:
    projector = PatchStatsProjector(3, 8)
    projector.fit(torch.zeros(1, 4, 3))
    assert projector(torch.zeros(1, 4, 3)).isfinite().all()


def test_gradients_reach_the_depth() -> None:
    depth_m = torch.rand(1, 32, 32).add_(1).requires_grad_()
    PatchStatsProjector(3, 8)(depth_to_patch_stats(depth_m, patch_size=16)).square().sum().backward()
    assert depth_m.grad is not None
    assert depth_m.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(2, 24, 4), (24, 3), (2, 3, 24, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(B, N, 3\)"):
        PatchStatsProjector(3, 8)(torch.zeros(shape))
