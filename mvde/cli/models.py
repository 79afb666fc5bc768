"""``mvde models``: depth models for `mvde export --model` and `mvde import --preset`, with what their numbers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.cli.output import STDOUT, write_json
from mvde.cli.shared_options import JSON_HELP

if TYPE_CHECKING:
    from mvde.export.imported.presets import Preset
    from mvde.families import Family

_UNKNOWN_LICENCE = "see its page"


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("models")(models)


def models(
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None,
) -> None:
    """List the families and checkpoints that can be exported, and the presets for ONNX files.

    Licences are those of the models' pages when this version was made; read the page before you use a model.
    """
    import json

    from mvde.export.imported.presets import PRESETS
    from mvde.families import FAMILIES

    families = [_family_facts(family) for family in FAMILIES]
    presets = [_preset_facts(name, preset) for name, preset in PRESETS.items()]
    if json_path is not None:
        write_json(json_path, json.dumps({"families": families, "presets": presets}, indent=2))
    if json_path != STDOUT:
        _print_families(families)
        _print_presets(presets)


def _family_facts(family: Family) -> dict[str, Any]:
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


def _preset_facts(name: str, preset: Preset) -> dict[str, Any]:
    contract = preset.contract
    convention = contract.focal_convention
    return {
        "preset": name,
        "files": preset.files,
        "kind": contract.kind.value,
        "unit": contract.kind.unit,
        "canonical_focal": contract.canonical_focal,
        "focal_convention": None if convention is None else convention.value,
        "licence": preset.licence,
        "source": preset.source,
        "command": f"mvde import FILE.onnx --preset {name}",
    }


def _print_families(rows: list[dict[str, Any]]) -> None:
    """Print one block per family; lines are not wrapped, so that names can be copied."""
    width = max(len(entry["name"]) for row in rows for entry in row["checkpoints"])
    for row in rows:
        print(f"{row['family']}: {row['note']}\n  {row['command']}")
        for entry in row["checkpoints"]:
            most = "" if entry["max_depth_m"] is None else f" to {entry['max_depth_m']:g} m"
            kind = f"{entry['kind']} ({entry['unit']}){most}"
            print(f"    {entry['name']:{width}}  {kind:25}  {entry['licence'] or _UNKNOWN_LICENCE}")
    print("Other checkpoints of a family, and folders: mvde export --model NAME|DIR [--kind KIND]\n")


def _print_presets(rows: list[dict[str, Any]]) -> None:
    """Print the presets as one table, and the command that takes them."""
    width = max(len(row["preset"]) for row in rows)
    print("ONNX files of others: mvde import FILE.onnx --res HxW --preset PRESET")
    for row in rows:
        kind = f"{row['kind']} ({row['unit']})"
        print(f"    {row['preset']:{width}}  {kind:25}  {row['licence']}")
        print(f"    {'':{width}}  {row['files']}")
    print("Files without a preset: mvde import FILE.onnx --res HxW --kind KIND --mean MEAN --std STD")
