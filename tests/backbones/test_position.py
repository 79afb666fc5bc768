"""Position embeddings against transformers' interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mvde.backbones.position import (  # noqa: E402
    FixedPositionEmbedding,
    PositionEmbedding,
    resample_position,
    sincos_position,
)
from mvde.errors import ResolutionError  # noqa: E402

GRIDS = [(4, 4), (8, 8), (2, 2), (3, 3), (5, 3), (3, 5), (2, 8), (56, 42), (1, 1)]


@pytest.mark.parametrize("grid", GRIDS)
def test_resampling_is_that_of_transformers(sizes: dict[str, Any], grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    tower = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes))
    embeddings = getattr(tower, "vision_model", tower).embeddings
    tokens = torch.zeros(1, grid[0] * grid[1], 32)
    expected = embeddings.interpolate_pos_encoding(tokens, 16 * grid[0], 16 * grid[1])
    assert torch.allclose(resample_position(embeddings.position_embedding.weight, grid), expected)


def test_the_native_grid_is_handed_back_untouched() -> None:
    native = torch.randn(16, 8)
    assert torch.equal(resample_position(native, (4, 4))[0], native)


def _cubic_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Keys' cubic convolution (a = -0.75, half-pixel centres, replicated border) as a float64 matrix."""

    def kernel(x: float) -> float:
        a, x = -0.75, abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    matrix = np.zeros((size_out, size_in))
    for row in range(size_out):
        centre = (row + 0.5) * size_in / size_out - 0.5
        first = int(np.floor(centre)) - 1
        for tap in range(first, first + 4):
            matrix[row, min(max(tap, 0), size_in - 1)] += kernel(centre - tap)
    return matrix


@pytest.mark.parametrize("grid", [(9, 4), (3, 16)])
def test_resampling_is_cubic_convolution_over_rows_and_columns(grid: tuple[int, int]) -> None:
    native = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    rows, columns = _cubic_matrix(8, grid[0]), _cubic_matrix(8, grid[1])
    expected = np.einsum("ri,cj,ijd->rcd", rows, columns, native.double().numpy().reshape(8, 8, 2))
    resampled = resample_position(native, grid)[0].reshape(*grid, 2)
    np.testing.assert_allclose(resampled.numpy(), expected, atol=1e-5)  # float32 sums of 16 terms of order 1


@pytest.mark.parametrize("grid", [(4, 4), (6, 3)])
def test_gradients_reach_every_native_position(grid: tuple[int, int]) -> None:
    position = PositionEmbedding(16, 8)
    position(grid).sum().backward()
    assert position.weight.grad is not None
    assert (position.weight.grad != 0).all()


def test_a_fixed_embedding_is_a_constant_of_one_grid() -> None:
    weight = torch.randn(1, 6, 8, requires_grad=True)
    fixed = FixedPositionEmbedding(weight, (2, 3))
    assert torch.equal(fixed((2, 3)), weight)
    assert not fixed((2, 3)).requires_grad
    with pytest.raises(ResolutionError, match="2x3, but got 3x2"):
        fixed((3, 2))


def test_sine_cosine_positions_are_distinct_and_separate_the_axes() -> None:
    position = sincos_position(6, 16).reshape(6, 6, 16)
    assert torch.unique(position.reshape(36, 16), dim=0).shape[0] == 36
    assert torch.equal(position[1:, :, :8], position[:-1, :, :8])  # the first half depends on the column only
    assert torch.equal(position[:, 1:, 8:], position[:, :-1, 8:])  # the second half on the row only
    assert position.abs().max() <= 1
