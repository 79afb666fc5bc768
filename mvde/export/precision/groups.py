"""Groups of nodes that are lowered or kept together, so that no cast splits an attention or a normalisation.

They follow the structure of the graph, not module names:

- from a LayerNormalization to the sum that closes its branch: an attention or MLP with its projections;
- the sums of the residual stream together, because each passes its dtype to the next;
- a chain of convolutions, up to the Resize that ends it or the sum that joins it with another;
- the tail after the last Resize (Sigmoid, Exp, …), which converts the network's output to depth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mvde.export.graph.dtypes import computes

if TYPE_CHECKING:
    import onnx_ir as ir

RESIDUAL = "residual stream"


@dataclass(frozen=True)
class Group:
    """Nodes by name; ``name`` is the range of their weights or, without weights, of their node names.

    ``num_computing`` counts the nodes without casts, as :class:`mvde.records.LoweringRecord` does. ``is_branch``
    marks the attention and MLP branches of a tower, which are numerous and similar.
    """

    name: str
    nodes: tuple[str, ...]
    num_computing: int
    is_branch: bool = False


def node_groups(graph: ir.Graph) -> list[Group]:
    """Partition the computing nodes of an fp32 graph into groups, in graph order."""
    stream = _residual_stream(graph)
    key_of: dict[str, str] = {}
    members: dict[str, list[ir.Node]] = {}
    for node in filter(computes, graph):
        name = str(node.name)
        keys = [key_of[str(before.name)] for before in _producers(node) if before.name in key_of]
        key = RESIDUAL if name in stream else name if _starts_group(node, keys) else keys[0]
        key_of[name] = key
        members.setdefault(key, []).append(node)
    return _with_unique_names(
        [
            Group(
                _label(key, nodes),
                tuple(str(node.name) for node in nodes),
                sum(node.op_type != "Cast" for node in nodes),
                nodes[0].op_type == "LayerNormalization",
            )
            for key, nodes in members.items()
        ]
    )


def first_bundles(groups: Sequence[Group]) -> list[tuple[Group, ...]]:
    """Initial bundles: all branches of the tower together, every other group alone."""
    branches = tuple(group for group in groups if group.is_branch)
    others: list[tuple[Group, ...]] = [(group,) for group in groups if not group.is_branch]
    return [*others, branches] if branches else others


def _with_unique_names(groups: list[Group]) -> list[Group]:
    """Groups with ambiguous labels qualified by their first node: equal weights are stored once."""
    count = Counter(group.name for group in groups)
    return [
        group if count[group.name] == 1 else replace(group, name=f"{group.name} ({group.nodes[0]})") for group in groups
    ]


def _starts_group(node: ir.Node, keys: list[str]) -> bool:
    """Whether a node begins a group; ``keys`` are the groups of its inputs."""
    if not keys or keys[0] == RESIDUAL or node.op_type == "LayerNormalization":
        return True
    joins = node.op_type == "Add" and len(set(keys)) > 1
    return joins or _producers(node)[0].op_type == "Resize"


def _producers(node: ir.Node) -> list[ir.Node]:
    """Producers of a node's inputs, in input order."""
    found = [value.producer() for value in node.inputs if value is not None]
    return [producer for producer in found if producer is not None]


def _residual_stream(graph: ir.Graph) -> set[str]:
    """Names of sums that feed a LayerNormalization, and of sums downstream of one of those."""
    stream: set[str] = set()
    for node in graph:
        if node.op_type == "Add":
            feeds = any(use.node.op_type == "LayerNormalization" for use in node.outputs[0].uses())
            if feeds or any(before.name in stream for before in _producers(node)):
                stream.add(str(node.name))
    return stream


def _label(key: str, nodes: list[ir.Node]) -> str:
    if key == RESIDUAL:
        return key
    weights = [str(value.name) for node in nodes for value in node.inputs if value is not None and _is_weight(value)]
    modules = [name.removeprefix("model.").rpartition(".")[0] for name in weights if "." in name]
    first, last = (modules[0], modules[-1]) if modules else (str(nodes[0].name), str(nodes[-1].name))
    return first if first == last else f"{first} … {last}"


def _is_weight(value: ir.Value) -> bool:
    return value.is_initializer()
