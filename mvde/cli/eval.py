"""``mvde eval``: depth metrics of a checkpoint or engine on a data set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.alignment import Alignment, default_alignment
from mvde.cli.floor_options import FloorOptions
from mvde.cli.groups import with_groups
from mvde.cli.output import STDOUT, write_json
from mvde.cli.shared_options import CALIBRATION_HELP, JSON_HELP, RES_HELP, FilmedDataOptions, only
from mvde.cli.terminal import console, say
from mvde.errors import UsageError
from mvde.protocols import Averaging, EvaluationProtocol

if TYPE_CHECKING:
    from mvde.datasets.sample import DepthDataset
    from mvde.metrics import MetricTotals
    from mvde.pipelines.eval_depth import DepthSource
    from mvde.pipelines.eval_floor import FloorTotals, FrameMounting


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("eval")(with_groups(evaluate))


def evaluate(
    data: FilmedDataOptions,
    floor: FloorOptions,
    target: Annotated[
        str | None,
        typer.Argument(help="Checkpoint (.safetensors), engine folder or engine id. Default: the bundled checkpoint."),
    ] = None,
    res: Annotated[
        list[str] | None, typer.Option("--res", help=f"{RES_HELP} At most one here. Default: native.")
    ] = None,
    align: Annotated[
        list[Alignment] | None,
        typer.Option(
            "--align",
            help="Alignment of depth to the ground truth; repeatable. Default: by depth kind, none for metres.",
        ),
    ] = None,
    assume_camera: Annotated[
        bool,
        typer.Option(
            "--assume-camera",
            help="Ignore the frames' intrinsics and assume the model's canonical camera.",
        ),
    ] = False,
    averaging: Annotated[
        Averaging | None,
        typer.Option("--averaging", help="Average over images or pixels. Default: images, or set by --protocol."),
    ] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", metavar="FILE", help=CALIBRATION_HELP)] = None,
    own_floor: Annotated[
        bool,
        typer.Option("--floor", help="Take the camera's height and angles over the floor from the data set (clips)."),
    ] = False,
    json_path: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None,
) -> None:
    """Compute depth metrics of a checkpoint or engine.

    Prints AbsRel, SqRel, RMSE, RMSE-log, SILog, log10 and delta accuracies. All ground truth in the data set's range
    is evaluated, regardless of the model's range; predictions are clamped to it after alignment. --protocol sets
    range, crop, split and averaging of a published evaluation.

    With --floor, --mounting or --camera-height and --pitch an engine is also measured with the scale that the floor
    gives each frame that shows it.
    """
    from mvde.assets import shipped_checkpoint
    from mvde.pipelines.eval_depth import cameras_of, open_source
    from mvde.pipelines.eval_depth import evaluate as evaluate_predictor
    from mvde.pipelines.eval_floor import evaluate_floor
    from mvde.resolution import parse_resolution

    dataset = data.open()
    if dataset is None:
        raise UsageError("mvde eval needs frames with depth; name the data set: --data FOLDER")
    if assume_camera and data.frame_camera is not None:
        raise UsageError("--assume-camera ignores the camera, which --camera or --fov gives; leave one of them out")
    resolution = only(res or (), "--res", "mvde eval takes one resolution")
    source = target if target is not None else str(shipped_checkpoint())
    mounting_of = _mounting_of(floor, dataset, source, is_own=own_floor)
    opened = open_source(source, parse_resolution(resolution) if resolution else None, calibration)
    kind = opened.contract.depth_kind
    protocol = data.evaluation(dataset)
    protocol = protocol if averaging is None else replace(protocol, averaging=averaging)
    options: dict[str, Any] = {
        "alignments": align or [default_alignment(kind)],
        "max_frames": data.max_frames or 0,
        "kind": kind,
        "frame_camera": cameras_of(data.frame_camera, assumed=assume_camera),
    }
    totals, floored = evaluate_predictor(opened.predict, dataset, protocol, **options), None
    if mounting_of is not None and opened.runtime is not None:
        floored = evaluate_floor(opened.runtime, dataset, protocol, mounting_of, **options)
    camera = _camera(totals, is_given=data.frame_camera is not None) if kind.has_canonical_camera else None
    if json_path is not None:
        plain = _plain(Path(source).name, opened, camera, protocol, totals)
        if floored is not None:
            plain["floor"] = _plain_floor(floored, totals, protocol, mounting="known" if own_floor else "given")
        write_json(json_path, json.dumps(plain, indent=2))
    if json_path != STDOUT:
        title = "{} at {}x{}, {}".format(Path(source).name, *opened.resolution, data.data)
        title += f", camera {_in_words(camera, totals)}" if camera else ""
        title += f", calibrated: {opened.calibrated}" if opened.calibrated else ""
        _print_table(title, protocol, totals, floored)


def _mounting_of(floor: FloorOptions, dataset: DepthDataset, source: str, *, is_own: bool) -> FrameMounting | None:
    """Mounting of each frame; ``None`` where the floor is not asked for."""
    from mvde.pipelines.eval_floor import mountings_of

    if not is_own and not floor.is_given:
        return None
    if source.endswith(".safetensors"):
        raise UsageError(
            f"the floor gives an engine's depth its scale, but {source} is a checkpoint; give an engine (mvde build)"
        )
    if is_own and floor.is_given:
        raise UsageError(
            "--floor takes each frame's mounting from the data set; leave it out beside --mounting or --camera-height"
        )
    return mountings_of(dataset, floor.given())


def _plain(
    name: str,
    source: DepthSource,
    camera: str | None,
    protocol: EvaluationProtocol,
    totals: dict[Alignment, MetricTotals],
) -> dict[str, object]:
    """Metrics per image and overall, with their protocol, as JSON types.

    ``calibrated`` says where metres that are not the model's own come from, or null. ``valid_range`` is the model's
    output range, in the unit of ``depth_kind``; the range of evaluated ground truth is the protocol's. ``camera`` is
    known, given, assumed or mixed, or null for kinds without a canonical camera.
    """
    return {
        "target": name,
        "resolution": list(source.resolution),
        "depth_kind": source.contract.depth_kind,
        "calibrated": source.calibrated,
        "valid_range": list(source.valid_range),
        "canonical_focal": source.contract.canonical_focal,
        "focal_convention": source.contract.focal_convention,
        "camera": camera,
        "num_images_with_camera": next(iter(totals.values())).num_with_camera,
        "protocol": protocol.to_dict(),
        "ground_truth_counted": next(iter(totals.values())).share_counted,
        "alignments": {alignment: total.to_dict(protocol.averaging) for alignment, total in totals.items()},
    }


def _plain_floor(
    floored: FloorTotals, totals: Mapping[Alignment, MetricTotals], protocol: EvaluationProtocol, *, mounting: str
) -> dict[str, object]:
    """The same with the floor's scale, what it gave each image, and AbsRel of those that it gave one."""
    return {
        "mounting": mounting,
        "alignments": {alignment: total.to_dict(protocol.averaging) for alignment, total in floored.totals.items()},
        "abs_rel_where_used": {
            alignment: dict(zip(("without", "with"), both, strict=True))
            for alignment, both in floored.where_used(totals).items()
        },
        "images": {name: asdict(one) for name, one in floored.floors.items()},
    }


def _camera(totals: dict[Alignment, MetricTotals], *, is_given: bool) -> str:
    """``"known"``, ``"given"``, ``"assumed"`` or ``"mixed"``: the camera that each image's depth is for."""
    total = next(iter(totals.values()))
    if is_given or total.num_with_camera == 0:
        return "given" if is_given else "assumed"
    return "known" if total.num_with_camera == len(total.per_image) else "mixed"


def _in_words(camera: str, totals: dict[Alignment, MetricTotals]) -> str:
    total = next(iter(totals.values()))
    if camera != "mixed":
        return camera
    return f"known for {total.num_with_camera} of {len(total.per_image)} images, assumed for the others"


def _print_table(
    title: str,
    protocol: EvaluationProtocol,
    totals: dict[Alignment, MetricTotals],
    floored: FloorTotals | None = None,
) -> None:
    from rich.table import Table

    columns = {f"aligned: {alignment}": total for alignment, total in totals.items()}
    if floored is not None:
        columns |= {f"aligned: {alignment}, floor": total for alignment, total in floored.totals.items()}
    rows = {name: total.overall(protocol.averaging) for name, total in columns.items()}
    count = len(next(iter(totals.values())).per_image)
    table = Table(title=f"{title}, {count} images", title_justify="left")
    table.add_column("metric")  # one row per metric: ten columns do not fit a terminal of 80 characters
    for name in rows:
        table.add_column(name, justify="right")
    for name in next(iter(rows.values())):
        table.add_row(name, *(f"{metrics[name]:.4f}" for metrics in rows.values()))
    console().print(table)
    share = next(iter(totals.values())).share_counted
    say(f"{protocol.describe()}; {share:.1%} of the ground truth evaluated")
    if floored is not None:
        _say_floor(floored, totals)


def _say_floor(floored: FloorTotals, totals: Mapping[Alignment, MetricTotals]) -> None:
    """Say in how many frames the floor was found, and what its scale did there."""
    from mvde.runtime.floor import floor_text

    say(floor_text(Counter(one.status for one in floored.floors.values())))
    for alignment, (without, scaled) in floored.where_used(totals).items():
        say(f"AbsRel of these, aligned: {alignment}: {without:.4f} without the floor, {scaled:.4f} with it")
