"""Hidden states selected by the taps."""

from __future__ import annotations

import warnings

import pytest

from mvde.backbones.taps import resolve_taps
from mvde.config import DEFAULT_TAPS
from mvde.errors import ConfigError


def _quietly(taps: tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return resolve_taps(taps, num_layers)


@pytest.mark.parametrize("num_layers", [6, 12, 24, 27])
def test_taps_that_fit_index_the_hidden_states_as_python_does(num_layers: int) -> None:
    states = list(range(num_layers + 1))
    for taps in [(-5, -3, -2, -1), (0, 2, 4, 6), (1, -4, -2, -1)]:
        assert _quietly(taps, num_layers) == tuple(states[tap] for tap in taps)


def test_the_default_fits_a_tower_of_24_layers() -> None:
    assert _quietly(DEFAULT_TAPS, 24) == (7, 13, 19, 23)


@pytest.mark.parametrize(
    ("num_layers", "mapped"),
    [
        (12, (-9, -6, -3, -1)),
        (6, (-5, -3, -2, -1)),
        (27, (-20, -14, -7, -2)),
        (40, (-30, -20, -10, -3)),
        (2, (-2, -1, -1, -1)),
    ],
)
def test_the_default_is_mapped_in_proportion_with_one_warning(num_layers: int, mapped: tuple[int, ...]) -> None:
    with pytest.warns(UserWarning, match="address a 24-layer tower") as caught:
        indices = resolve_taps(DEFAULT_TAPS, num_layers)
    assert indices == tuple(num_layers + 1 + tap for tap in mapped)
    assert len(caught) == 1
    assert f"{DEFAULT_TAPS}" in str(caught[0].message)
    assert f"mapped to {mapped}" in str(caught[0].message)


def test_other_taps_of_a_deep_tower_are_mapped_on_a_shallow_one() -> None:
    with pytest.warns(UserWarning, match=r"\(-10, -5, -1, -1\)"):
        assert resolve_taps((-20, -10, -2, -1), 12) == (3, 8, 12, 12)


@pytest.mark.parametrize("taps", [(13,), (3, 40), (-26, -1), (-99, -50, -2, -1), ()])
def test_taps_that_address_no_hidden_state_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="tap_layers"):
        resolve_taps(taps, 12)


def test_taps_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="shallow to deep"):
        resolve_taps((-1, -3), 12)
