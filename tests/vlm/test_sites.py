"""Where depth enters each kind of model: bit-equal before training, and one patch for one language token."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mvde.vlm import add_depth, given_depth  # noqa: E402


def test_an_untrained_model_is_bit_equal_and_one_patch_moves_exactly_its_own_token(any_set_up, features) -> None:
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


def _some_of(owner: np.ndarray) -> np.ndarray:
    """Patches at the corners and eight others, dropped ones among them where there are any."""
    dropped = np.flatnonzero(owner < 0)[:2]
    others = np.random.default_rng(0).choice(len(owner), size=8, replace=False)
    return np.unique(np.concatenate([[0, len(owner) - 1], dropped, others]))
