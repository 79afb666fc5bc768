"""``mvde eval``: depth metrics of a checkpoint or of an engine over a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mvde.alignment import Alignment
    from mvde.datasets.sample import DepthDataset
    from mvde.metrics import MetricTotals


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("eval")(evaluate)


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="Folder (or file) of the data set.")],
    target: Annotated[
        str | None,
        typer.Argument(help="Checkpoint (.safetensors), engine folder or engine id. Default: the model that ships."),
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="folder, synthetic, nyu, kitti, tum, diode or hypersim.")
    ] = "folder",
    depth_scale: Annotated[
        float, typer.Option("--depth-scale", help="Stored value of one metre, for --format folder.")
    ] = 1000.0,
    res: Annotated[str | None, typer.Option("--res", help="Resolution in pixels, H or HxW. Default: native.")] = None,
    align: Annotated[
        list[str] | None,
        typer.Option("--align", help="none, median, scale or scale_shift (in inverse depth); repeatable."),
    ] = None,
    max_frames: Annotated[
        int, typer.Option("--max-frames", help="Evenly spread frames to take; 0 for all.", min=0)
    ] = 0,
    assume_camera: Annotated[
        bool,
        typer.Option(
            "--assume-camera",
            help="Ignore the frames' intrinsics: take every picture for one of the model's canonical camera.",
        ),
    ] = False,
    json_: Annotated[
        Path | None, typer.Option("--json", help="Also write the metrics, per image and overall, to this file.")
    ] = None,
) -> None:
    """Print AbsRel, SqRel, RMSE, RMSE-log, SILog, log10 and delta accuracies; engines and checkpoints alike."""
    from mvde.assets import shipped_checkpoint
    from mvde.datasets.formats import open_dataset
    from mvde.files import atomic_write
    from mvde.pipelines.eval_depth import evaluate as evaluate_predictor
    from mvde.pipelines.eval_depth import open_source
    from mvde.resolution import parse_resolution

    source = target if target is not None else str(shipped_checkpoint())
    dataset = open_dataset(data_format, data, depth_scale)
    opened = open_source(source, parse_resolution(res) if res else None)
    camera = _camera(opened.canonical_focal, dataset, assume_camera)
    focal = opened.canonical_focal if camera == "known" else None
    totals = evaluate_predictor(
        opened.predict, dataset, opened.depth_range_m, align or ["none"], max_frames=max_frames, canonical_focal=focal
    )
    size = opened.resolution
    title = f"{Path(source).name} at {size[0]}x{size[1]}, {data}" + (f", camera {camera}" if camera else "")
    _print_table(title, totals)
    if json_ is not None:
        plain = {
            "target": Path(source).name,
            "resolution": list(size),
            "depth_range_m": list(opened.depth_range_m),
            "canonical_focal": opened.canonical_focal,
            "camera": camera,
            "alignments": {alignment: total.to_dict() for alignment, total in totals.items()},
        }
        with atomic_write(json_) as temporary:
            temporary.write_text(json.dumps(plain, indent=2) + "\n")


def _camera(canonical_focal: float | None, dataset: DepthDataset, assume: bool) -> str | None:
    """Whether depth for a canonical camera is brought to each frame's: ``"known"``, or ``"assumed"`` to be that one.

    ``None`` for depth that is for no camera in particular. A data set has intrinsics of all of its frames or of none.
    """
    if canonical_focal is None:
        return None
    return "assumed" if assume or len(dataset) == 0 or dataset[0].focal is None else "known"


def _print_table(title: str, totals: dict[Alignment, MetricTotals]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = {alignment: total.overall() for alignment, total in totals.items()}
    count = len(next(iter(totals.values())).per_image)
    table = Table(title=f"{title}, {count} images", title_justify="left")
    table.add_column("metric")  # a row each: a terminal of 80 columns would cut ten columns of them off
    for alignment in rows:
        table.add_column(f"aligned: {alignment}", justify="right")
    for name in next(iter(rows.values())):
        table.add_row(name, *(f"{metrics[name]:.4f}" for metrics in rows.values()))
    Console().print(table)
