"""Patch statistics under their former name; see :mod:`mvde.stats`."""

from mvde.stats import DEFAULT_STATS, STATS, depth_to_patch_stats

__all__ = ["DEFAULT_STATS", "STATS", "depth_to_patch_stats"]
