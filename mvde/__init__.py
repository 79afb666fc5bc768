"""mvde: metric depth and per-patch depth statistics from one ordinary camera."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvde.camera import Camera
    from mvde.config import load_config
    from mvde.errors import MvdeError
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.result import DepthResult
    from mvde.stats import depth_to_patch_stats

__version__ = "0.1.0"

__all__ = ["Camera", "DepthResult", "DepthRuntime", "MvdeError", "__version__", "depth_to_patch_stats", "load_config"]

# Imported lazily: `import mvde` (and `mvde --help`) loads neither NumPy nor any inference library.
_HOMES = {
    "Camera": "mvde.camera",
    "DepthResult": "mvde.runtime.result",
    "DepthRuntime": "mvde.runtime.depth",
    "MvdeError": "mvde.errors",
    "depth_to_patch_stats": "mvde.stats",
    "load_config": "mvde.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mvde' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
