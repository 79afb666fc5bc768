"""The DPT decoder: output sizes for every grid, position of the projection, and depth range."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from mvde.heads.dpt_decoder import (  # noqa: E402
    DPTDecoder,
    Fusion,
    MetricActivation,
    Reassemble,
    RelativeActivation,
    enlarge,
)


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 5), (7, 4), (14, 14)])
@pytest.mark.parametrize("patch_size", [14, 16])
def test_output_has_exactly_the_resolution_of_the_image(grid: tuple[int, int], patch_size: int) -> None:
    decoder = DPTDecoder(width=12, channels=8, num_blocks=4)
    taps = tuple(torch.randn(2, 12, *grid) for _ in range(4))
    resolution = (grid[0] * patch_size, grid[1] * patch_size)
    assert decoder(taps, resolution).shape == (2, *resolution)


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4, 5, 6])
def test_any_number_of_blocks_uses_every_tap(num_blocks: int) -> None:
    decoder = DPTDecoder(width=12, channels=8, num_blocks=num_blocks)
    taps = tuple(torch.randn(1, 12, 8, 8, requires_grad=True) for _ in range(num_blocks))
    decoder(taps, (128, 128)).square().mean().backward()
    assert all(tap.grad is not None and tap.grad.abs().sum() > 0 for tap in taps)
    assert all(parameter.grad is not None for parameter in decoder.parameters())


def test_taps_are_reassembled_at_strides_4_8_16_and_32() -> None:
    tap = torch.randn(1, 12, 6, 10)  # 96 by 160 image, 16-pixel patches
    sizes = [tuple(Reassemble(12, 8, level)(tap).shape[2:]) for level in range(4)]
    assert sizes == [(24, 40), (12, 20), (6, 10), (3, 5)]


@pytest.mark.parametrize("size", [(12, 20), (11, 19), (5, 9)])
def test_projecting_before_enlarging_equals_projecting_after(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = Fusion(channels=8, merges=True).double()
    coarse, lateral = torch.randn(2, 1, 8, 6, 10, dtype=torch.float64)
    after = block.project(enlarge(block.refine(coarse + block.lateral(lateral)), size))
    torch.testing.assert_close(block(coarse, lateral, size), after)


def test_convolution_sees_no_position_but_the_border() -> None:
    """The decoder is shift-equivariant: no block transposes rows and columns."""
    torch.manual_seed(0)
    decoder = DPTDecoder(width=4, channels=8, num_blocks=4).double()
    tap = torch.zeros(1, 4, 16, 32, dtype=torch.float64)
    tap[:, :, 8, 16] = 1.0
    moved = torch.roll(tap, (0, 2), dims=(2, 3))  # two patches: the coarsest map has half the patch grid
    blank = decoder((tap * 0,) * 4, (256, 512))
    response = decoder((tap,) * 4, (256, 512)) - blank
    shifted = decoder((moved,) * 4, (256, 512)) - blank
    assert response.abs().amax() > 0
    rows, columns = slice(112, 160), slice(240, 290)  # around the impulse, away from the border
    torch.testing.assert_close(shifted[:, rows, 272:322], response[:, rows, columns], rtol=1e-3, atol=1e-6)


def test_metric_depth_stays_in_its_range_and_follows_its_formula() -> None:
    activation = MetricActivation(0.1, 10.0)
    raw = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([-1e9, 1e9, 0.0])])
    depth_m = activation(raw)
    assert depth_m.min() >= 0.1
    assert depth_m.max() <= 10.0
    assert depth_m[-3:].tolist() == pytest.approx([0.1, 10.0, 1.0])
    assert (depth_m[:601].diff() >= 0).all()
    expected = [math.exp(math.log(0.1) + math.log(100) / (1 + math.exp(-x))) for x in (-2.0, 0.5, 3.0)]
    assert activation(torch.tensor([-2.0, 0.5, 3.0])).tolist() == pytest.approx(expected, rel=1e-6)


def test_relative_depth_is_positive_and_scales_with_a_shift_of_its_input() -> None:
    raw = torch.linspace(-5, 5, 11)
    depth = RelativeActivation()(raw)
    assert (depth > 0).all()
    torch.testing.assert_close(RelativeActivation()(raw + math.log(2)), 2 * depth)


def test_activations_give_float32_for_half_precision() -> None:
    raw = torch.zeros(3, dtype=torch.bfloat16)
    assert MetricActivation(0.1, 10.0)(raw).dtype == RelativeActivation()(raw).dtype == torch.float32


def test_enlarging_is_bilinear_with_half_pixel_centres() -> None:
    row = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 1, 4)
    assert enlarge(row, (1, 8)).flatten().tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]


def test_gradients_of_the_metric_head_do_not_vanish_in_the_middle() -> None:
    raw = torch.zeros(1, requires_grad=True)
    MetricActivation(0.1, 10.0)(raw).log().backward()
    assert raw.grad is not None
    assert raw.grad.item() == pytest.approx(math.log(100) / 4)


def test_a_transposed_convolution_tiles_each_patch_by_itself() -> None:
    finest = Reassemble(width=2, channels=2, level=0)
    assert isinstance(finest.resize, nn.ConvTranspose2d)
    tap = torch.zeros(1, 2, 3, 3)
    tap[:, :, 1, 1] = 1.0
    touched = (finest.resize(tap) - finest.resize(tap * 0)).abs().sum(dim=1) > 0
    assert torch.equal(touched[0], F.interpolate(tap[:, :1], scale_factor=4)[0, 0] > 0)
