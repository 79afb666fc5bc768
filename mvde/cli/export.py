"""``mvde export``: export a depth model to ONNX graphs at fixed resolutions, verified against PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.cli.groups import with_groups
from mvde.cli.photographs import readable_photographs
from mvde.cli.shared_options import (
    BATCH_HELP,
    CONFIG_HELP,
    IMAGES_HELP,
    KIND_HELP,
    NAME_HELP,
    OUT_HELP,
    RES_HELP,
    TRANSFORMERS_HELP,
    CameraOptions,
)
from mvde.cli.terminal import console, say
from mvde.contract import DepthKind
from mvde.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mvde.export.exportable import ExportableModel
    from mvde.export.exporter import Exporter
    from mvde.model import DepthModel


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("export")(with_groups(export))


@dataclass(frozen=True)
class ExportCamera(CameraOptions):
    """Camera that metric depth is converted to; ``frame`` alone chooses the resolution of a model of transformers."""

    def _check_frame(self) -> None:
        """``--frame`` needs no camera here."""


@dataclass(frozen=True)
class ModelSource:
    """Weights and configuration of the model to export: mvde's own, or a depth model of transformers."""

    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Checkpoint (.safetensors). Default: the bundled nano model."),
    ] = None
    config: Annotated[
        Path | None, typer.Option("--config", help=f"{CONFIG_HELP} Overrides the one in the checkpoint.")
    ] = None
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Use --config with random weights, for timing only.")
    ] = False

    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME|DIR", help=f"{TRANSFORMERS_HELP} Of depth; see `mvde models`."),
    ] = None
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="SHA", help="Revision of --model on the hub.")
    ] = None
    kind: Annotated[
        DepthKind | None,
        typer.Option("--kind", help=f"{KIND_HELP} Needed if neither --model nor mvde states it."),
    ] = None
    domain: Annotated[
        str | None, typer.Option("--domain", help="Head of a ZoeDepth model with several, e.g. nyu or kitti.")
    ] = None

    def __post_init__(self) -> None:
        if self.model is None and (self.revision, self.kind, self.domain) != (None, None, None):
            raise UsageError("--revision, --kind and --domain are about --model; give it, too")
        if self.model is not None:
            if self.random_weights or self.config is not None or self.checkpoint is not None:
                raise UsageError("--model excludes --checkpoint, --config and --random-weights")
            return
        if self.random_weights and (self.config is None or self.checkpoint is not None):
            raise UsageError("--random-weights requires --config and excludes --checkpoint")
        if self.config is not None and self.checkpoint is None and not self.random_weights:
            raise UsageError(
                f"{self.config} describes an architecture without weights; give --checkpoint FILE as well, or "
                "--random-weights for a graph for timing only"
            )


def export(
    *,
    res: Annotated[list[str] | None, typer.Option("--res", help=f"{RES_HELP} Default: native.")] = None,
    model: ModelSource,
    out: Annotated[Path, typer.Option("--out", "-o", help=OUT_HELP)] = Path("export"),
    name: Annotated[str | None, typer.Option("--name", help=f"{NAME_HELP} Default: from the configuration.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help=BATCH_HELP)] = 1,
    opset: Annotated[
        int, typer.Option("--opset", help="ONNX opset, 18 to 23. Use 20 for parsers without the Attention operator.")
    ] = 23,
    images: Annotated[Path | None, typer.Option("--images", help=IMAGES_HELP)] = None,
    camera: ExportCamera,
) -> None:
    """Export a model to ONNX and verify it against PyTorch.

    A graph that deviates by more than 1e-4 is not written. Metric depth refers to a canonical camera; --camera or
    --fov converts the graph to yours. Then quantise it with `mvde lower`, or compile it with `mvde build`.
    """
    from mvde.resolution import parse_resolution

    photos = None if images is None else readable_photographs(images)
    resolutions = [parse_resolution(text) for text in res or ()]
    frame = _frame(model, camera, resolutions)
    _require_packages()
    load, source = _model_loader(model)
    focal = camera.relative_focal
    if focal is not None:
        load = partial(_for_camera, load, focal)
    with console(stderr=True).status("loading the model") as status:
        from mvde.export.onnx import export_onnx

        exporter = _exporter(load, source)
        progress = status.update
        paths = export_onnx(
            exporter, resolutions, out, name, opset, batch, photos=photos, frame=frame, progress=progress
        )
    for path in paths:
        _report(path)


def _frame(model: ModelSource, camera: CameraOptions, resolutions: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Frame (H, W) that the resolution is chosen for; ``None`` if it is given or native."""
    from mvde.resolution import parse_resolution

    if camera.frame is None:
        return None
    if model.model is None:
        if camera.camera is None:
            raise UsageError(
                "--frame is the frame size for --camera or --model; give --camera fx,fy,cx,cy too, or --model"
            )
        return None
    if resolutions and camera.camera is None:
        raise UsageError("--frame and --res both choose the resolution; give one of them")
    return parse_resolution(camera.frame)


def _model_loader(model: ModelSource) -> tuple[Callable[[], ExportableModel], Path | None]:
    """Function that loads the model, and the file of its weights (None for random weights)."""
    from mvde.assets import shipped_checkpoint

    if model.model is not None:
        return partial(_family_model, model.model, model.revision, model.kind, model.domain), None
    if model.random_weights and model.config is not None:
        return partial(_untrained_model, model.config), None
    checkpoint = model.checkpoint or shipped_checkpoint()
    return partial(_trained_model, checkpoint, model.config), checkpoint


def _exporter(load: Callable[[], ExportableModel], source: Path | None) -> Exporter:
    """Run PyTorch in a child process, so that its memory is released before ONNX Runtime needs it.

    If PyTorch is already loaded in this process, run it here, since a child would only add memory.
    """
    import sys

    from mvde.export.exporter import LocalExporter
    from mvde.export.subprocess_exporter import SubprocessExporter

    return (LocalExporter if "torch" in sys.modules else SubprocessExporter)(load, source)


def _family_model(name: str, revision: str | None, kind: DepthKind | None, domain: str | None) -> ExportableModel:
    from mvde.families import load_family_model

    return load_family_model(name, kind=kind, revision=revision, domain=domain)


def _trained_model(checkpoint: Path, config: Path | None) -> DepthModel:
    from mvde.model import DepthModel

    if config is None:
        return DepthModel.load(checkpoint)
    model = _untrained_model(config)
    model.load_weights(checkpoint)
    return model


def _for_camera(load: Callable[[], ExportableModel], focal: float) -> ExportableModel:
    from mvde.model import DepthModel

    model = load()
    if not isinstance(model, DepthModel):
        raise UsageError(
            "--camera and --fov are folded into mvde's own models only; give the camera when the engine runs, or leave "
            "it out"
        )
    model.set_camera(focal)
    return model


def _untrained_model(config: Path) -> DepthModel:
    """Build a model with random weights, the same on every run, without hub access."""
    import dataclasses

    import torch

    from mvde.config import load_config
    from mvde.model import DepthModel

    loaded = load_config(config)
    torch.manual_seed(0)
    return DepthModel(dataclasses.replace(loaded, vit=dataclasses.replace(loaded.vit, pretrained=False))).eval()


def _require_packages() -> None:
    """Raise :class:`MissingDependencyError` unless the packages of the extra ``export`` are installed."""
    import importlib.util

    from mvde.errors import MissingDependencyError

    for package in ("torch", "transformers", "safetensors", "einops", "omegaconf", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError.for_extra(package, "export", "exporting a model")


def _report(path: Path) -> None:
    """Print a graph's properties and its measured parity."""
    from mvde.artifact import load_graph

    manifest = load_graph(path).manifest
    photos, measured, is_inverse = manifest.parity.photos, manifest.parity.measured, manifest.depth_kind.is_inverse
    what = "|Δ| relative to the map's range" if is_inverse else "|Δdepth|/depth"
    say(
        f"{path}: {manifest.depth_kind} ({manifest.unit}), opset {manifest.opset}, "
        f"{manifest.file.size_bytes / 1e6:.1f} MB; against PyTorch on {len(photos)} photographs {what} max "
        f"{measured.max_rel:.1e}, mean {measured.mean_rel:.1e}"
    )
