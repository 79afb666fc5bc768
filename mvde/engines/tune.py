"""Tuning: measure a backend's settings on this machine and graph in interleaved rounds, and keep the fastest.

The fastest settings depend on cores, caches and system load, so no table of rules is right everywhere. They are
measured where the engine will run, and all measurements are stored in its manifest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.engines.base import BuildOptions, Engine
from mvde.engines.compile import Recipe, open_compiled
from mvde.errors import BackendError, UsageError
from mvde.records import TuningCandidate, TuningRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_GAIN = 1.01
"""Minimum speed-up over the library's default, by the lower bound of the gain, for a setting to be kept: on a busy
machine two measurements of the same engine differ by several per cent."""

_MIN_ROUNDS, _MAX_ROUNDS = 5, 60

Open = Callable[[Mapping[str, Any]], Engine]
"""Library settings → engine compiled with them. Raises :class:`BackendError` if the library rejects them."""


def tuned_options(
    recipe: Recipe, options: BuildOptions, budget_s: float, images: NDArray[np.uint8]
) -> tuple[BuildOptions, TuningRecord]:
    """Build options with the fastest settings on this machine, and the measurements for the manifest."""
    with tempfile.TemporaryDirectory() as scratch:

        def open_engine(settings: Mapping[str, Any]) -> Engine:
            folder = Path(tempfile.mkdtemp(dir=scratch))
            return open_compiled(recipe, folder, dataclasses.replace(options, library={**options.library, **settings}))

        tried = recipe.backend.tuning_settings(recipe.engine_id.precision, options)
        best, candidates = tune(open_engine, tried, images, budget_s)
    record = TuningRecord(budget_s, best, tuple(candidates))
    return dataclasses.replace(options, library={**options.library, **best}), record


def tune(
    open_engine: Open,
    settings: Sequence[Mapping[str, Any]],
    images: NDArray[np.uint8],
    budget_s: float,
) -> tuple[dict[str, Any], list[TuningCandidate]]:
    """Find the fastest settings; return them and all measurements, the library's default first.

    Each of ``settings`` is measured against the default; then those that gain are measured together, since gains may
    not add up. ``images`` (K, H, W, 3), uint8 RGB, are the frames; ``budget_s`` covers measuring only, half of it for
    each step.

    Raises :class:`UsageError` unless the budget is positive.
    """
    if not budget_s > 0:
        raise UsageError(f"tuning needs a positive number of seconds, but got {budget_s}")
    found = _compare(open_engine, settings, images, budget_s / 2)
    gaining = sorted((one for one in found[1:] if _gains(one)), key=lambda one: -(one.sure_gain or 0))
    if not gaining:
        return {}, found
    if len(gaining) == 1:
        return gaining[0].settings, found
    finals = _compare(open_engine, [gaining[0].settings, _together(gaining)], images, budget_s / 2)
    best = max(finals[1:], key=lambda one: one.sure_gain or 0)
    return best.settings if _gains(best) else {}, [*found, *finals[1:]]


def _gains(candidate: TuningCandidate) -> bool:
    return candidate.sure_gain is not None and candidate.sure_gain >= MIN_GAIN


def _together(gaining: Sequence[TuningCandidate]) -> dict[str, Any]:
    """Merge all settings that gain; on conflict the larger gain wins."""
    merged: dict[str, Any] = {}
    for candidate in gaining:
        merged = {**candidate.settings, **merged}
    return merged


def _compare(
    open_engine: Open, settings: Sequence[Mapping[str, Any]], images: NDArray[np.uint8], budget_s: float
) -> list[TuningCandidate]:
    """Measure the default and each of the settings in interleaved rounds."""
    everything = [{}, *(dict(one) for one in settings)]
    refused: dict[int, str] = {}
    with contextlib.ExitStack() as stack:
        engines: dict[int, Engine] = {}
        for index, chosen in enumerate(everything):
            try:
                engines[index] = stack.enter_context(contextlib.closing(open_engine(chosen)))
            except BackendError as error:
                if index == 0:
                    raise
                refused[index] = str(error)
        times_ms = _take_turns(list(engines.values()), images, budget_s)
    measured = {
        index: _measured(everything[index], times_ms[:, column], times_ms[:, 0]) for column, index in enumerate(engines)
    }
    return [
        measured.get(index) or TuningCandidate(chosen, refused=refused[index])
        for index, chosen in enumerate(everything)
    ]


def _measured(
    settings: dict[str, Any], times_ms: NDArray[np.float64], default_ms: NDArray[np.float64]
) -> TuningCandidate:
    ratios = default_ms / times_ms
    low, gain, high = (float(quantile) for quantile in np.quantile(ratios, (0.25, 0.5, 0.75)))
    # Standard error of a median, with the spread from the quartiles, which are robust to an interrupted frame.
    standard_error = 1.253 * (high - low) / 1.349 / len(ratios) ** 0.5
    median_ms = float(np.median(times_ms))
    return TuningCandidate(settings, round(median_ms, 4), round(gain, 4), round(gain - 2 * standard_error, 4))


def _take_turns(engines: Sequence[Engine], images: NDArray[np.uint8], budget_s: float) -> NDArray[np.float64]:
    """Latencies in milliseconds (rounds, engines); the order is random in each round to avoid order effects."""
    batch = engines[0].info.batch
    images = np.resize(images, (max(len(images), batch), *images.shape[1:]))  # repeated to fill a batch
    frames = [np.ascontiguousarray(images[start : start + batch]) for start in range(0, len(images) - batch + 1, batch)]
    rng = np.random.default_rng(0)
    for engine in engines:  # warm-up: the first frames allocate
        engine.infer(frames[0])
        engine.infer(frames[-1])
    rounds: list[NDArray[np.float64]] = []
    started = time.perf_counter()
    while len(rounds) < _MIN_ROUNDS or (len(rounds) < _MAX_ROUNDS and time.perf_counter() - started < budget_s):
        times_ms = np.zeros(len(engines))
        for index in rng.permutation(len(engines)):
            before = time.perf_counter()
            engines[index].infer(frames[len(rounds) % len(frames)])
            times_ms[index] = (time.perf_counter() - before) * 1e3
        rounds.append(times_ms)
    return np.stack(rounds)
