"""Checks shared by the CPU backends: unsupported options, and engines bound to one library version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvde.engines.settings import check_names
from mvde.errors import UsageError

if TYPE_CHECKING:
    from mvde.engines.base import Backend, BuildOptions
    from mvde.precision import Precision
    from mvde.records import EngineRecord


def check_cpu_options(backend: Backend, precision: Precision, options: BuildOptions) -> None:
    """Raise :class:`UsageError` for options that CPU backends do not support."""
    check_names(backend.name, options.settings, backend.settings())
    if options.without_device:
        raise UsageError(
            f"--without-device builds for another machine's GPU and does not go with {backend.name}:{precision}; leave "
            "it out"
        )


def other_version(backend: Backend, record: EngineRecord) -> str | None:
    """Reason why the installed version cannot load the engine, or ``None`` if it is the one that built it."""
    version = backend.library_version()
    if version == record.library_version:
        return None
    return f"it was built with {record.backend} {record.library_version}, but {version} is installed"
