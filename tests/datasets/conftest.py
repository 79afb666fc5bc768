"""Images and depth maps on disk, written by libraries other than the readers use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> np.ndarray:
    """RGB (6, 8, 3) uint8 with distinct pixels."""
    return np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


@pytest.fixture
def write_png() -> Callable[[Path, np.ndarray], None]:
    """Writer of a PNG: uint8 (H, W, 3) as RGB, uint16 (H, W) as 16-bit grey."""

    def write(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    return write


@pytest.fixture(scope="session")
def opengl() -> None:
    """Skip without OpenGL."""
    pytest.importorskip("moderngl")
    from mvde.datasets.synth.renderer import create_context
    from mvde.errors import BackendError

    try:
        create_context().release()
    except BackendError as error:
        pytest.skip(str(error))
