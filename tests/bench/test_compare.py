"""Ratios and confidence intervals against SciPy's bootstrap, and rejected reports."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.bench import compare
from mvde.bench.compare import Comparison, Interval, bootstrap_ratio, check_regression
from mvde.errors import RegressionError, ReportError

MACHINE = {"cpu": "a CPU", "num_cpus": 2, "cpu_features": ["avx2"], "gpus": ["A GPU, 8192 MiB, 550.1, 8.9"]}


def make_report(times_ms: np.ndarray, **changes: Any) -> dict[str, Any]:
    """Report of one engine with end-to-end latencies ``times_ms``."""
    times_us = np.rint(times_ms * 1e3).astype(int)
    engine = {"name": "tiny", "resolution": [32, 48], "batch": 1, "id": "openvino:fp32"}
    samples = {"pre": [100] * len(times_us), "infer": (times_us - 150).tolist(), "post": [50] * len(times_us)}
    return {
        "schema_version": 2,
        "machine": dict(MACHINE),
        "settings": {"frames": "6 images", "fit": "stretch"},
        "engines": [{**engine, "samples_us": samples}],
        **changes,
    }


@pytest.mark.parametrize("statistic", ["mean", "p50"])
def test_the_interval_is_scipys(statistic: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    old, new = rng.gamma(9, 1, 400), 1.1 * rng.gamma(9, 1, 300)
    function = np.mean if statistic == "mean" else np.median
    expected = stats.bootstrap(
        (new, old), lambda a, b, axis: function(a, axis=axis) / function(b, axis=axis), n_resamples=4000,
        method="percentile", rng=rng,
    ).confidence_interval  # fmt: skip
    found = bootstrap_ratio(old, new, statistic)
    # Both are random: with 2,000 and 4,000 resamples they differ by a few per cent of the interval's width.
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high), abs=0.2 * (expected.high - expected.low)
    )
    assert found.low < found.ratio < found.high


def test_the_interval_covers_the_truth_for_frames_that_resemble_their_neighbours() -> None:
    """Latencies with autocorrelation 0.8, as under temporary load."""
    rng, num_covered, num_covered_singly = np.random.default_rng(0), 0, 0

    def series() -> np.ndarray:
        noise = rng.standard_normal(400)
        level = np.zeros(400)
        for index in range(1, 400):
            level[index] = 0.8 * level[index - 1] + noise[index]
        return 100 + level

    for _ in range(60):
        old, new = series(), series()
        found = bootstrap_ratio(old, new, "mean")
        num_covered += found.low <= 1 <= found.high
        singly = np.sqrt(old.var() / 400 + new.var() / 400) / 100 * 1.96
        num_covered_singly += abs(new.mean() / old.mean() - 1) <= singly
    # Block bootstrap (7 frames) recovers most of the coverage; assuming independence covers half of the cases.
    assert num_covered >= 44
    assert num_covered > num_covered_singly


def test_the_same_reports_give_the_same_interval_and_identical_runs_give_one() -> None:
    times = 10 + np.random.default_rng(0).random(200)
    old, new = make_report(times), make_report(times * 1.25)
    (first,), (again,) = compare.compare(old, new), compare.compare(old, new)
    assert first == again
    assert first.engine == "tiny 32x48 openvino:fp32"
    assert first.p50.ratio == pytest.approx(1.25, abs=1e-3)
    (same,) = compare.compare(old, old)
    assert same.p50.ratio == same.mean.ratio == same.p99.ratio == 1


def test_a_regression_must_be_past_the_limit_and_certain() -> None:
    def with_p50(ratio: float, low: float) -> list[Comparison]:
        return [Comparison("tiny", Interval(ratio, low, ratio + 0.1), Interval(9, 9, 9), Interval(9, 9, 9))]

    check_regression(with_p50(1.04, 1.03), 1.05)
    check_regression(with_p50(1.30, 0.90), 1.05)
    with pytest.raises(RegressionError, match=r"by more than 1\.05 in the median: tiny: 1\.060 \(1\.020 to 1\.160\)"):
        check_regression(with_p50(1.06, 1.02), 1.05)


def test_machines_are_told_apart_but_a_driver_may_change() -> None:
    other = {**MACHINE, "gpus": ["A GPU, 8192 MiB, 570.9, 8.9"]}
    assert compare.machine_differences(MACHINE, other) == []
    other = {**MACHINE, "cpu": "another", "num_cpus": 4}
    assert compare.machine_differences(MACHINE, other) == [
        "cpu was a CPU, is another",
        "num_cpus was 2, is 4",
    ]


def test_other_frames_and_other_engines_cannot_be_compared() -> None:
    settings = {"frames": "6 images", "fit": "stretch"}
    compare.check_same_frames(settings, dict(settings))
    with pytest.raises(ReportError, match="different fit"):
        compare.check_same_frames(settings, {**settings, "fit": "crop"})
    old, new = make_report(np.full(20, 5.0)), make_report(np.full(20, 5.0))
    new["engines"][0]["id"] = "openvino:bf16"
    with pytest.raises(
        ReportError, match="the old one has tiny 32x48 openvino:fp32, this one tiny 32x48 openvino:bf16"
    ):
        compare.compare(old, new)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda plain: plain.update(schema_version=1), "schema_version 1, but this mvde requires 2"),
        (lambda plain: plain.update(schema_version=3), "schema_version 3"),
        (lambda plain: plain.pop("schema_version"), "not a report"),
        (lambda plain: plain.pop("machine"), "lacks parts"),
        (lambda plain: plain["machine"].pop("cpu"), "lacks parts"),
        (lambda plain: plain["engines"][0].pop("samples_us"), "lacks parts"),
        (lambda plain: plain["engines"][0]["samples_us"].update(pre=[1, 2]), "lacks parts"),
        (lambda plain: plain["engines"][0]["samples_us"].update(pre=["a"] * 20), "lacks parts"),
        (lambda plain: plain["engines"][0]["samples_us"].update(pre=[-90_000] * 20), "lacks parts"),
        (lambda plain: plain["engines"][0]["samples_us"].update(pre=[], infer=[], post=[]), "lacks parts"),
        (lambda plain: plain.update(engines=3), "lacks parts"),
        (lambda plain: plain.update(settings=None), "lacks parts"),
    ],
)
def test_a_report_that_cannot_be_compared_with_is_refused(
    tmp_path: Path, change: Callable[[dict], object], words: str
) -> None:
    plain = copy.deepcopy(make_report(np.full(20, 5.0)))
    path = tmp_path / "old.json"
    path.write_text(json.dumps(plain))
    assert compare.read_report(path) == plain
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(ReportError, match=words):
        compare.read_report(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"old\.json is not a"):
        compare.read_report(path)
    with pytest.raises(ReportError, match="there is no report"):
        compare.read_report(tmp_path / "missing.json")
