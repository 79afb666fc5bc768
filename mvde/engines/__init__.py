"""Engines: one module per backend with the same verbs, the engine-id grammar, and the store in ``engines/``."""
