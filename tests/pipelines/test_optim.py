"""Learning-rate schedules, weight averaging, and Muon against torch's implementation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mvde.config import TrainConfig
from mvde.pipelines.optim import (
    MovingAverage,
    Muon,
    backbone_factor,
    build_optimizers,
    orthogonalised,
    rate_factor,
    set_rates,
)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", lambda progress: 0.5 * (1 + math.cos(math.pi * progress))),
        ("linear", lambda progress: 1 - progress),
        ("constant", lambda progress: 1.0),
    ],
)
def test_the_rate_warms_up_and_follows_its_schedule(schedule: str, expected: object) -> None:
    train = TrainConfig(schedule=schedule, warmup_steps=10)
    assert [rate_factor(step, 110, train) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    for step in (10, 35, 60, 109):
        assert rate_factor(step, 110, train) == pytest.approx(expected((step - 10) / 100))  # type: ignore[operator]


def test_decay_steps_hold_the_rate_until_they_begin() -> None:
    train = TrainConfig(schedule="linear", warmup_steps=5, decay_steps=20)
    assert [rate_factor(step, 100, train) for step in (5, 50, 80, 90)] == pytest.approx([1, 1, 1, 0.5])


def test_the_backbone_rests_while_frozen_and_then_warms_up() -> None:
    train = TrainConfig(freeze_backbone_steps=20, warmup_steps=4)
    assert [backbone_factor(step, train) for step in (0, 19, 20, 21, 23, 50)] == [0, 0, 0.25, 0.5, 1, 1]
    assert backbone_factor(0, TrainConfig(freeze_backbone_steps=0, warmup_steps=4)) == 1


def test_groups_have_their_rates_and_vectors_are_not_decayed() -> None:
    backbone, head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.Linear(4, 1)
    train = TrainConfig(lr=1e-2, backbone_lr_scale=0.1, freeze_backbone_steps=0, warmup_steps=0, schedule="constant")
    (optimizer,) = build_optimizers(backbone, head.parameters(), train)
    set_rates([optimizer], 5, 10, train)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(backbone[0].weight)] == pytest.approx(1e-3)
    assert rates[id(head.bias)] == pytest.approx(1e-2)
    assert decay[id(backbone[0].weight)] == train.weight_decay
    assert decay[id(backbone[0].bias)] == decay[id(backbone[1].weight)] == decay[id(head.bias)] == 0
    assert len(rates) == 6


def test_muon_takes_the_backbones_matrices_only() -> None:
    backbone, head = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Linear(4, 4)), nn.Linear(4, 1)
    adamw, muon = build_optimizers(backbone, head.parameters(), TrainConfig(optimizer="muon"))
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(backbone[1].weight)]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 5


class _SeenProducts(TorchDispatchMode):
    """Recorder of the dtypes of batched matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            self.dtypes.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("autocast", "dtype"), [("bf16", torch.bfloat16), ("none", torch.float32)])
def test_muon_computes_in_bf16_where_the_run_does(autocast: str, dtype: torch.dtype) -> None:
    backbone = nn.Sequential(nn.Linear(4, 4))
    _, muon = build_optimizers(backbone, [], TrainConfig(optimizer="muon", autocast=autocast))
    backbone[0].weight.grad = torch.randn(4, 4)
    with _SeenProducts() as seen:
        muon.step()
    assert seen.dtypes == {dtype}
    assert backbone[0].weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_is_torchs_muon(dtype: torch.dtype) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(6, 10)), nn.Parameter(torch.randn(10, 6)), nn.Parameter(torch.randn(6, 10))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    mine = Muon(ours, lr=0.02, weight_decay=0.1, dtype=dtype)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        # torch iterates in bfloat16 (8 bits); a step is lr * 0.2 * sqrt(10), and 4 were taken.
        assert (a - b).abs().max() < 4 * 0.02 * 0.2 * math.sqrt(10) * 0.05


def test_orthogonalised_matrices_keep_their_singular_vectors() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 12, 5)
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalised(matrices)
    core = u.mT @ result @ vt.mT
    values = torch.diagonal(core, dim1=1, dim2=2)
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    assert (core - torch.diag_embed(values)).abs().max() < 1e-4


def test_the_average_is_exponential_and_swaps_back() -> None:
    model = nn.Linear(3, 2, bias=False)
    average = MovingAverage(model, decay=0.9)
    expected = model.weight.detach().clone()
    for step in range(200, 205):  # past the warm-up of the decay
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update(model, step)
        expected = 0.9 * expected + 0.1 * model.weight.detach()
    present = model.weight.detach().clone()
    average.swap(model)
    assert torch.allclose(model.weight, expected)
    average.swap(model)
    assert torch.equal(model.weight, present)


def test_the_average_forgets_the_random_start() -> None:
    model = nn.Linear(3, 2, bias=False)
    average = MovingAverage(model, decay=0.999)
    with torch.no_grad():
        model.weight.fill_(5.0)
    for step in range(100):
        average.update(model, step)
    assert torch.allclose(average.shadow["weight"], torch.tensor(5.0), atol=1e-3)
