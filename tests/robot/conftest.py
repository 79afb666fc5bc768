"""Fixtures of the robot's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def robot(engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with an engine."""
    shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
