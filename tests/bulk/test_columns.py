"""Stored statistics: float16 within 1 %, and float32 where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.bulk.columns import TOLERANCE, store
from mvde.bulk.formats import StatsDtype


@pytest.mark.parametrize("name", ["mean", "var", "grad", "valid"])
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-3, 1.0, 1e3])
def test_every_statistic_is_read_back_within_one_per_cent(name: str, scale: float) -> None:
    values = (np.random.default_rng(0).uniform(0.1, 1, (5, 7)) * scale).astype(np.float32)
    column, stored = store(name, values, StatsDtype.F2)
    assert np.abs(column.read(stored) / values - 1).max() <= TOLERANCE


def test_the_variance_is_stored_as_its_root() -> None:
    column, stored = store("var", np.array([1e-6], np.float32), StatsDtype.F2)
    assert (column.is_root, stored.dtype) == (True, np.float16)
    assert column.read(stored)[0] == pytest.approx(1e-6, rel=2e-3)
    assert abs(float(np.float16(1e-6)) / 1e-6 - 1) > 0.01, "as it is, it would be off by more"


@pytest.mark.parametrize("value", [7e4, 1e-9])
def test_a_column_that_float16_cannot_hold_becomes_float32(value: float) -> None:
    values = np.array([1.0, value], np.float32)
    column, stored = store("mean", values, StatsDtype.F2)
    assert (column.dtype, stored.dtype) == ("float32", np.float32)
    assert np.array_equal(column.read(stored), values)


def test_float32_is_kept_as_it_is() -> None:
    values = np.random.default_rng(1).random((3, 4), np.float32)
    for name in ("mean", "var"):
        column, stored = store(name, values, StatsDtype.F4)
        assert np.array_equal(column.read(stored), values)
