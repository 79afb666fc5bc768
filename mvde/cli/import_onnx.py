"""``mvde import``: bring a third-party ONNX file, checked against the original."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.cli.groups import with_groups
from mvde.cli.photographs import readable_photographs
from mvde.cli.shared_options import (
    BATCH_HELP,
    IMAGES_HELP,
    NAME_HELP,
    OUT_HELP,
    RES_HELP,
    MeaningOptions,
    PixelOptions,
)
from mvde.cli.terminal import console, say
from mvde.contract import stretched
from mvde.errors import UsageError
from mvde.export.imported.contract import ImportContract, Layout, parse_output
from mvde.export.imported.presets import PRESETS, preset_named

if TYPE_CHECKING:
    from mvde.export.imported.importer import Imported

DEFAULT_PATCH = 16


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("import")(with_groups(import_onnx))


@dataclass(frozen=True)
class TensorOptions:
    """Tensors of the file, where its shapes leave them open."""

    input: Annotated[
        str | None, typer.Option("--input", metavar="NAME", help="Picture input of the file. Default: its only input.")
    ] = None
    output: Annotated[
        tuple[str, ...],
        typer.Option(
            "--output",
            metavar="NAME=ROLE",
            help="Output of the file and its role: depth, sky:THRESHOLD, mask:THRESHOLD or confidence; repeatable. "
            "Default: the only map of the input's size, as depth, and what the preset names.",
        ),
    ] = ()
    layout: Annotated[
        Layout | None, typer.Option("--layout", help="Order of the input's axes. Default: from its shape.")
    ] = None
    map_scale: Annotated[
        float | None,
        typer.Option("--map-scale", help="Factor from the file's map to the unit of --kind, e.g. 0.001. Default: 1."),
    ] = None


def import_onnx(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="ONNX file, opset 11 to 23.")],
    res: Annotated[
        list[str] | None, typer.Option("--res", help=f"{RES_HELP} Default: the one that the file is fixed to.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help=f"Published contract, which other options override: {', '.join(PRESETS)}."),
    ] = None,
    pixels: PixelOptions,
    meaning: MeaningOptions,
    tensors: TensorOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help=OUT_HELP)] = Path("export"),
    name: Annotated[str | None, typer.Option("--name", help=f"{NAME_HELP} Default: the file's name.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help=BATCH_HELP)] = 1,
    opset: Annotated[
        int, typer.Option("--opset", help="ONNX opset, 18 to 23. Use 20 for parsers without the Attention operator.")
    ] = 23,
    images: Annotated[Path | None, typer.Option("--images", help=IMAGES_HELP)] = None,
) -> None:
    """Import a depth model from an ONNX file and verify it against the file.

    The graph takes the camera's bytes and is run by every engine; a graph that differs from the file is not written.
    Without --preset, --kind, --mean and --std say what the numbers mean.
    """
    from mvde.resolution import parse_resolution

    contract = contract_of(preset, pixels, meaning, tensors)
    resolutions = [parse_resolution(text) for text in res or ()]
    photos = None if images is None else tuple(readable_photographs(images))
    with console(stderr=True).status("importing the file") as status:
        from mvde.export.imported.importer import ImportRequest, import_onnx

        request = ImportRequest(
            path=file,
            contract=contract,
            name=file.stem if name is None else name,
            batch=batch,
            opset=opset,
            input_name=tensors.input,
            layout=tensors.layout,
            photos=photos,
        )
        imported = import_onnx(request, resolutions, out, status.update)
    for each in imported:
        _report(each)


def contract_of(
    preset: str | None, pixels: PixelOptions, meaning: MeaningOptions, tensors: TensorOptions
) -> ImportContract:
    """Contract of a preset with the options that override it, or of the options alone.

    Raises :class:`UsageError` where neither says what the numbers mean.
    """
    given = meaning.given
    if tensors.map_scale is not None:
        given["map_scale"] = tensors.map_scale
    if preset is None:
        base = _contract_without_preset(pixels, meaning)
    else:
        base = preset_named(preset).contract
        if "kind" in given and not given["kind"].has_canonical_camera:
            given = {"canonical_focal": None, "focal_convention": None, **given}
        given["preprocess"] = dataclasses.replace(base.preprocess, **pixels.given)
    if tensors.output:  # these and no others
        given["outputs"] = tuple(parse_output(text, base.usual_outputs) for text in tensors.output)
        given["usual_outputs"] = ()
    return dataclasses.replace(base, **given)


def _contract_without_preset(pixels: PixelOptions, meaning: MeaningOptions) -> ImportContract:
    values = pixels.given
    missing = [f"--{option}" for option in ("mean", "std") if option not in values]
    if meaning.kind is None or missing:
        missing = [*(["--kind"] if meaning.kind is None else []), *missing]
        raise UsageError(
            f"an ONNX file does not say what its numbers mean: give --preset ({', '.join(PRESETS)}), or "
            f"{', '.join(missing)} (--mean 0 --std 1 where the graph normalises its pixels itself)"
        )
    preprocess = dataclasses.replace(stretched(values["mean"], values["std"]), **values)
    stated = {"patch": DEFAULT_PATCH, **meaning.given}
    return ImportContract(preprocess=preprocess, **stated)


def _report(imported: Imported) -> None:
    """Print a graph's properties, its measured parity, and what became of further outputs."""
    manifest = imported.manifest
    measured, photos = manifest.parity.measured, manifest.parity.photos
    measure = "|Δ|/(p99-p1)" if manifest.depth_kind.is_inverse else "|Δdepth|/depth"
    say(
        f"{imported.path}: {manifest.depth_kind} ({manifest.unit}), opset {manifest.opset}, "
        f"{manifest.file.size_bytes / 1e6:.1f} MB; against {manifest.source.name} on {len(photos)} photographs "
        f"{measure} max {measured.max_rel:.1e}, mean {measured.mean_rel:.1e}"
    )
    kept = [str(output.role) for output in manifest.outputs[1:]]
    if kept:
        say(f"note: depth comes with {', '.join(kept)} of the file")
    if imported.dropped:
        names = ", ".join(map(repr, imported.dropped))
        say(f"note: the file's output {names} is not in the graph; keep it with --output NAME=ROLE")
