"""Location of disposable cache files: TensorRT timings and engines."""

from __future__ import annotations

import os
from pathlib import Path


def tensorrt_cache_dir() -> Path:
    """``mvde/tensorrt`` in ``$XDG_CACHE_HOME`` (default: ``~/.cache``)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mvde" / "tensorrt"
