"""Readers of depth data sets, one file per on-disk format, and the synthetic generator."""
