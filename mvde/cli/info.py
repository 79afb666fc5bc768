"""``mvde info``: what a graph or an engine is, read from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.camera import fov_from_focal
from mvde.manifest import EngineManifest, GraphManifest
from mvde.schema import to_json_types

if TYPE_CHECKING:
    from rich.table import Table

    from mvde.artifact import AnyArtifact
    from mvde.manifest import GraphManifest, Manifest
    from mvde.records import CudaRecord, LoweringRecord


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("info")(info)


def info(
    what: Annotated[
        str | None,
        typer.Argument(help="A graph, an engine, a manifest, a folder or a model's name. Default: everything here."),
    ] = None,
    export_dir: Annotated[Path, typer.Option("--export-dir", help="Folder of exported graphs.")] = Path("export"),
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help="Folder of engines.")] = Path("engines"),
    json_: Annotated[
        bool, typer.Option("--json", help="Print the manifest as JSON (a list, if several match).")
    ] = False,
) -> None:
    """Show the manifest of an artefact after checking its hash, or list the artefacts that match."""
    import json

    from rich.console import Console

    found = _find(what, [export_dir, engine_dir])
    plain = [artifact.manifest.to_dict() for artifact in found]
    if json_:
        print(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, ensure_ascii=False))
    elif len(found) == 1:
        Console().print(_manifest_table(found[0]))
    else:
        Console().print(_list_table(found))


def _find(what: str | None, folders: list[Path]) -> list[AnyArtifact]:
    """Artefacts that ``what`` names; a single one has its content compared with its manifest."""
    from mvde.artifact import list_engines, list_graphs, load_artifact
    from mvde.errors import ArtifactError

    if what is not None and Path(what).is_dir():
        folders, what = [Path(what)], None
    elif what is not None and (Path(what).exists() or Path(what).suffix in {".onnx", ".json"} or "/" in what):
        return [load_artifact(Path(what))]
    there: list[AnyArtifact] = []
    for folder in folders:
        there += list_graphs(folder)
        there += list_engines(folder)
    names = [(artifact, {artifact.manifest.name, artifact.path.stem, artifact.path.parent.name}) for artifact in there]
    found = [artifact for artifact, known in names if what is None or what in known]
    if not found:
        where = " and ".join(map(str, folders))
        listing = (
            f"; there are: {'; '.join(map(str, there))}" if there else "; `mvde export` and `mvde build` write them"
        )
        raise ArtifactError(f"no artefact {f'named {what!r} ' if what else ''}in {where}{listing}")
    return [load_artifact(found[0].path)] if len(found) == 1 else found


def _manifest_table(artifact: AnyArtifact) -> Table:
    from rich.table import Table

    table = Table(title=str(artifact.path), show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _rows(artifact.manifest):
        table.add_row(key, value)
    return table


def _rows(manifest: GraphManifest | EngineManifest) -> list[tuple[str, str]]:
    """Label and readable value of everything a user of the artefact needs to know."""
    low, high = manifest.depth_range_m
    rows = [("kind", manifest.kind), ("name", manifest.name), ("created", manifest.created)]
    rows += [("input", f"{x.name}: {x.dtype} {list(x.shape)} {x.layout}, {x.colour}") for x in manifest.inputs]
    rows += [("output", f"{x.name}: {x.dtype} {list(x.shape)}, {_unit(x.unit)}") for x in manifest.outputs]
    file, normalization = manifest.file, manifest.normalization
    where = "inside the graph" if normalization.folded else "left to the caller"
    rows += [
        ("depth", f"{manifest.depth_kind}, {low:g} m to {high:g} m"),
        *_camera_rows(manifest),
        ("patches", f"{manifest.grid[0]} rows x {manifest.grid[1]} columns of {manifest.patch_size} px"),
        ("statistics", ", ".join(manifest.stats)),
        ("normalisation", f"mean {_numbers(normalization.mean)}, std {_numbers(normalization.std)}, {where}"),
        ("opset", str(manifest.opset)),
        ("file", f"{file.name}, {file.size_bytes / 1e6:.2f} MB, SHA-256 {file.sha256} (verified)"),
        ("made from", f"weights with SHA-256 {manifest.source.checkpoint_sha256}"),
        ("tools", ", ".join(f"{package} {version}" for package, version in manifest.tools.items())),
    ]
    rows += [(f"parity: {key}", _readable(value)) for key, value in to_json_types(manifest.parity).items()]
    return rows + (_engine_rows(manifest) if isinstance(manifest, EngineManifest) else [])


def _camera_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The camera that metres are for, by the field of view of a square picture."""
    focal = manifest.canonical_focal
    if focal is None:
        return []
    return [("camera", f"relative focal length {focal:.4g}; a square picture shows {fov_from_focal(focal):.1f}°")]


def _engine_rows(manifest: EngineManifest) -> list[tuple[str, str]]:
    engine = manifest.engine
    return [
        ("engine", engine.id),
        ("computes in", f"{engine.executed_precision} on {engine.device}"),
        ("library", f"{engine.backend} {engine.library_version}"),
        *([("CPU features", ", ".join(engine.cpu_features))] if engine.cpu_features else []),
        ("options", _readable(engine.options)),
        *[(key.replace("_", " "), what) for key, what in engine.rewrites.items()],
        ("graph", f"SHA-256 {engine.onnx_sha256}"),
        *[("known error", text) for text in engine.known_errors],
        *(_device_rows(engine.cuda, manifest.lowering) if engine.cuda is not None else []),
    ]


def _device_rows(cuda: CudaRecord, promised: LoweringRecord | None) -> list[tuple[str, str]]:
    """What TensorRT was built for, and what it made of the graph."""
    network = cuda.network
    nodes, products = network.num_by_dtype, network.products_by_dtype
    attentions = f"{network.num_attention} attentions" + (f" of {promised.num_attention}" if promised else "")
    return [
        ("built for", f"compute capability {', '.join(cuda.compute_capabilities)}"),
        ("nodes", ", ".join(f"{_percent(count, nodes)} of the nodes compute in {key}" for key, count in nodes.items())),
        ("products", ", ".join(f"{count} in {key}" for key, count in products.items())),
        ("recognised", f"{attentions}, {network.num_layer_norm} layer normalisations"),
    ]


def _percent(count: int, counts: dict[str, int]) -> str:
    return f"{100 * count / max(1, sum(counts.values())):.0f} %"


def _list_table(found: list[AnyArtifact]) -> Table:
    from rich.table import Table

    table = Table("artefact", "model", "computes in", "max |Δdepth|\n/depth", "MB")
    table.columns[0].overflow = "fold"  # a path that is cut off names nothing
    for artifact in found:
        manifest = artifact.manifest
        height, width = manifest.resolution
        batch = f" b{manifest.batch}" if manifest.batch != 1 else ""
        if isinstance(manifest, GraphManifest):
            precision = f"graph, opset {manifest.opset}"
        else:
            precision = manifest.engine.executed_precision
        measured = manifest.parity.measured
        table.add_row(
            str(artifact.path),
            f"{manifest.name} {height}x{width}{batch}",
            precision,
            "" if measured is None else f"{measured.max_rel:.1e}",
            f"{manifest.file.size_bytes / 1e6:.1f}",
        )
    return table


def _unit(unit: str) -> str:
    return {"m": "metres"}.get(unit, unit)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_readable(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
