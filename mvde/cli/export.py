"""``mvde export``: a checkpoint → ONNX graphs at fixed resolutions, each measured against PyTorch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

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
    batch: Annotated[int, typer.Option("--batch", help="Images per call.")] = 1,
    opset: Annotated[
        int, typer.Option("--opset", help="ONNX opset, 18 to 23; 20 for parsers without the Attention operator.")
    ] = 23,
    photo: Annotated[
        list[Path] | None,
        typer.Option("--photo", help="Photograph for the parity check; repeatable. Default: those that ship."),
    ] = None,
) -> None:
    """Export a model to ONNX; a graph that differs from PyTorch by more than 1e-4 is not written."""
    from rich.console import Console

    from mvde.config import parse_resolution

    resolutions = [parse_resolution(text) for text in res or ()]
    load, source = _model_loader(checkpoint, config, random_weights)
    with Console(stderr=True).status("loading the model") as status:
        from mvde.export.onnx import export_onnx

        tracer = _tracer(load, source)
        paths = export_onnx(tracer, resolutions, out, name, opset, batch, photos=photo, progress=status.update)
    for path in paths:
        _report(path)


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

    manifest = read_manifest(path)
    parity = manifest.parity
    print(
        f"{path}: opset {manifest.opset}, {manifest.file.size_bytes / 1e6:.1f} MB; against PyTorch on "
        f"{len(parity['photos'])} photographs |Δdepth|/depth max {parity['max_rel']:.1e}, mean {parity['mean_rel']:.1e}"
    )
