"""``mvde prove``: measure an engine that was built without its device on the target machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.terminal import console, printable, say


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("prove")(prove)


def prove(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="Engine folder from `mvde build`.")],
) -> None:
    """Measure the parity of an engine on this machine.

    The engine is compared with its stored reference and the result is recorded in its manifest. An engine that was
    built without its device, or measured on another GPU, cannot be used before.
    """
    from rich.markup import escape

    from mvde.engines.proof import prove_engine

    with console(stderr=True).status(printable(escape(f"measuring {engine}"))):
        proof = prove_engine(engine)
    device = proof.manifest.parity.measured_on
    where = f"{device.gpu}, {device.compute_capability}, {device.driver_cuda}" if device else "this machine's CPU"
    say(f"{proof.folder}: measured on {where}; loads in {proof.load_s:.2f} s; against fp32 {proof.parity}")
