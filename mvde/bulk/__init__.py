"""Patch statistics of millions of pictures: one shard of input gives one file of rows, published in one step.

``inputs`` lists shards lazily, ``reading`` reads a shard's pictures, ``work`` computes its rows, ``columns`` and
``writing`` store them, ``fingerprint`` says what they were computed with, ``local`` and ``ray_pool`` run shards in
processes, ``run`` plans, resumes and sums up, ``folder`` and ``shards`` read the result back.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvde.bulk.folder import StatsFolder, open_stats
    from mvde.bulk.folder import open_stats as open

__all__ = ["StatsFolder", "open", "open_stats"]


def __getattr__(name: str) -> Any:
    """Import the reader when it is first used: the command line needs names of formats only."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("mvde.bulk.folder"), "open_stats" if name == "open" else name)
