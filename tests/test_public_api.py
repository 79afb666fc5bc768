"""The public API of the package; a change here affects every user and belongs in the changelog."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mvde


def test_the_public_names_are_these() -> None:
    assert mvde.__all__ == [
        "Camera",
        "DepthResult",
        "DepthRuntime",
        "MvdeError",
        "__version__",
        "depth_to_patch_stats",
        "load_config",
    ]
    assert dir(mvde) == sorted(mvde.__all__)


@pytest.mark.parametrize("name", mvde.__all__)
def test_every_public_name_resolves_in_a_fresh_interpreter(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"from mvde import {name}"], check=True, timeout=120)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'DeepRuntime'"):
        _ = mvde.DeepRuntime


def test_names_resolve_to_the_objects_of_their_modules() -> None:
    from mvde.camera import Camera
    from mvde.config import load_config
    from mvde.errors import MvdeError
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.result import DepthResult
    from mvde.stats import depth_to_patch_stats

    assert mvde.Camera is Camera
    assert mvde.DepthRuntime is DepthRuntime
    assert mvde.DepthResult is DepthResult
    assert mvde.depth_to_patch_stats is depth_to_patch_stats
    assert mvde.load_config is load_config
    assert mvde.MvdeError is MvdeError
