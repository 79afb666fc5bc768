"""Options of verbs whose depth takes its scale from the floor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.errors import UsageError

if TYPE_CHECKING:
    from mvde.runtime.mounting import Mounting


MOUNTING_HELP = "Height and angles of the camera over the floor: a YAML file with height_m, pitch_deg and roll_deg."


@dataclass(frozen=True)
class FloorOptions:
    """How the camera is mounted over the floor: ``camera_height`` in metres and ``pitch`` in degrees, or their file.

    A robot's log may tell the pitch itself, so ``pitch`` can be missing.
    """

    camera_height: Annotated[
        float | None,
        typer.Option(
            "--camera-height",
            metavar="M",
            help="Height of the camera over the floor in metres: where the floor is seen, it gives depth its scale.",
        ),
    ] = None
    pitch: Annotated[
        float | None,
        typer.Option(
            "--pitch",
            metavar="DEG",
            help="How far the camera looks down in degrees, 0 for straight ahead. Default: what a log says.",
        ),
    ] = None
    mounting: Annotated[Path | None, typer.Option("--mounting", metavar="FILE", help=MOUNTING_HELP)] = None

    def __post_init__(self) -> None:
        """Check that one way was taken, and that numbers make a mounting."""
        if self.mounting is not None and (self.camera_height is not None or self.pitch is not None):
            raise UsageError("--mounting holds the height and the pitch of the camera; give it, or --camera-height")
        if self.pitch is not None and self.camera_height is None:
            raise UsageError("--pitch alone gives no scale; give --camera-height too, in metres")
        if self.camera_height is not None:
            from mvde.runtime.mounting import Mounting

            Mounting(self.camera_height, self.pitch or 0.0)

    @property
    def is_given(self) -> bool:
        """Whether any of it was given."""
        return self.mounting is not None or self.camera_height is not None

    @property
    def is_logs(self) -> bool:
        """Whether the pitch is left to the log."""
        return self.camera_height is not None and self.pitch is None

    def given(self) -> Mounting | None:
        """Mounting that was given; ``None`` without one. Raises :class:`UsageError` for a height without a pitch."""
        from mvde.runtime.mounting import Mounting

        if self.mounting is not None:
            return Mounting.from_file(self.mounting)
        if self.camera_height is None:
            return None
        if self.pitch is None:
            raise UsageError(
                "--camera-height needs --pitch, how far the camera looks down in degrees (0 for straight ahead); only "
                "logs may tell it"
            )
        return Mounting(self.camera_height, self.pitch)

    def given_beside_log(self) -> Mounting | None:
        """Mounting that was given; ``None`` too for a height whose pitch is the log's."""
        return None if self.is_logs else self.given()
