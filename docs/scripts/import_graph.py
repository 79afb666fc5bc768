"""Draw docs/import-graph.svg: which part of mvde may import which.

    python docs/scripts/import_graph.py

The table is the one that tests/test_imports.py checks the source against; tests/test_docs.py fails when the committed
picture differs from it. An arrow that follows from others is left out (transitive reduction), and the command line,
which may import every part, stands on top.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/import-graph.svg"

BOX_WIDTH, BOX_HEIGHT, COLUMN, BEND, ROW, MARGIN = 96, 30, 108, 18, 74, 16
COMMAND_LINE = "cli"
FILL_BY_SIDE = {"shared": "#e8eaed", "robot": "#d3e8d5", "workstation": "#fbe3c8"}

Graph = Mapping[str, set[str]]


class Place(NamedTuple):
    """Centre of a box, in pixels."""

    x: float
    y: float


def read_table() -> tuple[Graph, dict[str, str]]:
    """Parts with what each may import, and the side of each part."""
    held = runpy.run_path(str(ROOT / "tests/test_imports.py"))
    allowed = {part: set(needs) for part, needs in held["ALLOWED"].items()}
    allowed[COMMAND_LINE] = set(allowed)
    side_by_part = {
        part: "shared" if part in held["GROUND"] else "robot" if part in held["ROBOT"] else "workstation"
        for part in allowed
    }
    return allowed, side_by_part


def reduced(graph: Graph) -> dict[str, list[str]]:
    """The graph without the edges that follow from the others, targets in alphabetical order."""
    return {
        part: sorted(n for n in needs if not any(n in _reachable(graph, other) for other in needs - {n}))
        for part, needs in graph.items()
    }


def levels(graph: Graph) -> list[list[str]]:
    """Parts by the length of their longest way down, the ground first; alphabetical within a level."""
    level_by_part: dict[str, int] = {}

    def level(part: str) -> int:
        if part not in level_by_part:
            level_by_part[part] = 1 + max((level(need) for need in graph[part]), default=-1)
        return level_by_part[part]

    rows: list[list[str]] = [[] for _ in range(1 + max(level(part) for part in graph))]
    for part in sorted(graph):
        rows[level_by_part[part]].append(part)
    return rows


def layout(graph: Graph, edges: Mapping[str, list[str]]) -> dict[str, Place]:
    """Centres of the boxes, and of the bends of arrows over several rows, named by :func:`_chain`.

    Rows by level; within a row, ordered by the mean position of the neighbours above and below in turn (the barycentres
    of Sugiyama, Tagawa and Toda 1981).
    """
    rows = levels(graph)
    level_by_node = {part: level for level, row in enumerate(rows) for part in row}
    below: dict[str, list[str]] = {part: [] for part in graph}
    above: dict[str, list[str]] = {part: [] for part in graph}
    for part, needs in edges.items():
        for need in needs:
            chain = _chain(part, need, level_by_node)
            for upper, lower in pairwise(chain):
                below.setdefault(upper, []).append(lower)
                above.setdefault(lower, []).append(upper)
            for depth, bend in enumerate(chain[1:-1], start=1):
                rows[level_by_node[part] - depth].append(bend)
    x_by_node = {node: x for row in rows for node, x in _spread(row).items()}
    for sweep in range(40):
        is_upwards = sweep % 2 == 0
        for row in rows if is_upwards else reversed(rows):
            neighbours = below if is_upwards else above
            weight = {node: _mean([x_by_node[n] for n in neighbours.get(node, ())], x_by_node[node]) for node in row}
            x_by_node.update(_spread(sorted(row, key=lambda node: (weight[node], node))))
    left = min(x_by_node.values()) - COLUMN / 2
    return {
        node: Place(MARGIN + x_by_node[node] - left, MARGIN + (len(rows) - level - 0.5) * ROW)
        for level, row in enumerate(rows)
        for node in row
    }


def draw(graph: Graph, side_by_part: Mapping[str, str]) -> str:
    """The picture, as SVG."""
    edges = reduced(graph)
    place_by_node = layout(graph, edges)
    width = max(place.x for place in place_by_node.values()) + COLUMN / 2 + MARGIN
    height = max(place.y for place in place_by_node.values()) + ROW / 2 + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="13" role="img">',
        "<title>What each part of mvde may import</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>',
    ]
    level_by_part = {part: level for level, row in enumerate(levels(graph)) for part in row}
    for part in sorted(edges):
        for need in edges[part]:
            lines.append(_arrow([place_by_node[node] for node in _chain(part, need, level_by_part)]))
    lines += [_box(part, place_by_node[part], FILL_BY_SIDE[side_by_part[part]]) for part in sorted(graph)]
    lines += _legend(height - MARGIN)
    return "\n".join([*lines, "</svg>", ""])


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting += graph[part]
    return found


def _chain(part: str, need: str, level_by_part: Mapping[str, int]) -> list[str]:
    """The part, a bend in each row between, and what it needs."""
    between = range(level_by_part[part] - 1, level_by_part[need], -1)
    return [part, *(f"{part} {need} {level}" for level in between), need]


def _spread(row: list[str]) -> dict[str, float]:
    """Positions of a row's nodes side by side around 0; a bend takes less room than a box."""
    widths = [BEND if " " in node else COLUMN for node in row]
    starts = [sum(widths[:index]) - sum(widths) / 2 for index in range(len(row))]
    return {node: start + width / 2 for node, start, width in zip(row, starts, widths, strict=True)}


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _arrow(places: list[Place]) -> str:
    """A curve from the first box down through the bends to the last."""
    points = [Place(places[0].x, places[0].y + BOX_HEIGHT / 2)]
    for bend in places[1:-1]:
        points += [Place(bend.x, bend.y - BOX_HEIGHT / 2), Place(bend.x, bend.y + BOX_HEIGHT / 2)]
    points.append(Place(places[-1].x, places[-1].y - BOX_HEIGHT / 2))
    path = f"M{points[0].x:.1f} {points[0].y:.1f}"
    for start, end in pairwise(points):
        if start.x == end.x:
            path += f"V{end.y:.1f}"
        else:
            middle = (start.y + end.y) / 2
            path += f"C{start.x:.1f} {middle:.1f} {end.x:.1f} {middle:.1f} {end.x:.1f} {end.y:.1f}"
    return f'<path d="{path}" fill="none" stroke="#6b7280" stroke-opacity="0.7" marker-end="url(#tip)"/>'


def _box(part: str, place: Place, fill: str) -> str:
    return (
        f'<rect x="{place.x - BOX_WIDTH / 2:.1f}" y="{place.y - BOX_HEIGHT / 2:.1f}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="5" fill="{fill}" stroke="#9ca3af"/>'
        f'<text x="{place.x:.1f}" y="{place.y + 4.5:.1f}" text-anchor="middle" fill="#111827">{escape(part)}</text>'
    )


def _legend(y: float) -> list[str]:
    texts = {"shared": "shared ground", "robot": "robot side, without PyTorch", "workstation": "PyTorch side"}
    lines, x = [], float(MARGIN)
    for side, fill in FILL_BY_SIDE.items():
        lines.append(f'<rect x="{x:.0f}" y="{y - 12:.0f}" width="16" height="14" fill="{fill}" stroke="#9ca3af"/>')
        lines.append(f'<text x="{x + 22:.0f}" y="{y:.0f}" fill="#111827">{texts[side]}</text>')
        x += 46 + 7.5 * len(texts[side])
    return lines


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the table's module imports mvde, which need not be installed
    PICTURE.write_text(draw(*read_table()), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
