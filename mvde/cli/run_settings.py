"""What every kind of input of ``mvde run`` is run with: engine, camera, fit, calibration and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.cli.floor_options import FloorOptions
from mvde.cli.on_time import calibration_options, check_deadline_option, engine_paths, say_engines
from mvde.cli.shared_options import CameraOptions, EngineSelection, only
from mvde.cli.terminal import say
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.stabilize import Stabilization


@dataclass(frozen=True)
class RunSettings:
    """Inputs as given, the engine that runs on them, and the output; ``None`` for the default of the inputs' kind.

    Raises :class:`UsageError` for more than one engine or resolution.
    """

    inputs: Sequence[str]
    selection: EngineSelection
    camera: CameraOptions
    out: Path | None = None
    fit: Fit | None = None
    calibration: Path | None = None
    verb: str = "mvde run"
    stabilize: bool = False
    deadline_ms: float | None = None
    floor: FloorOptions = field(default_factory=FloorOptions)

    def __post_init__(self) -> None:
        """Check what belongs to one engine, or to several with a deadline."""
        check_deadline_option(self.deadline_ms)
        if self.deadline_ms is None:
            without = " without --deadline" if self.verb == "mvde run" else ""
            only(self.selection.engine, "--engine", f"{self.verb} takes one engine{without}")
            only(self.selection.resolutions, "--res", f"{self.verb} takes one resolution{without}")

    @property
    def stabilization(self) -> Stabilization | None:
        """Settings of the stabiliser; ``None`` without one."""
        from mvde.runtime.stabilize import Stabilization

        return Stabilization() if self.stabilize else None

    def load(self, **options: Any) -> DepthRuntime:
        """Load the runtime, building a missing engine first, and say what computes and with which camera.

        ``options`` are further arguments of :meth:`DepthRuntime.load`.
        """
        runtime = self.open(**options)
        say_camera(runtime, is_given=self.camera.frame_camera is not None)
        return runtime

    def open(self, **options: Any) -> DepthRuntime:
        """Load the runtime as :meth:`load` does, for inputs that have cameras of their own, and say what computes."""
        from mvde.cli.autobuild import build_missing
        from mvde.runtime.depth import DepthRuntime

        build_missing(self.selection)
        if self.deadline_ms is not None:
            return self._open_on_time(self.deadline_ms, options)
        runtime = DepthRuntime.load(
            only(self.selection.engine, "--engine", f"{self.verb} takes one engine"),
            name=self.selection.name,
            resolution=only(self.selection.resolutions, "--res", f"{self.verb} takes one resolution"),
            batch=self.selection.batch,
            engine_dir=self.selection.engine_dir,
            camera=self.camera.frame_camera,
            calibration=self.calibration,
            stats=self._columns(),
            **options,
        )
        info = runtime.info
        size = "x".join(map(str, info.resolution))
        say(f"{runtime.manifest.name} {size}, {info.id}: computes in {info.executed_precision} on {info.device}")
        return runtime

    def _open_on_time(self, deadline_ms: float, options: dict[str, Any]) -> DepthRuntime:
        """Load all engines as one runtime with a deadline."""
        from mvde.runtime.on_time import load_on_time

        paths = engine_paths(self.selection)
        if self.calibration is not None:
            options |= calibration_options(paths, self.calibration)
        runtime = load_on_time(paths, deadline_ms, camera=self.camera.frame_camera, **options)
        say_engines(runtime)
        return runtime

    def _columns(self) -> tuple[str, ...] | None:
        """Columns of the statistics: the engine's, and intervals where the calibration has them."""
        if self.calibration is None:
            return None
        from mvde.calibration.record import read_calibration
        from mvde.engines.store import find
        from mvde.stats import INTERVALS

        if read_calibration(self.calibration).intervals is None:
            return None
        chosen = self.selection
        engine = only(chosen.engine, "--engine", f"{self.verb} takes one engine")
        resolution = only(chosen.resolutions, "--res", f"{self.verb} takes one resolution")
        found = find(engine, name=chosen.name, resolution=resolution, batch=chosen.batch, root=chosen.engine_dir)
        return (*found.manifest.stats, *INTERVALS)


def say_camera(runtime: DepthRuntime, *, is_given: bool) -> None:
    """Say that depth is calibrated, or that the camera is assumed or has no effect."""
    from mvde.cli.manifest_rows import camera_text

    manifest = runtime.manifest
    if runtime.calibration is not None:
        what = runtime.calibration.describes or "intervals"
        say(f"calibrated: {what}, measured on {runtime.calibration.engine}")
    elif not manifest.depth_kind.has_canonical_camera:
        if is_given:
            say(f"the camera has no effect: depth of kind {manifest.depth_kind} does not depend on it")
    elif not is_given:
        say(f"camera assumed: {camera_text(manifest)}; give --camera or --fov for that of the frames")
