"""``mvde models``: depth models that `mvde export --model` takes, with the meaning of their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.cli.output import STDOUT, write_json
from mvde.cli.shared_options import JSON_HELP

if TYPE_CHECKING:
    from mvde.families import Family

_UNKNOWN_LICENCE = "see its page"


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("models")(models)


def models(
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None,
) -> None:
    """List the families of depth models that can be exported, and their published checkpoints.

    Licences are those of the checkpoints' pages when this version was made; read the page before you use a model.
    """
    import json

    from mvde.families import FAMILIES

    rows = [_facts(family) for family in FAMILIES]
    if json_path is not None:
        write_json(json_path, json.dumps(rows, indent=2))
    if json_path != STDOUT:
        _print(rows)


def _facts(family: Family) -> dict[str, Any]:
    first = family.checkpoints[0]
    return {
        "family": family.title,
        "model_types": list(family.model_types),
        "note": family.note,
        "command": f"mvde export --model {first.name}",
        "checkpoints": [
            {
                "name": entry.name,
                "kind": entry.kind.value,
                "unit": entry.kind.unit,
                "max_depth_m": entry.max_depth_m,
                "licence": entry.licence,
            }
            for entry in family.checkpoints
        ],
    }


def _print(rows: list[dict[str, Any]]) -> None:
    """Print one block per family; lines are not wrapped, so that names can be copied."""
    width = max(len(entry["name"]) for row in rows for entry in row["checkpoints"])
    for row in rows:
        print(f"{row['family']}: {row['note']}\n  {row['command']}")
        for entry in row["checkpoints"]:
            most = "" if entry["max_depth_m"] is None else f" to {entry['max_depth_m']:g} m"
            kind = f"{entry['kind']} ({entry['unit']}){most}"
            print(f"    {entry['name']:{width}}  {kind:25}  {entry['licence'] or _UNKNOWN_LICENCE}")
    print("Other checkpoints of a family, and folders: mvde export --model NAME|DIR [--kind KIND]")
