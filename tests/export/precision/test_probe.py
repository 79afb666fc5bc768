"""The probe: running from cached tensors is bit-identical to running the whole graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from mvde.export.graph.load import load_fp32
from mvde.export.graph.run import GraphSession
from mvde.export.precision.cast import cast_nodes
from mvde.export.precision.groups import first_bundles, node_groups
from mvde.export.precision.probe import Probe
from mvde.precision import Precision


def test_every_group_measures_the_same_with_and_without_kept_tensors(
    exported: tuple[Path, int], random_images: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, images = load_fp32(exported[0], Precision.FP16), random_images(2, 48, 80, 3)
    kept, plain = Probe(base, images, 16), Probe(base, images, 16, limit_bytes=0)
    groups = node_groups(base.graph)
    num_fed = []
    run = GraphSession.depth

    def counted(self: GraphSession, images: np.ndarray, feeds: list | None = None) -> np.ndarray:
        num_fed.append(len(feeds[0]) if feeds else 0)
        return run(self, images, feeds)

    monkeypatch.setattr(GraphSession, "depth", counted)
    for lowered in groups:
        model = base.clone()
        cast_nodes(model, Precision.FP16, {name for group in groups for name in group.nodes} - set(lowered.nodes))
        assert kept.measure(model, "") == plain.measure(model, "")
    assert set(num_fed[1::2]) == {0}
    assert num_fed[-2] == 1  # only the tail starts from the network's output
    assert sum(count > 0 for count in num_fed[::2]) >= len(groups) - 2


def test_groups_have_names_of_their_own_and_branches_begin_together(exported: tuple[Path, int]) -> None:
    groups = node_groups(load_fp32(exported[0], Precision.FP16).graph)
    assert len({group.name for group in groups}) == len(groups)
    first = first_bundles(groups)
    assert sorted(group.name for bundle in first for group in bundle) == sorted(group.name for group in groups)
    assert max(map(len, first)) == 2 * 4  # attention and MLP of each tower layer
