"""Patch statistics under their older name; the specification and the code are in :mod:`mvde.stats`."""

from mvde.stats import DEFAULT_STATS, STATS, depth_to_patch_stats

__all__ = ["DEFAULT_STATS", "STATS", "depth_to_patch_stats"]
