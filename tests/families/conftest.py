"""Tiny random models of every family, saved as their authors save them: configuration, weights, preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import transformers

if not hasattr(transformers, "Tipsv2DptConfig"):
    pytest.skip(f"transformers {transformers.__version__} has not all families", allow_module_level=True)

from tests.families.tiny import TINY, save_tiny

Save = Callable[[str], Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Folder of a tiny model by its key in ``TINY``, made once per session; read-only by convention."""
    made: dict[str, Path] = {}

    def folder(key: str) -> Path:
        if key not in made:
            assert key in TINY
            made[key] = save_tiny(key, tmp_path_factory.mktemp("models") / key)
        return made[key]

    return folder
