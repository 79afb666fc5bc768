"""Where depth enters each kind of model: bit-equal before training, and one patch for one language token."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mvde.errors import UsageError  # noqa: E402
from mvde.vlm import SITES, Site, add_depth, depth_config, given_depth  # noqa: E402


def test_an_untrained_model_is_bit_equal_and_one_patch_moves_exactly_its_own_token(
    any_set_up, features, request
) -> None:
    assert request.node.callspec.params["any_set_up"].startswith(any_set_up.model.config.model_type)
    before = features(any_set_up)
    model = add_depth(any_set_up.model)
    stats = any_set_up.stats()
    with given_depth(model, stats, **any_set_up.inputs):
        assert torch.equal(features(any_set_up), before)
    assert torch.equal(features(any_set_up), before)

    torch.nn.init.normal_(model.depth_embedder.layers[2].weight)
    with given_depth(model, stats, **any_set_up.inputs):
        after = features(any_set_up)
    owner = any_set_up.owner.reshape(-1)
    moved = set((after != before).any(dim=-1).nonzero().flatten().tolist())
    assert moved == set(owner.tolist()) - {-1}
    for patch in _some_of(owner):
        other = stats.clone()
        other.reshape(len(owner), -1)[patch] *= 2
        with given_depth(model, other, **any_set_up.inputs):
            changed = (features(any_set_up) != after).any(dim=-1).nonzero().flatten().tolist()
        assert changed == ([] if owner[patch] < 0 else [owner[patch]])


def test_every_model_type_of_the_table_has_a_set_up(set_ups) -> None:
    assert set(SITES) <= set(set_ups)


def test_the_record_of_the_configuration_says_where_depth_enters(set_up) -> None:
    model = add_depth(set_up("llava_clip_with_class_token").model)
    stored = depth_config(model)
    assert stored.site == Site(path="model.multi_modal_projector", prefix=1)
    assert stored.width == 32
    assert depth_config(add_depth(set_up("llava_two_layers").model)).width == 64
    assert depth_config(add_depth(set_up("qwen2_vl").model)).width == 32  # `hidden_size` is the language model's


def test_a_site_that_a_model_would_not_look_at_is_refused(set_up) -> None:
    model = set_up("internvl").model
    model.config.vision_feature_layer = -2
    with pytest.raises(UsageError, match=r"from layer -2 of the tower.*set vision_feature_layer=-1"):
        add_depth(model)


def test_a_site_of_ones_own_is_checked() -> None:
    assert Site(path="projector", where="input") == Site(path="projector")
    with pytest.raises(UsageError, match="where is 'before', but expected one of input, output"):
        Site(path="projector", where="before")
    with pytest.raises(UsageError, match="prefix must be a whole number"):
        Site(path="projector", prefix=-1)


def _some_of(owner: np.ndarray) -> np.ndarray:
    """Patches at the ends and five others, dropped ones among them where there are any."""
    dropped = np.flatnonzero(owner < 0)[:2]
    others = np.random.default_rng(0).choice(len(owner), size=5, replace=False)
    return np.unique(np.concatenate([[0, len(owner) - 1], dropped, others]))
