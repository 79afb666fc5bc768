"""Options and option groups shared by several verbs.

An option means the same in every verb; a test checks that type, short form and first help sentence agree. Reserved for
future use: ``--calibration FILE``, ``--depth-range`` and ``--pixel-range``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mvde.camera import Camera, focal_from_fov, parse_camera, parse_fov
from mvde.datasets.formats import DataFormat
from mvde.datasets.splits import Split
from mvde.errors import UsageError
from mvde.export.range_method import RangeMethod
from mvde.protocols import EvaluationProtocol, ProtocolName, parse_range, protocol_named
from mvde.resolution import parse_resolution

if TYPE_CHECKING:
    from mvde.datasets.sample import DepthDataset

Value = TypeVar("Value")

NAME_HELP = "Model name."
RES_HELP = "Resolution in pixels, H or HxW; repeatable."
BATCH_HELP = "Images per call."
OUT_HELP = "Output folder."
IMAGES_HELP = "Folder of photographs to measure on. Default: bundled photographs."
CONFIG_HELP = "Model configuration (.yaml)."
ENGINE_HELP = "Engine id, [backend:]precision, e.g. fp16 or openvino:bf16; repeatable."
FIT_HELP = "How to fit images of another aspect ratio to the engine's input. Default: as the engine's manifest states."
REST_HELP = "Precision of unquantised nodes in an int8 or fp8 graph."
SPLIT_HELP = "Split of the data set."
JSON_HELP = "Write JSON to this file; - prints it instead of the table."
EXPORT_DIR_HELP = "Folder of exported graphs."
ENGINE_DIR_HELP = "Folder of engines."


@dataclass(frozen=True)
class GraphSelection:
    """Selection of exported graphs under ``export_dir`` by model ``name``, ``res`` and ``batch``.

    ``res`` holds the resolutions as given; :attr:`resolutions` are (height, width) in pixels.
    """

    name: Annotated[str | None, typer.Option("--name", help=f"{NAME_HELP} Selects among several.")] = None
    res: Annotated[tuple[str, ...], typer.Option("--res", help=f"{RES_HELP} Default: all exported.")] = ()
    batch: Annotated[int | None, typer.Option("--batch", min=1, help=f"{BATCH_HELP} Selects among several.")] = None
    export_dir: Annotated[Path, typer.Option("--export-dir", help=EXPORT_DIR_HELP)] = Path("export")

    def __post_init__(self) -> None:
        _ = self.resolutions

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """Resolutions (height, width) in pixels, in the order given."""
        return [parse_resolution(text) for text in self.res]


@dataclass(frozen=True)
class EngineSelection:
    """Selection of engines under ``engine_dir`` by id or folder (``engine``), model ``name``, ``res`` and ``batch``.

    A missing engine is built from the only matching graph under ``export_dir``, unless ``no_build``.
    """

    engine: Annotated[
        tuple[str, ...],
        typer.Option(
            "--engine",
            "-e",
            help=f"{ENGINE_HELP} Also accepts engine folders.",
        ),
    ] = ()
    name: Annotated[str | None, typer.Option("--name", help=f"{NAME_HELP} Selects among several.")] = None
    res: Annotated[tuple[str, ...], typer.Option("--res", help=f"{RES_HELP} Selects among several.")] = ()
    batch: Annotated[int | None, typer.Option("--batch", min=1, help=f"{BATCH_HELP} Selects among several.")] = None
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help=ENGINE_DIR_HELP)] = Path("engines")
    export_dir: Annotated[
        Path, typer.Option("--export-dir", help=f"{EXPORT_DIR_HELP} Missing engines are built from it.")
    ] = Path("export")
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Fail if an engine is missing instead of building it.")
    ] = False

    def __post_init__(self) -> None:
        _ = self.resolutions

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """Resolutions (height, width) in pixels, in the order given."""
        return [parse_resolution(text) for text in self.res]

    @property
    def wanted_resolutions(self) -> list[tuple[int, int] | None]:
        """:attr:`resolutions`, or ``[None]`` for any resolution."""
        return [*self.resolutions] or [None]


@dataclass(frozen=True)
class DataOptions:
    """A data set with ground truth: its folder or file ``data``, its ``format``, and the frames to evaluate.

    ``depth_scale`` is the stored value of one metre, for the format ``folder``. ``max_frames`` are evenly spaced; 0
    means all. ``split`` is the part to read. ``protocol`` names a published evaluation protocol; ``range`` is (nearest,
    farthest) in metres as text, by default that of the data set.
    """

    data: Annotated[Path | None, typer.Option("--data", help="Data set with depth, a folder or file.")] = None
    format: Annotated[DataFormat, typer.Option("--format", help="Format of --data.")] = DataFormat.FOLDER
    depth_scale: Annotated[
        float | None,
        typer.Option(
            "--depth-scale",
            help="Stored value of one metre, for --format folder. Default: 1000, or 1 for floating-point .npy.",
        ),
    ] = None
    max_frames: Annotated[
        int | None,
        typer.Option(
            "--max-frames",
            min=0,
            help="Number of evenly spaced frames of --data; 0 for all. Default: all, or 64 for `mvde lower`.",
        ),
    ] = None

    split: Annotated[
        Split | None, typer.Option("--split", help=f"{SPLIT_HELP} Default: all frames, or set by --protocol.")
    ] = None
    protocol: Annotated[
        ProtocolName | None,
        typer.Option("--protocol", help="Published protocol, which sets range, crop, split and averaging."),
    ] = None
    range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="MIN,MAX",
            help="Range of evaluated ground truth in metres. Default: that of the data set, or set by --protocol.",
        ),
    ] = None

    def __post_init__(self) -> None:
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if self.data is None and changed:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise UsageError(f"{options} would have no effect without --data; give --data too")
        if self.depth_scale is not None and not 0 < self.depth_scale < math.inf:
            raise UsageError(f"--depth-scale is a positive number, e.g. 1000, but got {self.depth_scale:g}")
        if self.range is not None:
            parse_range(self.range)
        if self.protocol is None:
            return
        named = protocol_named(self.protocol)
        if self.format != named.data_format:
            raise UsageError(f"--protocol {self.protocol} is for --format {named.data_format}, not {self.format}")
        if self.split is not None and self.split != named.split:
            raise UsageError(
                f"--protocol {self.protocol} is of the split {named.split}; leave --split {self.split} out"
            )

    def open(self) -> DepthDataset | None:
        """Open the data set, or return ``None`` if none was given; raises DatasetError if it cannot be read."""
        from mvde.datasets.formats import open_dataset

        if self.data is None:
            return None
        split = self.split if self.protocol is None else protocol_named(self.protocol).split
        return open_dataset(self.format, self.data, self.depth_scale, split)

    def evaluation(self, dataset: DepthDataset) -> EvaluationProtocol:
        """Evaluation protocol for ``dataset``, as opened by :meth:`open`."""
        split = None if self.split is None else str(self.split)
        named = EvaluationProtocol(dataset.depth_range_m, split=split)
        if self.protocol is not None:
            named = protocol_named(self.protocol)
        return named if self.range is None else named.with_range(parse_range(self.range))


@dataclass(frozen=True)
class CameraOptions:
    """Intrinsics of the camera: ``camera`` is a JSON file, or fx,fy,cx,cy in pixels of ``frame``.

    ``fov``, as an alternative, is the field of view from a data sheet, horizontal x vertical in degrees. ``frame`` is
    the camera's height x width in pixels.
    """

    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            metavar="FILE|fx,fy,cx,cy",
            help="Camera intrinsics: a JSON file with fx, fy, cx, cy, width and height, or four numbers in pixels.",
        ),
    ] = None
    fov: Annotated[
        str | None,
        typer.Option(
            "--fov",
            metavar="HxV",
            help="Field of view of the camera, horizontal x vertical in degrees, e.g. 69x42.",
        ),
    ] = None
    frame: Annotated[
        str | None,
        typer.Option("--frame", metavar="HxW", help="Frame size in pixels that --camera fx,fy,cx,cy refers to."),
    ] = None

    def __post_init__(self) -> None:
        if self.camera is not None and self.fov is not None:
            raise UsageError("--camera and --fov both describe the camera; give one of them")
        if self.frame is not None and self.camera is None:
            raise UsageError("--frame is the frame size for --camera; give --camera fx,fy,cx,cy too")
        _ = self.relative_focal

    @property
    def known_camera(self) -> Camera | None:
        """Camera from ``--camera``, in pixels; ``None`` if not given."""
        if self.camera is None:
            return None
        return parse_camera(self.camera, None if self.frame is None else parse_resolution(self.frame))

    @property
    def relative_focal(self) -> float | None:
        """Relative focal length, ``sqrt(fx / W * fy / H)``; ``None`` if no camera was given."""
        camera = self.known_camera
        if camera is not None:
            return camera.relative_focal
        return None if self.fov is None else focal_from_fov(parse_fov(self.fov))


@dataclass(frozen=True)
class QuantizationOptions:
    """Images for calibration and verification of a lowered graph, and the range method for int8 and fp8."""

    quantization_images: Annotated[
        Path | None,
        typer.Option(
            "--quantization-images",
            help="Folder of photographs for calibration; every fourth is held out for verification. Default: crops of "
            "the bundled ones.",
        ),
    ] = None
    method: Annotated[
        RangeMethod, typer.Option("--method", help="How to determine int8 and fp8 ranges from these images.")
    ] = RangeMethod.AUTO


def only(given: Sequence[Value], option: str, what: str) -> Value | None:
    """Only value of a repeatable option, ``None`` if absent; raises :class:`UsageError` for several."""
    if len(given) > 1:
        raise UsageError(f"{what}, but {option} was given {len(given)} times; give it once")
    return given[0] if given else None
