"""The verbs: names and summaries. A verb's module is imported when the verb is used or asked for help."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Iterable

VERBS = {
    "models": "List the families and checkpoints that can be exported, and the presets for ONNX files.",
    "export": "Export a model to ONNX and verify it against PyTorch.",
    "import": "Import a depth model from an ONNX file and verify it against the file.",
    "lower": "Convert an fp32 graph to lower precisions with explicit types.",
    "build": "Build engines for this machine from exported graphs.",
    "prove": "Measure the parity of an engine on this machine.",
    "triton": "Write a model repository for NVIDIA Triton.",
    "run": "Estimate depth and patch statistics of images, videos, robot logs and live sources.",
    "view": "Watch depth of pictures, videos, robot logs and live sources.",
    "bench": "Benchmark engines end to end, from image to patch statistics.",
    "eval": "Compute depth metrics of a checkpoint or engine.",
    "stats": "Compute patch statistics of any number of pictures.",
    "calibrate": "Calibrate engines.",
    "train": "Train a depth model.",
    "data": "Generate and pack data sets.",
    "vlm": "Depth for vision-language models.",
    "info": "Show the manifest of an artefact or a calibration, or list artefacts.",
    "doctor": "Show hardware, libraries and engines of this machine, or of a --target.",
}
"""What each verb does: the first line of its help."""

_MODULES = {"import": "import_onnx"}
"""Modules of verbs whose name is a keyword of Python."""


class Verb(TyperCommand):
    """A verb in the list of ``mvde --help``: all 18 with their options would take twice as long as importing typer."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=VERBS[name], callback=None, rich_markup_mode=None)

    def load(self) -> Any:
        """Import the verb's module and return its command."""
        assert self.name is not None
        return typer.main.get_group(application([self.name])).commands[self.name]

    def make_context(self, *arguments: Any, **keywords: Any) -> Any:
        """Parse the verb's arguments; the context's command is the loaded one."""
        return self.load().make_context(*arguments, **keywords)


def application(verbs: Iterable[str]) -> typer.Typer:
    """Create a typer application with ``verbs`` registered; verbs import heavy libraries when they run."""
    app = typer.Typer(
        name="mvde",
        help="Estimate metric depth and per-patch depth statistics from a single camera.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # importing rich would double the time of `mvde --help`
    )
    for verb in verbs:
        importlib.import_module(f"mvde.cli.{_MODULES.get(verb, verb)}").register(app)
    return app
