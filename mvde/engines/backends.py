"""Backend registry, in order of preference. A backend is one object in a module and one line here.

GPU backends come before CPU backends. On a CPU OpenVINO comes first: it is a dependency of `pip install mvde`, the only
one that computes in bf16, and faster in fp32 (`mvde bench`, nano at 192, 448 and 896 on two AMX cores: 1.1, 1.4 and 2.2
times as fast as ONNX Runtime).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mvde.errors import UsageError

if TYPE_CHECKING:
    from mvde.engines.base import Backend

BACKENDS = {
    "tensorrt": "mvde.engines.tensorrt.backend:TENSORRT",
    "tensorrt-rtx": "mvde.engines.tensorrt.backend:TENSORRT_RTX",
    "openvino": "mvde.engines.openvino.backend:OPENVINO",
    "onnxruntime": "mvde.engines.onnxruntime.backend:ONNXRUNTIME",
}
"""Name → module and object; the module is imported on first use."""


def backend_names() -> tuple[str, ...]:
    """Names of all backends in order of preference."""
    return tuple(BACKENDS)


def backend(name: str) -> Backend:
    """Return the backend called ``name``. Raises :class:`UsageError` listing the known names."""
    if name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}; expected one of {', '.join(sorted(BACKENDS))}")
    module, _, attribute = BACKENDS[name].partition(":")
    found: Backend = getattr(importlib.import_module(module), attribute)
    return found
