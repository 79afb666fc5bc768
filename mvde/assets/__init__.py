"""Files that ship inside the package: the nano checkpoint, and sample photographs (see ``photos/LICENSES.md``)."""

from __future__ import annotations

from pathlib import Path

from mvde.errors import CheckpointError

_FOLDER = Path(__file__).resolve().parent


def shipped_checkpoint() -> Path:
    """Path of the checkpoint of the model that ships (safetensors, its configuration inside).

    Raises :class:`CheckpointError` where the installation lacks it.
    """
    path = _FOLDER / "nano.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"the shipped checkpoint {path} is not installed; install mvde again, or name one with --checkpoint"
        )
    return path


def sample_photos() -> list[Path]:
    """Paths of the sample photographs (JPEG, RGB, at most 640 pixels a side), the indoor ones first."""
    names = ("coffee", "chelsea", "astronaut", "china", "flower", "rocket")
    return [_FOLDER / "photos" / f"{name}.jpg" for name in names]
