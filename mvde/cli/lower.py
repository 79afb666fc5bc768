"""``mvde lower``: convert an fp32 graph to lower precisions, verified on held-out images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.cli.choices import AttentionSums, LoweredTo, Rest
from mvde.cli.groups import with_groups
from mvde.cli.shared_options import REST_HELP, DataOptions, QuantizationOptions
from mvde.cli.terminal import console, printable, say
from mvde.precision import Precision

if TYPE_CHECKING:
    from mvde.artifact import GraphArtifact
    from mvde.export.precision import LowerOptions

_JUDGING_FRAMES = 64
"""Default number of data set frames that judge a graph; ONNX Runtime computes each of them twice."""


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("lower")(with_groups(lower))


def lower(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH", help="fp32 graph from `mvde export`.")],
    to: Annotated[list[LoweredTo], typer.Option("--to", help="Precision of the graph to write; repeatable.")],
    quantization: QuantizationOptions,
    data: DataOptions,
    attention: Annotated[
        AttentionSums, typer.Option("--attention", help="Sums of fp16 attention; fp32 is for TensorRT from 11.3.")
    ] = AttentionSums.FP16,
    rest: Annotated[Rest, typer.Option("--rest", help=f"{REST_HELP} fp32 suits CPUs, fp16 TensorRT.")] = Rest.FP32,
    weight_bits: Annotated[
        int,
        typer.Option(
            "--weight-bits", min=7, max=8, help="Bits of int8 weights; 7 for x86 CPUs without VNNI, where 8 saturate."
        ),
    ] = 8,
) -> None:
    """Convert an fp32 graph to lower precisions with explicit types.

    Each graph is compared with the fp32 one on held-out images and, with --data, against ground truth; it is only
    written if it stays within tolerance.
    """
    from mvde.artifact import find_onnx
    from mvde.export.precision.images import lower_options

    source, dataset = find_onnx(graph), data.open()
    options = lower_options(
        source.manifest,
        quantization.quantization_images,
        quantization.method,
        rest.precision,
        dataset,
        _JUDGING_FRAMES if data.max_frames is None else data.max_frames or len(dataset or ()),
        data.data.name if data.data else "",
        None if dataset is None else data.evaluation(dataset),
        weight_bits,
    )
    for lowered_to in dict.fromkeys(to):  # without duplicates
        _lower(source, lowered_to.precision, replace(options, attention=attention.precision))


def _lower(source: GraphArtifact, precision: Precision, options: LowerOptions) -> None:
    """Write the typed graph beside the fp32 one and print a report."""
    from rich.markup import escape

    from mvde.export.precision import write_typed

    what = f"lowering {source.path} to {precision}"
    with console(stderr=True).status(printable(escape(what))) as status:
        told = replace(options, progress=lambda message: status.update(escape(f"{what}: {message}")))
        typed = write_typed(source, precision, told)
    for line in _description(typed):
        say(line)


def _description(typed: GraphArtifact) -> list[str]:
    """Report lines on a typed graph and its gate results."""
    record = typed.manifest.lowering
    if record is None:
        return []
    nodes = ", ".join(f"{count} in {dtype}" for dtype, count in record.num_by_dtype.items())
    lines = [f"{typed.path}: nodes {nodes}; {typed.manifest.file.size_bytes / 1e6:.1f} MB"]
    lines += [f"  {item.group} stays in {item.dtype}: {item.reason}" for item in record.kept]
    balanced = record.calibration.balanced if record.calibration else {}
    lines += [f"  {kind}: {what}" for kind, what in balanced.items()]
    for run in record.gate.runs if record.gate else ():
        truth = "" if run.truth != "ground truth" else f"AbsRel {run.abs_rel_change:+.2%} of the fp32 graph's, "
        lines.append(
            f"  on {run.num_images} images ({run.images}; against {run.truth}): {truth}"
            f"|Δdepth|/depth mean {run.measured.mean_rel:.1e}, p99 {run.measured.p99_rel:.1e}"
        )
    return lines
