"""Groups of nodes that are lowered or kept together, so that no cast lands inside an attention or a normalisation.

They follow the structure of the graph, not the names of its modules:

- from a LayerNormalization to the sum that closes its branch: an attention, or an MLP, with its projections;
- the sums of the residual stream together, because each hands its dtype to the next;
- a chain of convolutions, up to the Resize that ends it or the sum that joins it with another;
- the tail after the last Resize (Sigmoid, Exp, …), which turns the network's output into depth.
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
    """Nodes by name; ``name`` says which weights they carry, from the first to the last, or which nodes they are.

    ``num_computing`` counts the nodes but for casts, as :class:`mvde.records.LoweringRecord` does. ``is_branch``
    marks the attentions and MLPs of a tower, of which there are many alike.
    """

    name: str
    nodes: tuple[str, ...]
    num_computing: int
    is_branch: bool = False


def node_groups(graph: ir.Graph) -> list[Group]:
    """Every computing node of an fp32 graph in exactly one group, in the order of the graph."""
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
    """The groups as they are first measured: a tower's branches all together, every other group by itself."""
    branches = tuple(group for group in groups if group.is_branch)
    others: list[tuple[Group, ...]] = [(group,) for group in groups if not group.is_branch]
    return [*others, branches] if branches else others


def _with_unique_names(groups: list[Group]) -> list[Group]:
    """Groups with the name of their first node beside a label that others have, too: equal weights are stored once."""
    count = Counter(group.name for group in groups)
    return [
        group if count[group.name] == 1 else replace(group, name=f"{group.name} ({group.nodes[0]})") for group in groups
    ]


def _starts_group(node: ir.Node, keys: list[str]) -> bool:
    """Whether a node begins a group; ``keys`` are the groups of what it reads."""
    if not keys or keys[0] == RESIDUAL or node.op_type == "LayerNormalization":
        return True
    joins = node.op_type == "Add" and len(set(keys)) > 1
    return joins or _producers(node)[0].op_type == "Resize"


def _producers(node: ir.Node) -> list[ir.Node]:
    """Nodes whose results a node reads, in the order of its inputs."""
    found = [value.producer() for value in node.inputs if value is not None]
    return [producer for producer in found if producer is not None]


def _residual_stream(graph: ir.Graph) -> set[str]:
    """Names of the sums that feed a LayerNormalization, and of the sums that go on from one of those."""
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
