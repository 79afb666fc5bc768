"""``mvde build``: exported graphs → engines for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mvde.artifact import Artifact


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("build")(build)


def build(
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            "-e",
            help="Engine id, [backend:]precision, e.g. fp16 or openvino:bf16; repeatable. Default: the best one here.",
        ),
    ] = None,
    res: Annotated[
        list[str] | None, typer.Option("--res", help="Resolution of the graph, H or HxW; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Model name, where several were exported.")] = None,
    onnx: Annotated[Path | None, typer.Option("--onnx", help="An exported graph, instead of --name and --res.")] = None,
    export_dir: Annotated[Path, typer.Option("--export-dir", help="Folder that `mvde export` wrote to.")] = Path(
        "export"
    ),
    out: Annotated[Path, typer.Option("--out", help="Folder for the engines.")] = Path("engines"),
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of photographs to measure parity on. Default: those that ship."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads. Default: the library's choice.")
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option("--provider", help="For onnxruntime: cpu, cuda or tensorrt. Default: the best there is."),
    ] = None,
) -> None:
    """Build engines for this machine from exported graphs.

    Each engine is compared with its fp32 graph on photographs and is kept only if depth and patch statistics agree.
    """
    from rich.console import Console

    from mvde.cli.options import fitted_photographs
    from mvde.engines.base import BuildOptions, EngineId
    from mvde.engines.build import build_engine
    from mvde.engines.store import best_engine_id, resolve
    from mvde.export.precision import lower_graph

    ids = [resolve(EngineId.parse(text)) for text in engine] if engine else [best_engine_id()]
    sources = _sources(onnx, name, res, export_dir)
    console = Console(stderr=True)
    for source in sources:
        photographs = fitted_photographs(source.manifest.resolution, images)
        for engine_id in dict.fromkeys(ids):
            with console.status(f"building {engine_id} from {source.path}"):
                report = build_engine(
                    source,
                    engine_id,
                    photographs,
                    root=out,
                    options=BuildOptions(num_threads=threads, provider=provider),
                    lower_graph=lower_graph,
                )
            record = report.manifest.engine
            assert record is not None
            print(f"{report.folder}: {engine_id}, computes in {record.executed_precision} on {record.device}")
            print(
                f"  compiled in {report.compile_s:.2f} s, loads in {report.load_s:.2f} s; against fp32 {report.parity}"
            )


def _sources(onnx: Path | None, name: str | None, res: list[str] | None, export_dir: Path) -> list[Artifact]:
    """The exported graphs that the options name; with none of them, the only one there is."""
    from mvde.artifact import find_onnx, list_artifacts, load_artifact
    from mvde.config import parse_resolution
    from mvde.errors import ArtifactError, UsageError

    if onnx is not None:
        if name or res:
            raise UsageError("--onnx names one graph; leave --name and --res out")
        return [find_onnx(onnx)]
    if name is None:
        names = {found.manifest.name for found in list_artifacts(export_dir, "onnx")}
        if not names:
            raise ArtifactError(f"{export_dir}/ holds no exported graph; write one: mvde export --res 896")
        if len(names) > 1:
            raise ArtifactError(f"{export_dir}/ holds graphs of {', '.join(sorted(names))}; say which with --name")
        name = names.pop()
    if res:
        return [find_onnx(name, parse_resolution(text), export_dir) for text in res]
    matches = [found for found in list_artifacts(export_dir, "onnx") if found.manifest.name == name]
    if not matches:
        return [find_onnx(name, None, export_dir)]  # raises, listing what there is
    return [load_artifact(found.path) for found in matches]
