"""The auxiliary linear head on the tower's tokens: its inputs and its targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mvde.model import DepthModel  # noqa: E402
from mvde.pipelines.token_head import CELLS, TokenSupervised, depth_at_cells  # noqa: E402


def test_cells_lie_where_their_patch_lies(tiny_config: Callable[..., dict[str, Any]]) -> None:
    model = DepthModel(tiny_config())
    head = TokenSupervised(model)
    with torch.no_grad():
        head.project.bias.copy_(torch.arange(CELLS * CELLS))
        head.project.weight.zero_()
    depth = head(torch.rand(2, 3, 16, 24), "tokens")
    one_patch = model.activation(torch.arange(CELLS * CELLS, dtype=torch.float32)).view(CELLS, CELLS)
    assert torch.allclose(depth, one_patch.repeat(2, 3).expand(2, -1, -1))
    head.norm.weight.data.zero_()
    assert head.predict_depth(torch.rand(2, 3, 16, 24)).shape == (2, 16, 24)


def test_the_whole_model_is_given_where_depth_is_supervised(tiny_config: Callable[..., dict[str, Any]]) -> None:
    model, images = DepthModel(tiny_config()).eval(), torch.rand(1, 3, 16, 24)
    assert torch.equal(TokenSupervised(model).eval()(images, "depth"), model(images))


@pytest.mark.parametrize(("cells", "expected"), [((2, 2), [[11, 13], [31, 33]]), ((4, 4), None)])
def test_a_cell_is_held_to_the_pixel_at_its_centre(cells: tuple[int, int], expected: list[list[int]] | None) -> None:
    depth = (10 * torch.arange(4)[:, None] + torch.arange(4)).float()[None]
    wanted = depth[0] if expected is None else torch.tensor(expected, dtype=torch.float32)
    assert torch.equal(depth_at_cells(depth, cells)[0], wanted)
