"""``mvde export``: a checkpoint → ONNX graphs at fixed resolutions, measured against PyTorch; and their typed forms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mvde.cli.lowering import Judgement
    from mvde.export.tracer import Tracer
    from mvde.model import DepthModel


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("export")(export)


def export(
    res: Annotated[
        list[str] | None,
        typer.Option("--res", help="Resolution in pixels, H or HxW; repeatable. Default: the model's native one."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Weights (.safetensors) with their configuration. Default: the nano model."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Configuration (.yaml) to use instead of the one inside the checkpoint."),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Export --config without trained weights: for timing only."),
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder for the graphs.")] = Path("export"),
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the artefacts. Default: the configuration's.")
    ] = None,
    fov: Annotated[
        str | None,
        typer.Option(
            "--fov",
            help="Field of view of the camera that depth will be for, HORIZONTALxVERTICAL in degrees, e.g. 69x42. "
            "Default: the model's canonical one.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Images per call.")] = 1,
    opset: Annotated[
        int, typer.Option("--opset", help="ONNX opset, 18 to 23; 20 for parsers without the Attention operator.")
    ] = 23,
    photo: Annotated[
        list[Path] | None,
        typer.Option("--photo", help="Photograph for the parity check; repeatable. Default: those that ship."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="Also write a typed graph: fp16, bf16, int8 or fp8; repeatable."),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option("--onnx", help="With --precision: an exported fp32 graph to lower, instead of exporting one."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="With --precision: folder of photographs that decide; every fourth judges. Default: those that ship.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="How int8 and fp8 ranges are taken: auto, minmax, percentile or entropy.")
    ] = "auto",
    rest: Annotated[
        str,
        typer.Option("--rest", help="What is not quantised in an int8 or fp8 graph: fp32 (CPUs) or fp16 (TensorRT)."),
    ] = "fp32",
    data: Annotated[
        Path | None, typer.Option("--data", help="With --precision: data set with depth that judges the typed graph.")
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="Of --data: folder, synthetic, nyu, kitti, tum, diode or hypersim.")
    ] = "folder",
    depth_scale: Annotated[
        float, typer.Option("--depth-scale", help="Stored value of one metre, for --format folder.")
    ] = 1000.0,
    max_frames: Annotated[int, typer.Option("--max-frames", min=1, help="Evenly spread frames of --data.")] = 64,
    triton: Annotated[
        Path | None,
        typer.Option(
            "--triton",
            help="Also write a Triton model repository here, of the last typed graph, or of --onnx (a graph or a "
            "tensorrt engine).",
        ),
    ] = None,
) -> None:
    """Export a model to ONNX; a graph that differs from PyTorch by more than 1e-4 is not written.

    With --precision, typed graphs are written beside it, each compared with the fp32 graph on held-out images.
    """
    from mvde.cli.lowering import Judgement

    judgement = Judgement(calibration, method, rest, data, data_format, depth_scale, max_frames)
    judgement.check(precision or [], onnx, triton)
    if onnx is not None:
        tracing: dict[str, object] = {
            "--res": res,
            "--checkpoint": checkpoint,
            "--config": config,
            "--random-weights": random_weights,
            "--fov": fov,
            "--name": name,
            "--photo": photo,
        }
        _check_unused(onnx, [option for option, given in tracing.items() if given])
        paths = [onnx]
    else:
        paths = _export(res, checkpoint, config, random_weights, fov, out, name, batch, opset, photo)
        for path in paths:
            _report(path)
    for path in paths:
        served = [_lower(path, wanted, judgement) for wanted in dict.fromkeys(precision or ())]
        if triton is not None:
            _serve((served or [path])[-1], triton)


def _check_unused(onnx: Path, given: list[str]) -> None:
    """Nothing, if no option of tracing is ``given`` beside a graph that is traced already."""
    from mvde.errors import UsageError

    if given:
        raise UsageError(
            f"{' and '.join(given)} would change nothing, since {onnx} is exported already; leave that out, or leave "
            "--onnx out to export anew"
        )


def _serve(path: Path, root: Path) -> None:
    """Nothing; writes a Triton model repository of the artefact at ``path`` and says what it takes."""
    from mvde.artifact import load_artifact
    from mvde.export.triton import write_repository

    artifact = load_artifact(path)
    folder = write_repository(artifact, root)[-1]
    image, depth = artifact.manifest.inputs[0], artifact.manifest.outputs[0]
    print(f"{folder}: {image.name} {list(image.shape)} {image.dtype} -> {depth.name} {list(depth.shape)}, stats")


def _lower(path: Path, precision: str, judgement: Judgement) -> Path:
    """Path of the typed graph written beside the one at ``path``, after saying what it is."""
    from rich.console import Console
    from rich.markup import escape

    from mvde.artifact import find_onnx
    from mvde.cli.lowering import describe
    from mvde.export.precision import write_typed

    source = find_onnx(path)
    what = f"lowering {path} to {precision}"
    with Console(stderr=True).status(escape(what)) as status:
        options = judgement.options(source.manifest)
        told = replace(options, progress=lambda message: status.update(escape(f"{what}: {message}")))
        typed = write_typed(source, precision, told)
    for line in describe(typed):
        print(line)
    return typed.path


def _export(
    res: list[str] | None,
    checkpoint: Path | None,
    config: Path | None,
    random_weights: bool,
    fov: str | None,
    out: Path,
    name: str | None,
    batch: int,
    opset: int,
    photo: list[Path] | None,
) -> list[Path]:
    """Paths of the fp32 graphs written."""
    from rich.console import Console

    from mvde.camera import focal_from_fov, parse_fov
    from mvde.image import read_image
    from mvde.resolution import parse_resolution

    focal = None if fov is None else focal_from_fov(parse_fov(fov))
    for path in photo or ():
        read_image(path)  # refuses, before minutes of tracing, what `mvde run` would refuse
    resolutions = [parse_resolution(text) for text in res or ()]
    load, source = _model_loader(checkpoint, config, random_weights)
    if focal is not None:
        load = partial(_for_camera, load, focal)
    with Console(stderr=True).status("loading the model") as status:
        from mvde.export.onnx import export_onnx

        tracer = _tracer(load, source)
        return export_onnx(tracer, resolutions, out, name, opset, batch, photos=photo, progress=status.update)


def _model_loader(
    checkpoint: Path | None, config: Path | None, random_weights: bool
) -> tuple[Callable[[], DepthModel], Path | None]:
    """What loads the model to export, and the file that its weights come from (none for random weights)."""
    from mvde.errors import UsageError

    _require_packages()
    if random_weights:
        if config is None or checkpoint is not None:
            raise UsageError("--random-weights goes with --config and without --checkpoint")
        return partial(_untrained_model, config), None
    if checkpoint is None:
        if config is not None:
            raise UsageError(
                f"{config} describes an architecture but holds no weights; give --checkpoint FILE as well, or "
                "--random-weights for a graph that serves for timing only"
            )
        from mvde.assets import shipped_checkpoint

        checkpoint = shipped_checkpoint()
    return partial(_trained_model, checkpoint, config), checkpoint


def _tracer(load: Callable[[], DepthModel], source: Path | None) -> Tracer:
    """PyTorch's part in a process of its own, whose memory is free when ONNX Runtime needs as much.

    Where this process has PyTorch loaded already, another one would only add to it.
    """
    import sys

    from mvde.export.child import ChildTracer
    from mvde.export.tracer import LocalTracer

    return (LocalTracer if "torch" in sys.modules else ChildTracer)(load, source)


def _trained_model(checkpoint: Path, config: Path | None) -> DepthModel:
    from mvde.model import DepthModel

    if config is None:
        return DepthModel.load(checkpoint)
    model = _untrained_model(config)
    model.load_weights(checkpoint)
    return model


def _for_camera(load: Callable[[], DepthModel], focal: float) -> DepthModel:
    model = load()
    model.set_camera(focal)
    return model


def _untrained_model(config: Path) -> DepthModel:
    """Model of a configuration with random weights, the same on every run; nothing is fetched from a hub."""
    import dataclasses

    import torch

    from mvde.config import load_config
    from mvde.model import DepthModel

    loaded = load_config(config)
    torch.manual_seed(0)
    return DepthModel(dataclasses.replace(loaded, vit=dataclasses.replace(loaded.vit, pretrained=False))).eval()


def _require_packages() -> None:
    """Nothing, if the packages of the extra ``export`` are there; else an error that names it."""
    import importlib.util

    from mvde.errors import MissingDependencyError

    for package in ("torch", "transformers", "safetensors", "einops", "omegaconf", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError.for_extra(package, "export", "exporting a model")


def _report(path: Path) -> None:
    from mvde.artifact import read_manifest
    from mvde.manifest import GraphManifest

    manifest = read_manifest(path)
    assert isinstance(manifest, GraphManifest)
    measured = manifest.parity.measured
    print(
        f"{path}: opset {manifest.opset}, {manifest.file.size_bytes / 1e6:.1f} MB; against PyTorch on "
        f"{len(manifest.parity.photos)} photographs |Δdepth|/depth max {measured.max_rel:.1e}, "
        f"mean {measured.mean_rel:.1e}"
    )
