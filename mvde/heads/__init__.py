"""Heads: what turns features into depth, and depth statistics into tokens."""
