"""A run over all shards: what is missing is computed, what is finished is left alone, and errors are counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.bulk.fingerprint import DECODING, Fingerprint, claim
from mvde.bulk.formats import OutputFormat, StatsDtype
from mvde.bulk.inputs import InputOptions, Shard, list_shards
from mvde.bulk.local import Failure, run_local
from mvde.bulk.patches import EnginePatches, Patches, PatchLayout
from mvde.bulk.work import CameraRule, ShardReport, Work, expected_input_sha256, report_from
from mvde.bulk.writing import Layout
from mvde.calibration.interval_columns import IntervalColumns
from mvde.calibration.record import calibration_for, fp32_graph_sha256
from mvde.engines.store import find
from mvde.errors import ImageError, OutputError, UsageError
from mvde.files import read_small, sweep
from mvde.runtime.placement import Fit, check_fit

if TYPE_CHECKING:
    from mvde.manifest import EngineManifest

Runner = Callable[[Work, Iterable[Shard]], Iterator["ShardReport | Failure"]]
"""Runs shards somewhere: in processes of this machine, or on a cluster."""
_MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True)
class StatsOptions:
    """How statistics are computed and stored; ``None`` takes the engine's default.

    ``stats`` are columns of :data:`mvde.stats.STATS`; ``patches`` says which patches get a row, by default those of
    the engine's input.
    """

    stats: Sequence[str] | None = None
    dtype: StatsDtype = StatsDtype.F2
    output_format: OutputFormat = OutputFormat.PARQUET
    fit: Fit | None = None
    camera: CameraRule = field(default_factory=CameraRule)
    calibration: Path | None = None
    patches: Patches = field(default_factory=EnginePatches)


@dataclass(frozen=True)
class Part:
    """Part ``index`` of ``count``, from 1: every ``count``-th shard, for arrays of jobs."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"a part is i/n with i from 1 to n, e.g. 3/16, but got {self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Part:
        """Parse ``"i/n"``. Raises :class:`UsageError`."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise UsageError(f"a part is i/n with i from 1 to n, e.g. 3/16, but got {text!r}")
        return cls(int(index), int(count))


@dataclass
class Summary:
    """Counts of a run: shards done now, found finished and failed; rows and errors of all that are finished."""

    done: int = 0
    finished: int = 0
    rows: int = 0
    errors: int = 0
    widened: set[str] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, report: ShardReport) -> None:
        """Count the rows of a shard."""
        self.rows += report.rows
        self.errors += report.errors
        self.widened.update(report.widened)
        self.examples += report.examples[: 10 - len(self.examples)]

    def check(self, max_error_rate: float) -> None:
        """Raise :class:`ImageError` for failed shards, or for more error rows than the rate allows."""
        if self.failures:
            first = self.failures[0]
            raise OutputError(
                f"{len(self.failures)} shards were not done, first {first.shard}: {first.reason}; the same command "
                "does what is missing"
            )
        if self.rows and self.errors / self.rows > max_error_rate:
            raise ImageError(
                f"{self.errors} of {self.rows} pictures are errors, {self.errors / self.rows:.1%}, more than the "
                f"{max_error_rate:.1%} of --max-error-rate; first: {self.examples[0]}"
            )


def plan(engine: str | Path, out: Path, inputs: InputOptions, options: StatsOptions, threads: int = 1) -> Work:
    """Work of a run into ``out``, which is claimed for its fingerprint.

    Raises what :func:`mvde.engines.store.find` raises, :class:`UsageError` for options that do not fit the engine or a
    folder of other statistics, :class:`CalibrationError` for a calibration of another graph.
    """
    found = find(engine)
    manifest = found.manifest
    calibration = None if options.calibration is None else calibration_for(manifest, options.calibration)
    names = IntervalColumns(manifest, options.stats, calibration).names
    fit = str(check_fit(manifest.preprocess.fit if options.fit is None else options.fit))
    patches = options.patches.layout(manifest, names)
    fingerprint = _fingerprint(manifest, inputs, options, names, fit, patches)
    claim(out, fingerprint)
    sweep(out)
    layout = Layout(names, patches.grid, options.dtype, fingerprint.text)
    return Work(
        found.path, out, layout, options.output_format, fit, options.camera, options.calibration, threads,
        options.patches,
    )  # fmt: skip


def _fingerprint(
    manifest: EngineManifest,
    inputs: InputOptions,
    options: StatsOptions,
    names: tuple[str, ...],
    fit: str,
    patches: PatchLayout,
) -> Fingerprint:
    calibration, kind = options.calibration, manifest.depth_kind
    return Fingerprint(
        name=manifest.name,
        graph_sha256=fp32_graph_sha256(manifest),
        engine=manifest.engine.id,
        executed_precision=manifest.engine.executed_precision,
        resolution=manifest.resolution,
        grid=patches.grid,
        patch=patches.patch,
        processor=patches.processor,
        stats=names,
        depth_kind=str(kind),
        unit=kind.unit,
        fit=fit,
        camera=str(options.camera),
        calibration_sha256=None if calibration is None else sha256(calibration.read_bytes()).hexdigest(),
        decoding=DECODING,
        dtype=str(options.dtype),
        output_format=str(options.output_format),
        shard_size=inputs.size,
        limit=inputs.limit,
    )


def select(shards: Iterable[Shard], part: Part) -> Iterator[Shard]:
    """The shards of a part."""
    return (shard for index, shard in enumerate(shards) if index % part.count == part.index - 1)


def missing(work: Work, shards: Iterable[Shard], summary: Summary, *, retry_errors: bool = False) -> Iterator[Shard]:
    """The shards to compute; finished ones are counted in ``summary``.

    With ``retry_errors`` shards with error rows are computed again. Raises :class:`UsageError` for a finished shard
    whose input has changed since.
    """
    for shard in shards:
        report = finished(work, shard)
        if report is None or (retry_errors and report.errors):
            yield shard
            continue
        if report.input_sha256 != expected_input_sha256(shard):
            raise UsageError(
                f"the input of {work.path_of(shard.name)} has changed since: its names or sizes differ; remove that "
                "file to compute it again, or give another folder: --out DIR"
            )
        summary.finished += 1
        summary.add(report)


def finished(work: Work, shard: Shard) -> ShardReport | None:
    """Report of a shard whose file is there, else ``None``."""
    if not work.path_of(shard.name).exists():
        return None
    try:
        return report_from(json.loads(read_small(work.record_of(shard.name), _MAX_RECORD_BYTES)))
    except (OSError, ValueError, TypeError, KeyError):  # the record is lost: compute it again
        return None


def compute_stats(
    inputs: Iterable[str],
    engine: str | Path,
    out: str | Path,
    *,
    input_options: InputOptions | None = None,
    options: StatsOptions | None = None,
    part: Part | None = None,
    num_workers: int = 1,
    retry_errors: bool = False,
    runner: Runner | None = None,
    on_report: Callable[[ShardReport | Failure], None] | None = None,
) -> Summary:
    """Compute the patch statistics of all pictures of ``inputs`` into the folder ``out``; finished shards are kept.

    ``runner`` is where shards run, by default ``num_workers`` processes of one thread each. ``on_report`` gets each
    shard's result. Raises what :func:`plan`, :func:`mvde.bulk.inputs.list_shards`, :func:`missing` and the runner
    raise; what is finished stays, and the same call does the rest.
    """
    cut = input_options or InputOptions()
    work = plan(engine, Path(out), cut, options or StatsOptions())
    summary = Summary()
    shards = missing(work, select(list_shards(inputs, cut), part or Part()), summary, retry_errors=retry_errors)
    results = runner(work, shards) if runner is not None else run_local(work, shards, num_workers)
    for result in results:
        if isinstance(result, Failure):
            summary.failures.append(result)
        else:
            summary.done += 1
            summary.add(result)
        if on_report is not None:
            on_report(result)
    return summary
