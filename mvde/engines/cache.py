"""Where mvde keeps what may be lost: timings and engines that TensorRT would otherwise make again."""

from __future__ import annotations

import os
from pathlib import Path


def tensorrt_cache_dir() -> Path:
    """``mvde/tensorrt`` in ``$XDG_CACHE_HOME``, or in ``~/.cache`` where that is not set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mvde" / "tensorrt"
