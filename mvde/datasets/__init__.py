"""Readers of depth data sets, one module per on-disk format, and the synthetic generator."""
