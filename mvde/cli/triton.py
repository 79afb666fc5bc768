"""``mvde triton``: a graph or a TensorRT engine → a model repository of NVIDIA Triton."""

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
        Path, typer.Argument(metavar="ARTEFACT", help="A graph, fp32 or lowered, or the folder of a tensorrt engine.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} The root of the model repository.")],
) -> None:
    """Write a Triton model repository: bytes in, depth and patch statistics out."""
    from mvde.artifact import load_artifact
    from mvde.errors import UsageError
    from mvde.export.triton import write_repository

    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out takes the folder of a model repository")
    loaded = load_artifact(artefact / "engine.json" if artefact.is_dir() else artefact)
    folder = write_repository(loaded, out)[-1]
    image, depth = loaded.manifest.inputs[0], loaded.manifest.outputs[0]
    say(f"{folder}: {image.name} {list(image.shape)} {image.dtype} -> {depth.name} {list(depth.shape)}, stats")
