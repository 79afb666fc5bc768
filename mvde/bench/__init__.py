"""Benchmarks of whole frames, from camera bytes to depth and statistics, with the precision actually executed."""
