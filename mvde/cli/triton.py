"""``mvde triton``: write a graph or TensorRT engine as an NVIDIA Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.shared_options import OUT_HELP
from mvde.cli.terminal import say


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("triton")(triton)


def triton(
    artefact: Annotated[
        Path, typer.Argument(metavar="ARTEFACT", help="Graph (fp32 or lowered), or folder of a tensorrt engine.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} Root of the model repository.")],
) -> None:
    """Write a model repository for NVIDIA Triton.

    The model takes uint8 images and returns depth and patch statistics.
    """
    from mvde.artifact import load_artifact
    from mvde.errors import UsageError
    from mvde.export.triton import write_repository

    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out must be a folder")
    loaded = load_artifact(artefact / "engine.json" if artefact.is_dir() else artefact)
    folder = write_repository(loaded, out)[-1]
    image, depth = loaded.manifest.inputs[0], loaded.manifest.outputs[0]
    say(f"{folder}: {image.name} {list(image.shape)} {image.dtype} -> {depth.name} {list(depth.shape)}, stats")
