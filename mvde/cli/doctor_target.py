"""Report of ``mvde doctor --target``: another system's libraries, engines, known errors, memory and commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.cli.terminal import console

if TYPE_CHECKING:
    from mvde.artifact import GraphArtifact


def examine_target(name: str, graph: Path | None) -> dict[str, Any]:
    """Facts about a target as JSON types, judged for a graph or for every graph of a folder (``None``: for none).

    Raises :class:`UsageError` for an unknown target with the nearest names, :class:`ArtifactError` for no graph.
    """
    from mvde.engines.target_check import check_target
    from mvde.engines.targets import find_targets

    return check_target(find_targets(name), [] if graph is None else _graphs(graph))


def _graphs(path: Path) -> list[GraphArtifact]:
    from mvde.artifact import list_graphs, load_graph
    from mvde.errors import ArtifactError

    if not path.is_dir():
        return [load_graph(path)]
    found = list_graphs(path)
    if not found:
        raise ArtifactError(f"there is no exported graph in {path}; make one with `mvde export --out {path}`")
    return found


def print_target(facts: dict[str, Any]) -> None:
    """Print the facts for people."""
    from rich.table import Table

    shown, target, advice = console(), facts["target"], facts["advice"]

    def say(text: str) -> None:
        shown.print(text, markup=False, highlight=False, soft_wrap=True)  # commands are copied

    say(f"{target['title']}")
    say(f"Carries   {', '.join(_carried(target))}")
    for device in target["devices"]:
        sizes = " or ".join(map(str, device["memory_gib"]))
        say(f"GPU       {device['title']}, compute capability {device['compute_capability']}, {sizes} GiB")
    say(f"Advice    {advice['engine'] or 'no engine'}, opset {advice['opset']}: {advice['why']}")
    if target["newer"]:
        newer = target["newer"]
        say(f"          on {', '.join(newer['devices'])} also TensorRT {newer['tensorrt']}: {newer['how']}")
    table = Table("engine ids", "work there", "how, or why not")
    for names, works, note in _grouped(facts["engines"]):
        table.add_row(names, "yes" if works else "no", note.replace("[", r"\["))
    shown.print(table)
    for entry in facts["known_bad"]:
        say(f"known error ({entry['level']}) {entry['id']}: {entry['what']}; {entry['advice']}")
    for graph in facts["graphs"]:
        _print_graph(graph, say)
    if facts["graphs"]:
        say(f"Memory is estimated: {facts['memory_formula']}")
    for step in facts["commands"]:
        say(f"  {step['on']:<12} {step['command']}")
    for other in facts["others"]:
        say(f"also      {other['title']}: TensorRT {other['tensorrt']}, {other['engine'] or 'no engine'}")
    for what in facts["unverified"]:
        say(f"not verified: {what}")
    for source in facts["sources"]:
        say(f"source: {source}")


def _grouped(engines: list[dict[str, Any]]) -> list[tuple[str, bool, str]]:
    """Engine ids of one backend with the same answer, as ``tensorrt:fp32 fp16``, with it."""
    found: dict[tuple[str, bool, str], list[str]] = {}
    for engine in engines:
        backend, precision = engine["id"].split(":")
        found.setdefault((backend, engine["works"], engine["note"]), []).append(precision)
    return [(f"{backend}:{' '.join(names)}", works, note) for (backend, works, note), names in found.items()]


def _carried(target: dict[str, Any]) -> list[str]:
    """Names and versions of what the system carries."""
    named = (("CUDA", target["cuda"]), ("TensorRT", target["tensorrt"]), ("Python", target["python"]))
    return [target["os"], *(f"{name} {version}" for name, version in named if version)]


def _print_graph(graph: dict[str, Any], say: Any) -> None:
    memory, (height, width) = graph["memory"], graph["resolution"]
    mib = {key: value / 2**20 for key, value in memory.items()}
    say(
        f"{graph['path']}: {height}x{width}, batch {graph['batch']}, {graph['precision']}: about "
        f"{mib['running_bytes']:.0f} MiB to run (plan {mib['plan_bytes']:.0f}, activations "
        f"{mib['activation_bytes']:.0f}, frames {mib['frame_bytes']:.0f}, context {mib['context_bytes']:.0f}), "
        f"{mib['building_bytes']:.0f} MiB to build"
    )
    for problem in graph["problems"] or ["no known problem there"]:
        say(f"  {problem}")
