"""Inference engines: the backends, the engine-id grammar and the engine store in ``engines/``."""
