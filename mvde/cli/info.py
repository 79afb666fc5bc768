"""``mvde info``: properties of a graph or engine, from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.cli.output import STDOUT, write_json
from mvde.cli.shared_options import ENGINE_DIR_HELP, EXPORT_DIR_HELP, JSON_HELP
from mvde.cli.terminal import console

if TYPE_CHECKING:
    from rich.table import Table

    from mvde.artifact import AnyArtifact
    from mvde.manifest import EngineManifest, GraphManifest


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("info")(info)


def info(
    what: Annotated[
        str | None,
        typer.Argument(help="Graph, engine, manifest, calibration, folder or model name. Default: all artefacts."),
    ] = None,
    export_dir: Annotated[Path, typer.Option("--export-dir", help=EXPORT_DIR_HELP)] = Path("export"),
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help=ENGINE_DIR_HELP)] = Path("engines"),
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None,
    rewrite_digest: Annotated[
        Path | None,
        typer.Option(
            "--rewrite-digest",
            metavar="FILE",
            help="Recompute the digest of a manually edited manifest and exit.",
        ),
    ] = None,
) -> None:
    """Show the manifest of an artefact or a calibration, or list artefacts.

    A single match is verified against its hash. --json writes the manifest itself, or a list if several match.
    """
    if rewrite_digest is not None:
        from mvde import artifact

        artifact.rewrite_digest(rewrite_digest)
        print(f"{rewrite_digest}: digest updated")
        return
    import json

    from mvde.calibration.record import SUFFIX

    if what is not None and what.endswith(SUFFIX):
        _show_calibration(Path(what), json_path)
        return
    found = _find(what, [export_dir, engine_dir])
    if json_path is not None:
        plain = [json.loads(artifact.manifest.to_json()) for artifact in found]
        write_json(json_path, json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, ensure_ascii=False))
    if json_path != STDOUT:
        console().print(_manifest_table(found[0]) if len(found) == 1 else _list_table(found))


def _find(what: str | None, folders: list[Path]) -> list[AnyArtifact]:
    """Artefacts that ``what`` names; a single match is verified against its manifest."""
    from mvde.artifact import list_engines, list_graphs, load_artifact
    from mvde.errors import ArtifactError

    if what is not None and Path(what).is_dir():
        folders, what = [Path(what)], None
    elif what is not None and (Path(what).exists() or Path(what).suffix in {".onnx", ".json"} or "/" in what):
        return [load_artifact(Path(what))]
    there: list[AnyArtifact] = []
    for folder in folders:
        there += [*list_graphs(folder), *list_engines(folder)]
    names = [(artifact, {artifact.manifest.name, artifact.path.stem, artifact.path.parent.name}) for artifact in there]
    found = [artifact for artifact, known in names if what is None or what in known]
    if not found:
        where = " and ".join(map(str, folders))
        listing = (
            f"; there are: {'; '.join(map(str, there))}" if there else "; `mvde export` and `mvde build` write them"
        )
        raise ArtifactError(f"no artefact {f'named {what!r} ' if what else ''}in {where}{listing}")
    return [load_artifact(found[0].path)] if len(found) == 1 else found


def _show_calibration(path: Path, json_path: str | None) -> None:
    from mvde.calibration.record import read_calibration, rows

    calibration = read_calibration(path)
    if json_path is not None:
        write_json(json_path, calibration.to_json().rstrip())
    if json_path != STDOUT:
        console().print(_table(path, rows(calibration)))


def _manifest_table(artifact: AnyArtifact) -> Table:
    from mvde.cli.manifest_rows import rows

    return _table(artifact.path, rows(artifact.manifest))


def _table(path: Path, found: list[tuple[str, str]]) -> Table:
    from rich.table import Table

    table = Table(title=str(path), show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in found:
        table.add_row(key, value)
    return table


def _list_table(found: list[AnyArtifact]) -> Table:
    from rich.table import Table

    table = Table("artefact", "model", "computes in", "max |Δdepth|\n/depth", "MB")
    table.columns[0].overflow = "fold"  # truncated paths are useless
    for artifact in found:
        manifest = artifact.manifest
        height, width = manifest.resolution
        batch = f" b{manifest.batch}" if manifest.batch != 1 else ""
        measured = manifest.parity.measured
        table.add_row(
            str(artifact.path),
            f"{manifest.name} {height}x{width}{batch}",
            _computes_in(manifest),
            "" if measured is None else f"{measured.max_rel:.1e}",
            f"{manifest.file.size_bytes / 1e6:.1f}",
        )
    return table


def _computes_in(manifest: GraphManifest | EngineManifest) -> str:
    from mvde.manifest import EngineManifest

    if isinstance(manifest, EngineManifest):
        return manifest.engine.executed_precision
    return f"graph, opset {manifest.opset}"
