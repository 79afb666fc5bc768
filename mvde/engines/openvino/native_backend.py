"""``libmvde_openvino.so``: libmvde's OpenVINO backend, with mvde's attention, compiled for one release of OpenVINO."""

from __future__ import annotations

import re
from pathlib import Path

from mvde import native
from mvde.engines.openvino.library import library_version
from mvde.errors import MissingDependencyError

FILE = "libmvde_openvino.so"
MISSING = (
    f"there is no {FILE} beside libmvde.so: install a wheel that holds it, or run `make native` in mvde's source tree"
)
_RELEASE = re.compile(rb"MVDE_OPENVINO_RELEASE=([0-9.]+)")


def library_path() -> Path | None:
    """Path of the library, or None."""
    candidates = (folder / FILE for folder in native.library_folders())
    return next((path for path in candidates if path.is_file()), None)


def release_of(path: Path) -> str | None:
    """Release of OpenVINO that the library at ``path`` was compiled for, such as ``"2026.4.1"``, or None.

    Read from the file: with another release it cannot be loaded.
    """
    found = _RELEASE.search(path.read_bytes())
    return found.group(1).decode() if found else None


def mismatch(path: Path, version: str | None) -> str:
    """Why OpenVINO ``version`` (None: not installed) cannot load the library at ``path``; empty if it is the one."""
    release = release_of(path)
    if release is None or release == version:
        return ""
    has = "none is installed" if version is None else f"{version} is installed"
    return (
        f"{path} was compiled for OpenVINO {release}, but {has}: pip install openvino=={release} (with mvde's wheel: "
        "pip install 'mvde[native]'), or `make native` in mvde's source tree builds it again"
    )


def description() -> str:
    """Line for ``mvde doctor``: the release that the library is for, or what is needed to use it."""
    path = library_path()
    if path is None:
        return MISSING
    try:
        version = library_version()
    except MissingDependencyError:
        version = None
    return mismatch(path, version) or f"{FILE} for OpenVINO {version}"
