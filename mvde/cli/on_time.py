"""What verbs with ``--deadline`` have in common: the engines that are meant, and what is said of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.cli.terminal import say
from mvde.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mvde.cli.shared_options import EngineSelection
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.on_time import EngineOnTime, OnTimeRuntime

DEADLINE_HELP = "Longest time of a frame in milliseconds: each has the largest --res, or --engine, that is in time."


def check_deadline_option(deadline_ms: float | None) -> None:
    """Raise :class:`UsageError` unless ``--deadline`` is a finite number above 0, or was not given."""
    if deadline_ms is not None and not 0 < deadline_ms < math.inf:
        raise UsageError(f"--deadline is a number of milliseconds above 0, but got {deadline_ms:g}")


def engine_paths(selection: EngineSelection) -> list[Path]:
    """The engine of each resolution and id that was given."""
    from mvde.engines.store import find

    found = [
        find(text, name=selection.name, resolution=size, batch=selection.batch, root=selection.engine_dir).path
        for size in selection.wanted_resolutions
        for text in selection.engine or (None,)
    ]
    return list(dict.fromkeys(found))


def calibration_options(paths: Sequence[Path], given: Path) -> dict[str, Any]:
    """Options to load engines with their calibrations: these, and columns of intervals where all of them have some."""
    from mvde.engines.store import find
    from mvde.runtime.engine_set import calibrations_of, check_one_model
    from mvde.stats import INTERVALS

    manifests = [find(path).manifest for path in paths]
    check_one_model(manifests)
    found = calibrations_of(manifests, given)
    if any(one.intervals is None for one in found):
        return {"calibration": found}
    return {"calibration": found, "stats": (*manifests[0].stats, *INTERVALS)}


def say_engines(runtime: OnTimeRuntime) -> None:
    """Say what the engines are, take and need."""
    members = runtime.members
    for one in members:
        say(f"{runtime.manifest.name} {size_text(one)}, {one.info.id}: computes in {one.info.executed_precision} on "
            f"{one.info.device}, {one.cost_ms:.1f} ms alone, {memory_text([one])}")  # fmt: skip
    rows, columns = runtime.manifest.grid
    say(f"deadline {runtime.deadline_ms:g} ms, {len(members)} engines with {memory_text(members)} in all, "
        f"statistics of {rows}x{columns} patches")  # fmt: skip


def say_on_time(runtime: DepthRuntime) -> None:
    """Say what became of the frames of a runtime with a deadline; without one, say no more."""
    from mvde.runtime.on_time import OnTimeRuntime

    if isinstance(runtime, OnTimeRuntime):
        say(_frames_text(runtime))


def _frames_text(runtime: OnTimeRuntime) -> str:
    counts = runtime.counts
    parts = [f"{counts.num_late} later than {runtime.deadline_ms:g} ms"]
    if counts.num_unheld:
        parts[0] += f" (of these, {counts.num_unheld} that no engine would have held)"
    parts += [f"{one.num_frames} at {size_text(one)}" for one in runtime.members]
    return ", ".join([*parts, f"{counts.num_switches} switches"])


def resolutions_text(runtime: DepthRuntime) -> str:
    """Resolution of the engine, or of each that frames were inferred with."""
    from mvde.runtime.on_time import OnTimeRuntime

    if isinstance(runtime, OnTimeRuntime):
        return ",".join(size_text(one) for one in runtime.members if one.num_frames)
    return "x".join(map(str, runtime.info.resolution))


def size_text(one: EngineOnTime) -> str:
    """Resolution of an engine."""
    return "x".join(map(str, one.info.resolution))


def memory_text(members: Sequence[EngineOnTime]) -> str:
    """Memory of engines, together."""
    text = f"{sum(one.memory_bytes for one in members) / 2**20:.0f} MiB of memory"
    on_device = [one.device_memory_bytes for one in members if one.device_memory_bytes is not None]
    return f"{text} and {sum(on_device) / 2**20:.0f} MiB on the device" if on_device else text
