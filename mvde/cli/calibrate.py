"""``mvde calibrate scale``: metres for one camera and scene, from distances measured there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mvde.cli.calibrate_intervals import intervals
from mvde.cli.groups import with_groups
from mvde.cli.shared_options import DEPTH_SCALE_HELP, ENGINE_DIR_HELP, FIT_HELP, OUT_HELP, CameraOptions
from mvde.cli.terminal import say
from mvde.errors import UsageError
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.calibration.fit import FramePoints
    from mvde.calibration.record import Calibration
    from mvde.camera import Camera
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.frame_camera import CameraOf


def register(app: typer.Typer) -> None:
    """Add the verb and its sub-verb to the application."""
    calibrate = typer.Typer(no_args_is_help=True, help="Calibrate engines.", rich_markup_mode=None)
    calibrate.callback()(_calibrate)
    calibrate.command("scale")(with_groups(scale))
    calibrate.command("intervals")(with_groups(intervals))
    app.add_typer(calibrate, name="calibrate")


def _calibrate() -> None:
    """Calibrate engines."""


def scale(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="Engine id or folder.")],
    camera: CameraOptions,
    reference_points: Annotated[
        Path | None,
        typer.Option(
            "--reference-points",
            help="Table (.csv) of known depths, with the columns frame,x,y,metres; frames are relative to its folder.",
        ),
    ] = None,
    depth: Annotated[
        Path | None,
        typer.Option("--depth", help="Folder of a depth camera's frames: rgb/NAME.jpg, and depth/NAME.png aligned."),
    ] = None,
    depth_scale: Annotated[float | None, typer.Option("--depth-scale", help=DEPTH_SCALE_HELP)] = None,
    fit: Annotated[Fit | None, typer.Option("--fit", help=FIT_HELP)] = None,
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help=ENGINE_DIR_HELP)] = Path("engines"),
    out: Annotated[Path, typer.Option("--out", "-o", help=OUT_HELP)] = Path("calibration"),
) -> None:
    """Fit the scale of an engine's depth to known depths of a scene.

    Writes NAME.calibration.json for --calibration, for this graph, camera, frame size and fit. Relative kinds get a
    scale and a shift, which hold for a fixed camera in a fixed scene and need five frames or more. Depth is along the
    optical axis, not the length of the tape.
    """
    from mvde.artifact import artifact_stem
    from mvde.calibration.record import SUFFIX, write_calibration
    from mvde.runtime.depth import DepthRuntime

    if (reference_points is None) == (depth is None):
        raise UsageError("mvde calibrate scale needs known depths; give --reference-points or --depth, one of them")
    if depth_scale is not None and depth is None:
        raise UsageError("--depth-scale would have no effect without --depth; give --depth too")
    with DepthRuntime.load(engine, engine_dir=engine_dir) as runtime:
        frames = _of_table(reference_points) if reference_points else _of_depth(depth or Path(), depth_scale)
        found = _measured(runtime, frames, fit, camera.frame_camera)
        manifest = runtime.manifest
    path = out / f"{artifact_stem(manifest.name, manifest.resolution, manifest.batch)}{SUFFIX}"
    write_calibration(found, path)
    _say(path, found)


class _Known(NamedTuple):
    """A frame with known depths: its picture (H, W, 3), its camera where known, and its points given its map (H, W)."""

    image: NDArray[np.uint8]
    camera: Camera | None
    points: Callable[[NDArray[np.float32]], FramePoints]


def _of_table(table: Path) -> Iterator[_Known]:
    """Frames of a table of reference points."""
    from mvde.calibration.points import points_of, read_reference_points
    from mvde.image import read_image

    for path, points in read_reference_points(table).items():
        yield _Known(read_image(path), None, partial(points_of, path.name, points=points, where=table))


def _of_depth(folder: Path, depth_scale: float | None) -> Iterator[_Known]:
    """Frames of a depth camera."""
    from mvde.datasets.folder import FolderDataset

    frames = FolderDataset(folder, depth_scale)
    for index in range(len(frames)):
        sample = frames[index]
        yield _Known(sample.rgb, sample.camera, partial(_all_points, sample.name, sample.depth_m))


def _all_points(name: str, depth_m: NDArray[np.float32], found: NDArray[np.float32]) -> FramePoints:
    """All pixels of a map with the depth camera's, 0 or NaN where it has none."""
    import numpy as np

    from mvde.calibration.fit import FramePoints

    return FramePoints(name, found.ravel().astype(np.float64), depth_m.ravel().astype(np.float64))


def _measured(
    runtime: DepthRuntime, frames: Iterator[_Known], fit: Fit | None, camera_of_size: CameraOf | None
) -> Calibration:
    """Run the frames and fit their points; all must have one size and camera."""
    from datetime import datetime, timezone

    from mvde.calibration.fit import fit as fit_points
    from mvde.calibration.record import Calibration, MeasuredRecord, camera_record, fp32_graph_sha256

    manifest = runtime.manifest
    fit = fit or Fit(manifest.preprocess.fit)
    views: list[tuple[tuple[int, int], Camera | None]] = []
    found: list[FramePoints] = []
    for frame in frames:
        size = frame.image.shape[0], frame.image.shape[1]
        camera = frame.camera if camera_of_size is None else camera_of_size(size)
        _ = camera_record(camera)  # refuses a distorting lens before frames run
        result = runtime.infer(frame.image, fit, camera=camera)
        found.append(frame.points(result.depth))
        views.append((size, camera))
        _check_alike(views, found)
    fitted = fit_points(manifest.depth_kind, found)
    size, camera = views[0]
    return Calibration(
        name=manifest.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        graph_sha256=fp32_graph_sha256(manifest),
        engine=str(runtime.info.id),
        depth_kind=manifest.depth_kind,
        resolution=manifest.resolution,
        fit=str(fit),
        frame=size,
        scale=fitted.scale,
        shift=fitted.shift,
        camera=camera_record(camera),
        measured=MeasuredRecord(
            fitted.num_points, fitted.num_frames, fitted.distance_m, fitted.held_out_abs_rel, fitted.spread
        ),
    )


def _check_alike(views: list[tuple[tuple[int, int], Camera | None]], found: list[FramePoints]) -> None:
    """Raise :class:`CalibrationError` if the last frame is of another size or camera than the first."""
    from mvde.errors import CalibrationError

    if views[-1] != views[0]:
        (height, width), first = views[-1][0], views[0][0]
        what = (
            f"{height}x{width}, but the first is {first[0]}x{first[1]}"
            if (height, width) != first
            else ("of another camera than the first")
        )
        raise CalibrationError(
            f"the frame {found[-1].name} is {what}; a calibration is of one camera: calibrate each by itself"
        )


def _say(path: Path, found: Calibration) -> None:
    from mvde.calibration.record import rows

    say(f"{path}:")
    for label, text in rows(found):
        say(f"  {label}: {text}")
