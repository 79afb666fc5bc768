"""Third-party families compared with transformers, from the photograph to the engine: one Markdown table.

    python -m benchmarks.families
    python -m benchmarks.families --case "depth anything" --case glpn --json families.json

Tiny random networks with their authors' preprocessing, as in `tests/families`, exported, built and lowered. Differences
are the largest |Δ| relative to the map's range; "at another size" resizes the map of transformers bilinearly, as mvde
does, and the mean is that to its own resizing. Precisions are judged by the gate of `mvde lower`, in the first shape.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mvde.artifact import GraphArtifact
from mvde.errors import MvdeError
from mvde.export.precision import write_typed
from mvde.export.precision.images import lower_options
from mvde.precision import Precision
from tests.families.cases import ALL_SHAPES, CASES
from tests.families.end_to_end import export_case, measure_engine, references_of
from tests.families.tiny import save_tiny

ENGINES = ("onnxruntime:fp32", "openvino:fp32")
PRECISIONS = (Precision.BF16, Precision.FP16, Precision.INT8)
HEAD = (
    "family",
    "network",
    "frame",
    "kind",
    *(f"{engine}: same, other size" for engine in ENGINES),
    "own resizing, mean",
    "statistics: grid, means",
    "gate of " + ", ".join(map(str, PRECISIONS)),
)


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=tuple(CASES), help="repeatable. Default: all")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    chosen = [each for each in ALL_SHAPES if arguments.case is None or each[0] in arguments.case]
    print("| " + " | ".join(HEAD) + " |")
    print("|" + "---|" * len(HEAD))
    rows = []
    for name, shape in chosen:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, shape, Path(folder)))
        print("| " + " | ".join(cells(rows[-1])) + " |", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(name: str, shape: int, folder: Path) -> dict[str, Any]:
    """All figures of a case in one of its shapes; an engine or precision that is refused has its reason instead."""
    case = CASES[name]
    size, frame = case.shapes[shape]
    model = save_tiny(case.model, folder / case.model)
    graph, references = export_case(name, shape, model, folder / "export"), references_of(name, shape, model)
    row: dict[str, Any] = {
        "family": name,
        "network": size,
        "frame": frame,
        "kind": str(graph.manifest.depth_kind),
        "unit": graph.manifest.unit,
        "engines": {},
        "gate": {},
    }
    for engine in ENGINES:
        try:
            row["engines"][engine] = asdict(measure_engine(graph, engine, references, folder / "engines"))
        except MvdeError as error:
            row["engines"][engine] = str(error)
    if shape == 0:
        row["gate"] = {str(precision): _gate(graph, precision) for precision in PRECISIONS}
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """Cells of a row, in the order of ``HEAD``."""
    engines = [row["engines"][engine] for engine in ENGINES]
    measured = [one for one in engines if isinstance(one, dict)]
    texts = [f"{one['same_size']:.0e}, {one['frame']:.0e}" if isinstance(one, dict) else "refused" for one in engines]
    grid = "×".join(map(str, measured[0]["grid"])) if measured else ""
    return [
        row["family"],
        "×".join(map(str, row["network"])),
        "×".join(map(str, row["frame"])),
        f"{row['kind']} ({row['unit']})",
        *texts,
        f"{max(one['mean_to_full'] for one in measured):.0e}" if measured else "",
        f"{grid}, {max(one['stats'] for one in measured):.0e}" if measured else "",
        ", ".join("passed" if reason is None else "refused" for reason in row["gate"].values()),
    ]


def _gate(graph: GraphArtifact, precision: Precision) -> str | None:
    """Reason why the graph in this precision is refused; ``None`` if it passes."""
    try:
        write_typed(graph, precision, lower_options(graph.manifest))
    except MvdeError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main()
