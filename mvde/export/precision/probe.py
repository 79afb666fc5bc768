"""Measurement of lowered graphs on images, reusing the fp32 graph's tensors ahead of the first change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mvde.contract import DepthKind
from mvde.export.graph.dtypes import computes
from mvde.export.graph.run import MAX_TENSOR_BYTES, GraphSession, with_outputs
from mvde.export.precision.emulate import emulated
from mvde.export.precision.groups import node_groups
from mvde.export.progress import Progress, no_progress
from mvde.parity import compare_depth
from mvde.records import ParityReport

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

_KNOWN = ".known"
"""Suffix of graph inputs that take a cached fp32 tensor."""


class Probe:
    """Measure lowered graphs against the fp32 graph ``base`` on images (K, H, W, 3), and report to ``progress``.

    ``kind`` is that of the map, see :func:`mvde.parity.compare_depth`.

    Tensors between groups of ``base`` are cached, smallest first, up to ``limit_bytes`` in total. A graph with one
    lowered decoder group is then computed from there instead of from the image.
    """

    def __init__(
        self,
        base: ir.Model,
        images: NDArray[np.uint8],
        patch_size: int,
        progress: Progress = no_progress,
        limit_bytes: int = MAX_TENSOR_BYTES,
        kind: DepthKind = DepthKind.METRIC,
    ) -> None:
        import numpy as np

        self.images = images
        self.progress = progress
        self._patch_size = patch_size
        self._kind = kind
        self._num_measured = 0
        progress(f"depth of {len(images)} images in fp32")
        depth, names = str(base.graph.outputs[0].name), _borders(base.graph, limit_bytes // len(images))
        self._known = list(GraphSession(with_outputs(base, [depth, *names])).tensors(images, [depth, *names]))
        self._reference = np.concatenate([run.pop(depth) for run in self._known])[: len(images)]
        self._inputs = {str(node.name): _inputs(node) for node in base.graph}

    def measure(self, model: ir.Model, what: str) -> ParityReport:
        """Depth differences of a typed graph with emulated dtypes; infinite where depth is not finite."""
        self._num_measured += 1
        self.progress(f"measurement {self._num_measured}: {what}")
        copy = emulated(model)
        fed = self._cut(copy)
        feeds = [{f"{name}{_KNOWN}": run[name] for name in fed} for run in self._known]
        depth = GraphSession(copy).depth(self.images, feeds)
        return compare_depth(depth, self._reference, self._patch_size, kind=self._kind)

    def _cut(self, model: ir.Model) -> list[str]:
        """Replace cached tensors in ``model`` by inputs; return their names."""
        import onnx_ir as ir
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        graph, known = model.graph, self._known[0]
        fed = {}
        for node in self._unchanged(graph):
            value = node.outputs[0]
            if value.name in known:
                given = ir.Value(name=f"{value.name}{_KNOWN}", type=value.type, shape=value.shape)
                value.replace_all_uses_with(given)
                graph.inputs.append(given)
                fed[str(value.name)] = given
        RemoveUnusedNodesPass()(model)
        for name, given in list(fed.items()):
            if not given.uses():
                graph.inputs.remove(given)
                del fed[name]
        return list(fed)

    def _unchanged(self, graph: ir.Graph) -> list[ir.Node]:
        """Nodes that compute the same as in the fp32 graph: same inputs, all from unchanged nodes."""
        same: dict[str, ir.Node] = {}
        for node in graph:
            before = (value.producer() for value in node.inputs if value is not None)
            if self._inputs.get(str(node.name)) == _inputs(node) and all(
                producer is None or producer.name in same for producer in before
            ):
                same[str(node.name)] = node
        return list(same.values())


def _inputs(node: ir.Node) -> tuple[str | None, ...]:
    return tuple(value.name if value is not None else None for value in node.inputs)


def _borders(graph: ir.Graph, limit_bytes: int) -> list[str]:
    """Tensors passed between groups, smallest first, as many as fit in ``limit_bytes``."""
    group_of = {name: index for index, group in enumerate(node_groups(graph)) for name in group.nodes}
    sizes: dict[str, int] = {}
    for node in filter(computes, graph):
        value = node.outputs[0]
        readers = {group_of.get(str(use.node.name)) for use in value.uses()}
        if value.shape is not None and readers - {group_of[str(node.name)], None}:
            sizes[str(value.name)] = 4 * math.prod(value.shape.numpy())
    taken, total = [], 0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        total += sizes[name]
        if total > limit_bytes:
            break
        taken.append(name)
    return taken
