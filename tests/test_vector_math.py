"""PyTorch's elementwise functions are initialised on one thread before models or statistics call them on several."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

PROBE = """
import torch
from mvde.vector_math import resolve_vector_math
{use}
assert resolve_vector_math.cache_info().currsize == 1
"""


@pytest.mark.parametrize(
    "use",
    ["import mvde.model", "import mvde; mvde.depth_to_patch_stats(torch.ones(1, 16, 16), 16)"],
    ids=["a model", "statistics"],
)
def test_it_is_done_before_the_first_use(use: str) -> None:
    if "model" in use:
        pytest.importorskip("transformers")
    done = subprocess.run([sys.executable, "-c", PROBE.format(use=use)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
