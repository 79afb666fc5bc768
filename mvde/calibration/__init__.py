"""Calibration of a network's map with known distances: fit, refusals, points and the file format."""
