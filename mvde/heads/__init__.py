"""Heads: features to depth."""
