"""Selection of the hidden states that feed the decoder."""

from __future__ import annotations

import math
import warnings

from mvde.config import DEFAULT_TAPS
from mvde.errors import ConfigError

REFERENCE_LAYERS = 24  # depth of the tower that the documented default taps refer to (SigLIP large)


def resolve_taps(tap_layers: tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """Resolve ``tap_layers`` to indices, 0 to ``num_layers``, into the hidden states, shallow to deep.

    Hidden states are numbered as in transformers' ``output_hidden_states``: 0 is the embedding, i the output of layer
    i, and -1 the output of the last layer (before the tower's final normalisation, which is not part of the backbone).
    Negative taps beyond the first hidden state, and the documented default on a tower without 24 layers, are scaled to
    the tower's depth, with one ``UserWarning`` that states the mapping.

    Raises :class:`ConfigError` for taps outside the hidden states or not ordered from shallow to deep.
    """
    num_states = num_layers + 1
    if not tap_layers:
        raise ConfigError("tap_layers is empty; name at least one hidden state, e.g. (-18, -12, -6, -2)")
    given = tuple(tap_layers)
    if _needs_mapping(given, num_layers):
        given = tuple(_scaled(tap, num_layers) for tap in tap_layers)
        warnings.warn(
            f"tap_layers {tuple(tap_layers)} address a {REFERENCE_LAYERS}-layer tower; this one has {num_layers} "
            f"layers, so they are mapped to {given}",
            UserWarning,
            stacklevel=2,
        )
    outside = [tap for tap in given if not -num_states <= tap < num_states]
    if outside:
        raise ConfigError(
            f"tap_layers {tuple(tap_layers)}: {outside[0]} is not among the {num_states} hidden states of a tower of "
            f"{num_layers} layers; use {-num_states} to {num_states - 1}"
        )
    indices = tuple(tap % num_states for tap in given)
    if list(indices) != sorted(indices):
        raise ConfigError(f"tap_layers {tuple(tap_layers)} must go from shallow to deep, but address {indices}")
    return indices


def _needs_mapping(taps: tuple[int, ...], num_layers: int) -> bool:
    if taps == DEFAULT_TAPS:
        return num_layers != REFERENCE_LAYERS
    reach_before_first = any(tap < -(num_layers + 1) for tap in taps)
    return reach_before_first and all(-(REFERENCE_LAYERS + 1) <= tap < 0 for tap in taps)


def _scaled(tap: int, num_layers: int) -> int:
    """Negative tap at the same relative depth; halves round towards the input, and the result is at most -1."""
    return min(-math.floor(-tap * num_layers / REFERENCE_LAYERS + 0.5), -1)
