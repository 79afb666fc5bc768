"""Losses against NumPy formulas evaluated pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mvde.config import LossConfig
from mvde.losses import berhu_loss, depth_loss, l1_loss, valid_mask

# float32 sums of a few hundred terms against float64.
TOLERANCE = {"rel": 2e-5, "abs": 1e-6}


TERMS = ("silog", "l1", "log_l1", "berhu", "gradient")


def term(name: str, pred: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, **settings: float) -> torch.Tensor:
    """Single loss term: the weighted sum with all other weights at zero."""
    weights = {other: float(other == name) for other in TERMS}
    return depth_loss(pred, target, valid, LossConfig(**weights, **settings))[0]  # type: ignore[arg-type]


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, target and mask (2, 12, 16); the two masks differ in their number of valid pixels."""
    rng = np.random.default_rng(0)
    pred, target = rng.uniform(0.3, 6, (2, 12, 16)), rng.uniform(0.3, 6, (2, 12, 16))
    valid = rng.random((2, 12, 16)) < np.array([0.9, 0.4])[:, None, None]
    return pred, target, valid


def as_tensors(images: tuple[np.ndarray, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pred, target, valid = images
    return torch.tensor(pred, dtype=torch.float32), torch.tensor(target, dtype=torch.float32), torch.tensor(valid)


def log_differences(images: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    return [np.log(p[v]) - np.log(t[v]) for p, t, v in zip(*images, strict=True)]


@pytest.mark.parametrize("focus", [0.0, 0.5, 0.85, 1.0])
def test_silog_is_eigens_formula(images: tuple[np.ndarray, ...], focus: float) -> None:
    expected = np.mean([np.mean(g**2) - focus * np.mean(g) ** 2 for g in log_differences(images)])
    assert term("silog", *as_tensors(images), silog_lambda=focus).item() == pytest.approx(expected, **TOLERANCE)


def test_silog_with_full_focus_ignores_scale(images: tuple[np.ndarray, ...]) -> None:
    pred, target, valid = as_tensors(images)
    scaled, plain = (term("silog", factor * pred, target, valid, silog_lambda=1.0).item() for factor in (3, 1))
    assert scaled == pytest.approx(plain, rel=1e-4)


def test_l1_in_metres_and_in_log_depth(images: tuple[np.ndarray, ...]) -> None:
    metres = np.mean([np.mean(np.abs(p[v] - t[v])) for p, t, v in zip(*images, strict=True)])
    logs = np.mean([np.mean(np.abs(g)) for g in log_differences(images)])
    assert l1_loss(*as_tensors(images)).item() == pytest.approx(metres, **TOLERANCE)
    assert term("log_l1", *as_tensors(images)).item() == pytest.approx(logs, **TOLERANCE)


def test_berhu_is_linear_below_a_fifth_of_the_largest_difference_and_quadratic_above(
    images: tuple[np.ndarray, ...],
) -> None:
    losses = []
    for p, t, v in zip(*images, strict=True):
        d = np.abs(p[v] - t[v])
        c = 0.2 * d.max()
        losses.append(np.mean([x if x <= c else (x * x + c * c) / (2 * c) for x in d]))
    assert berhu_loss(*as_tensors(images)).item() == pytest.approx(np.mean(losses), **TOLERANCE)


@pytest.mark.parametrize("num_scales", [1, 3])
def test_gradient_matching_sums_scales_of_neighbour_differences(
    images: tuple[np.ndarray, ...], num_scales: int
) -> None:
    total = 0.0
    for scale in range(num_scales):
        step, per_image = 2**scale, []
        for p, t, v in zip(*images, strict=True):
            r = (np.log(p) - np.log(t))[::step, ::step]
            m = v[::step, ::step]
            height, width = r.shape
            value = 0.0
            for y in range(height):
                for x in range(width):
                    if x + 1 < width and m[y, x] and m[y, x + 1]:
                        value += abs(r[y, x + 1] - r[y, x])
                    if y + 1 < height and m[y, x] and m[y + 1, x]:
                        value += abs(r[y + 1, x] - r[y, x])
            per_image.append(value / m.sum())
        total += float(np.mean(per_image))
    assert term("gradient", *as_tensors(images), gradient_scales=num_scales).item() == pytest.approx(total, **TOLERANCE)


def test_gradient_matching_stops_where_a_side_has_one_pixel() -> None:
    pred, target = torch.rand(1, 4, 4) + 1, torch.rand(1, 4, 4) + 1
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    nine, two = (term("gradient", pred, target, valid, gradient_scales=scales) for scales in (9, 2))
    assert nine == two


@pytest.mark.parametrize("name", TERMS)
def test_invalid_pixels_reach_neither_loss_nor_gradient(name: str) -> None:
    torch.manual_seed(0)
    target = torch.rand(2, 8, 8) + 0.5
    valid = torch.rand(2, 8, 8) < 0.6
    spoilt = torch.where(valid, target, torch.tensor([0.0, float("nan"), float("inf"), -1.0]).repeat(2, 8, 2))
    pred = torch.rand(2, 8, 8) + 0.5
    other = torch.where(valid, pred, 7.0).requires_grad_()
    value = term(name, other, spoilt, valid)
    assert value.item() == pytest.approx(term(name, pred, target, valid).item(), rel=1e-6)
    value.backward()
    assert other.grad is not None
    assert torch.isfinite(other.grad).all()
    assert (other.grad[~valid] == 0).all()


@pytest.mark.parametrize("name", TERMS)
def test_an_image_without_a_valid_pixel_contributes_nothing(name: str) -> None:
    pred, target = torch.rand(2, 8, 8) + 0.5, torch.rand(2, 8, 8) + 0.5
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[1] = False
    alone = term(name, pred[:1], target[:1], valid[:1])
    assert term(name, pred, target, valid).item() == pytest.approx(alone.item() / 2, rel=1e-6)


def test_the_mean_over_halves_of_a_batch_is_the_mean_over_the_batch(images: tuple[np.ndarray, ...]) -> None:
    pred, target, valid = as_tensors(images)
    weights = LossConfig(silog=1, log_l1=0.5, l1=0.1, berhu=0.1, gradient=0.3)
    halves = [depth_loss(pred[i : i + 1], target[i : i + 1], valid[i : i + 1], weights)[0] for i in (0, 1)]
    whole, _ = depth_loss(pred, target, valid, weights)
    assert whole.item() == pytest.approx(sum(h.item() for h in halves) / 2, rel=1e-6)


def test_the_sum_takes_the_weights_and_leaves_out_terms_of_weight_zero(images: tuple[np.ndarray, ...]) -> None:
    pred, target, valid = as_tensors(images)
    total, parts = depth_loss(pred, target, valid, LossConfig(silog=2.0, silog_lambda=0.5, gradient=0.0, l1=0.25))
    assert set(parts) == {"silog", "l1"}
    expected = 2 * term("silog", pred, target, valid, silog_lambda=0.5) + 0.25 * l1_loss(pred, target, valid)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_mask_takes_finite_depth_inside_the_range() -> None:
    target = torch.tensor([0.0, 0.05, 0.1, 5.0, 10.0, 10.1, float("nan"), float("inf")])
    assert valid_mask(target, 0.1, 10.0).tolist() == [False, False, True, True, True, False, False, False]
