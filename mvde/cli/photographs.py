"""Photographs of a folder, for the verbs that verify a graph on them."""

from __future__ import annotations

from pathlib import Path


def readable_photographs(folder: Path) -> list[Path]:
    """List a folder's images and read each once, to fail on an invalid one before minutes of work.

    Raises :class:`ImageError` naming the file, or the folder if it holds no image.
    """
    from mvde.image import read_image
    from mvde.runtime.sources import expand_inputs

    paths = expand_inputs([str(folder)])
    for path in paths:
        read_image(path)
    return paths
