"""Heads: features to depth, and depth statistics to tokens."""
