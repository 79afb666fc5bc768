"""``mvde train``: train a model from a configuration; writes weights, checkpoints and logs to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.shared_options import CONFIG_HELP


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("train")(train)


def train(
    config: Annotated[Path, typer.Option("--config", help=f"{CONFIG_HELP} E.g. configs/nano.yaml.")],
    output_dir: Annotated[
        Path,
        typer.Option("--output_dir", "--output-dir", help="Run folder; an existing run is resumed."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Configuration overrides, e.g. train.lr=1e-3 data.train=data/synth192."),
    ] = None,
) -> None:
    """Train a depth model.

    Use `accelerate launch -m mvde train ...` for several processes. data.format is one of folder, synthetic, clips,
    nyu, kitti, tum, 7scenes, diode, hypersim, shards. Ctrl-C finishes the current step and saves the state; the same
    command resumes.
    """
    from mvde.config import override_config
    from mvde.errors import MissingDependencyError

    settings = override_config(config, overrides or [])
    try:
        from mvde.pipelines.train_depth import DepthTrainingPipeline
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "train", "training") from error
    result = DepthTrainingPipeline(settings).train(output_dir)
    if result.interrupted:
        typer.echo(
            f"mvde: stopped after step {result.step} of {result.num_steps}; the same command resumes from there",
            err=True,
        )
        raise typer.Exit(130)
