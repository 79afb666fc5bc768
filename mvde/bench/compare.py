"""Comparison with an earlier benchmark: ratios of times with bootstrap confidence intervals.

The intervals cover the variation between frames of the two runs, not changes of the machine between them; engines
measured in one run are interleaved and not affected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvde.errors import RegressionError, ReportError

SCHEMA_VERSION = 2

_NUM_RESAMPLES = 2000
_CONFIDENCE = 0.95
_SEED = 0  # fixed, so that intervals are reproducible
_CHUNK = 1 << 22  # samples drawn at once: 32 MiB
_STAGES = ("pre", "infer", "post")
_QUANTILES = {"p50": 0.5, "p99": 0.99}
_MACHINE_KEYS = ("cpu", "num_cpus", "cpu_features", "gpus")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Ratio new / old (1.10 is 10 % slower), with its 95 % confidence bounds ``low`` and ``high``."""

    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Comparison:
    """Whole-frame time ratios of one engine, new over old."""

    engine: str
    p50: Interval
    mean: Interval
    p99: Interval


def read_report(path: Path) -> dict[str, Any]:
    """Read a report written by ``mvde bench --json``. Raises :class:`ReportError` for anything else."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReportError(f"there is no report {path}; write one with `mvde bench --json {path}`") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not a readable report: {error}") from error
    if not isinstance(report, dict) or "schema_version" not in report or "engines" not in report:
        raise ReportError(f"{path} is not a report of `mvde bench --json`")
    if report["schema_version"] != SCHEMA_VERSION:
        raise ReportError(
            f"{path} has schema_version {report['schema_version']!r}, but this mvde requires {SCHEMA_VERSION}; "
            "measure again with the same version of mvde"
        )
    try:
        sound = all(_times(engine).size > 0 and _key(engine) for engine in report["engines"])
        sound = sound and all(key in report["machine"] for key in _MACHINE_KEYS) and "frames" in report["settings"]
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise ReportError(f"{path} lacks parts of a report (machine, settings, engines with their samples)")
    return report


def machine_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the differences between the machines of two reports; load, drivers and versions are ignored."""
    pairs = [(key, _machine_value(old, key), _machine_value(new, key)) for key in _MACHINE_KEYS]
    return [f"{key} was {before}, is {now}" for key, before, now in pairs if before != now]


def check_same_frames(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise :class:`ReportError` unless both settings have the same frames and fit."""
    for key in ("frames", "fit"):
        if old.get(key) != new.get(key):
            raise ReportError(
                f"the old report was measured with different {key} ({_short(old.get(key))}) than this one "
                f"({_short(new.get(key))}); compare runs with the same --images and --fit"
            )


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Comparison]:
    """Compare each engine of the new report (as JSON types) that is also in the old one.

    Raises :class:`ReportError` if the reports have no engine in common.
    """
    before = {_key(engine): engine for engine in old["engines"]}
    pairs = [(before[_key(engine)], engine) for engine in new["engines"] if _key(engine) in before]
    if not pairs:
        listed = [", ".join(map(_key, report["engines"])) for report in (old, new)]
        raise ReportError(f"no engine is in both reports: the old one has {listed[0]}, this one {listed[1]}")
    return [_compared(_key(now), _times(then), _times(now)) for then, now in pairs]


def check_regression(comparisons: Sequence[Comparison], max_regression: float) -> None:
    """Raise :class:`RegressionError` naming engines whose median ratio exceeds ``max_regression``.

    A ratio only counts if its interval excludes 1.
    """
    slower = [one for one in comparisons if one.p50.ratio > max_regression and one.p50.low > 1]
    if slower:
        listed = "; ".join(f"{one.engine}: {one.p50}" for one in slower)
        raise RegressionError(f"slower than the old report by more than {max_regression:g} in the median: {listed}")


def bootstrap_ratio(old: Floats, new: Floats, statistic: str) -> Interval:
    """Ratio of a statistic (``"mean"``, ``"p50"``, ``"p99"``) of two time series, with its 95 % interval.

    Percentile intervals of the circular block bootstrap (Politis and Romano, 1992) with blocks of n^(1/3) frames:
    consecutive frames are correlated, so resampling single frames would make the interval too narrow.
    """
    rng = np.random.default_rng(_SEED)
    ratios = _resampled(new, statistic, rng) / _resampled(old, statistic, rng)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(ratios, (tail, 1 - tail))
    ratio = _statistic(new[None], statistic)[0] / _statistic(old[None], statistic)[0]
    return Interval(float(ratio), float(low), float(high))


def _compared(engine: str, old: Floats, new: Floats) -> Comparison:
    return Comparison(engine, *(bootstrap_ratio(old, new, name) for name in ("p50", "mean", "p99")))


def _resampled(times: Floats, statistic: str, rng: np.random.Generator) -> Floats:
    """Statistic of each of 2,000 resamples, shape (2000,)."""
    count = len(times)
    block = max(round(count ** (1 / 3)), 1)
    num_blocks = -(-count // block)
    found = []
    per_chunk = max(_CHUNK // (num_blocks * block), 1)
    for first in range(0, _NUM_RESAMPLES, per_chunk):
        starts = rng.integers(0, count, (min(per_chunk, _NUM_RESAMPLES - first), num_blocks, 1))
        indices = ((starts + np.arange(block)) % count).reshape(len(starts), -1)[:, :count]
        found.append(_statistic(times[indices], statistic))
    return np.concatenate(found)


def _statistic(rows: Floats, statistic: str) -> Floats:
    values: Floats
    if statistic == "mean":
        values = rows.mean(axis=1)
    else:
        values = np.quantile(rows, _QUANTILES[statistic], axis=1, method="higher")
    return values


def _times(engine: Mapping[str, Any]) -> Floats:
    """Whole-frame times of an engine in a report, in microseconds."""
    times: Floats = np.sum([np.asarray(engine["samples_us"][stage], np.float64) for stage in _STAGES], axis=0)
    if times.ndim != 1 or not (np.isfinite(times).all() and (times > 0).all()):
        raise ValueError("samples_us does not hold times")
    return times


def _key(engine: Mapping[str, Any]) -> str:
    height, width = engine["resolution"]
    batch = f" b{engine['batch']}" if engine["batch"] != 1 else ""
    return f"{engine['name']} {height}x{width}{batch} {engine['id']}"


def _machine_value(machine: Mapping[str, Any], key: str) -> Any:
    """Comparable value of a machine key; a GPU is reduced to name and memory, as its driver may change."""
    value = machine[key]
    return [",".join(line.split(",")[:2]) for line in value] if key == "gpus" else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
