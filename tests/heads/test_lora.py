"""LoRA adapters on the tower."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from mvde.errors import UsageError  # noqa: E402
from mvde.heads.lora import add_lora, merge_lora  # noqa: E402
from mvde.model import DepthModel  # noqa: E402


@pytest.fixture
def model(small_model: DepthModel) -> DepthModel:
    torch.manual_seed(0)
    return small_model


IMAGES = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def _train_a_little(model: DepthModel) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        model(IMAGES).log().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_new_adapters_do_not_change_the_depth(model: DepthModel) -> None:
    before = model.predict_depth(IMAGES)
    num_parameters = add_lora(model, rank=2)
    assert torch.equal(model.predict_depth(IMAGES), before)
    # Two layers with two targets each, of factors (2, 32) and (32, 2).
    assert num_parameters == 2 * 2 * (2 * 32 + 32 * 2)


def test_only_adapters_and_decoder_are_trained(model: DepthModel) -> None:
    add_lora(model, rank=2)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    _train_a_little(model)
    changed = {key for key, value in model.backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(".lora_" in key for key in changed)
    assert all(parameter.requires_grad for parameter in model.decoder.parameters())


def test_merging_keeps_the_depth_and_restores_the_architecture(model: DepthModel, tmp_path: Path) -> None:
    keys = model.state_dict().keys()
    untrained = model.predict_depth(IMAGES)
    add_lora(model, rank=2)
    _train_a_little(model)
    with pytest.raises(UsageError, match="merge_lora"):
        model.save(tmp_path / "adapted.safetensors")
    trained = model.predict_depth(IMAGES)
    assert merge_lora(model) == 4
    assert model.state_dict().keys() == keys
    assert not torch.allclose(trained, untrained)
    torch.testing.assert_close(model.predict_depth(IMAGES), trained)
    model.save(tmp_path / "merged.safetensors")
    assert torch.equal(
        DepthModel.load(tmp_path / "merged.safetensors").predict_depth(IMAGES), model.predict_depth(IMAGES)
    )


def test_bad_arguments_are_refused(model: DepthModel) -> None:
    with pytest.raises(UsageError, match=r"\['w_proj'\].*q_proj"):
        add_lora(model, targets=("w_proj",))
    with pytest.raises(UsageError, match="rank"):
        add_lora(model, rank=0)
    with pytest.raises(UsageError, match="no LoRA adapters"):
        merge_lora(model)
