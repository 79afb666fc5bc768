"""mvde's operators in OpenVINO: registration with the core, their factory, and the options that only mvde reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mvde.engines.openvino.native_backend import library_path
from mvde.errors import BackendError

PREFIX = "MVDE_"
"""Of the engine options that say which operators of mvde an engine was compiled with."""


def library_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options to pass to the library."""
    return {key: value for key, value in options.items() if not key.startswith(PREFIX)}


def register(core: Any) -> None:
    """Make mvde's operators known to ``core``. Raises :class:`BackendError` if the library cannot be loaded."""
    _register(core, str(library_path()))


def operator_factory() -> Any:
    """Factory of mvde's operators, for rewriting graphs."""
    return _factory(str(library_path()))


@lru_cache(maxsize=1)
def _register(core: Any, path: str) -> None:
    try:
        core.add_extension(path)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot load mvde's operators from {path}: {error}") from error


@lru_cache(maxsize=1)
def _factory(path: str) -> Any:
    from openvino.utils.node_factory import NodeFactory

    factory = NodeFactory()
    factory.add_extension(path)
    return factory
