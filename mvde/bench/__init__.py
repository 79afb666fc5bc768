"""Benchmarks: whole frames from camera bytes to depth and statistics, and what really ran."""
