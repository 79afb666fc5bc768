"""Activation ranges against onnxruntime's calibrator and NumPy's quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.errors import UsageError
from mvde.export.precision.calibrate import NUM_BINS, TensorStatistics, threshold
from mvde.export.range_method import RangeMethod


def _statistics(*runs: np.ndarray, axis: int = -1) -> TensorStatistics:
    statistics = TensorStatistics(axis)
    for run in runs:
        statistics.add(run)
    return statistics


@pytest.fixture(scope="module")
def runs() -> list[np.ndarray]:
    """Long-tailed activations whose range grows from run to run."""
    random = np.random.default_rng(0)
    return [(random.standard_t(4, (2, 500, 16)) * scale).astype(np.float32) for scale in (0.3, 1.0, 2.5)]


def test_minmax_is_the_largest_magnitude(runs: list[np.ndarray]) -> None:
    assert threshold(_statistics(*runs), RangeMethod.MINMAX) == max(float(np.abs(run).max()) for run in runs)


def test_percentile_is_numpy_s_quantile(runs: list[np.ndarray]) -> None:
    values = np.abs(np.concatenate([run.ravel() for run in runs]))
    statistics = _statistics(*runs)
    found = threshold(statistics, RangeMethod.PERCENTILE)
    assert abs(found - np.quantile(values, 0.9999, method="inverted_cdf")) <= statistics.limit / NUM_BINS


def test_entropy_is_where_onnxruntime_s_calibrator_has_it() -> None:
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    values = np.random.default_rng(1).standard_t(3, 100_000).astype(np.float32)
    collector = calibrate.HistogramCollector("entropy", True, 2047, 255, 99.99, "same")
    collector.collect({"x": values})
    low, high, *_ = collector.compute_collection_result()["x"]
    expected = max(abs(float(low)), abs(float(high)))
    found = threshold(_statistics(values.reshape(1, 1000, 100)), RangeMethod.ENTROPY)
    assert found < float(np.abs(values).max()) / 2  # the tail is clipped
    assert 0.5 < found / expected < 2.0  # the divergence is flat near its minimum, and the binning differs


def test_bins_that_grow_lose_no_value(runs: list[np.ndarray]) -> None:
    statistics = _statistics(*runs)
    assert statistics.counts.sum() == sum(run.size for run in runs)
    values = np.abs(np.concatenate([run.ravel() for run in runs]))
    expected, _ = np.histogram(values, NUM_BINS, (0, statistics.limit))
    assert (
        np.abs(np.cumsum(statistics.counts) - np.cumsum(expected)).max() <= 3
    )  # values at bin edges may round either way


def test_a_large_tensor_is_binned_in_part_and_its_largest_value_is_found_all_the_same() -> None:
    values = np.random.default_rng(2).standard_normal((1, 3000, 1024)).astype(np.float32)
    values[..., 7] *= 40  # one of 1024 channels, which strided sampling would hit always or never
    values[0, 1234, 500] = 500.0
    statistics = _statistics(values)
    assert statistics.largest == 500.0
    assert statistics.counts.sum() < values.size / 2
    expected = np.quantile(np.abs(values), 0.9999)
    assert threshold(statistics, RangeMethod.PERCENTILE) == pytest.approx(expected, rel=0.05)


def test_channels_have_their_own_largest(runs: list[np.ndarray]) -> None:
    statistics = _statistics(*runs)
    together = np.concatenate([run.reshape(-1, 16) for run in runs])
    np.testing.assert_allclose(statistics.channel_largest, np.abs(together).max(axis=0))


def test_zeros_have_a_scale_and_infinities_are_refused() -> None:
    assert threshold(_statistics(np.zeros((1, 4, 4), np.float32)), RangeMethod.ENTROPY) == 1.0
    with pytest.raises(UsageError, match="not finite"):
        _statistics(np.full((1, 4, 4), np.inf, np.float32))
