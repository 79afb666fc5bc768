"""The groups of options that several verbs share, and the single options that more than one of them has.

One name means one thing in every verb; a test holds the first sentence of its help, its type and its short form to
each other. Reserved for what comes: ``--calibration FILE``, ``--depth-range`` and ``--pixel-range``.
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

NAME_HELP = "Name of the model."
RES_HELP = "Resolution in pixels, H or HxW; repeatable."
BATCH_HELP = "Images per call."
OUT_HELP = "Folder to write to."
IMAGES_HELP = "Folder of photographs to measure on. Default: those that ship."
CONFIG_HELP = "Configuration of a model (.yaml)."
ENGINE_HELP = "Engine id, [backend:]precision, e.g. fp16 or openvino:bf16; repeatable."
FIT_HELP = "How a picture of another shape goes into the engine's input."
REST_HELP = "What an int8 or fp8 graph does not quantise computes in this."
SPLIT_HELP = "Part of the data set."
JSON_HELP = "Write JSON to this file; - prints it instead of the table."
EXPORT_DIR_HELP = "Folder of exported graphs."
ENGINE_DIR_HELP = "Folder of engines."


@dataclass(frozen=True)
class GraphSelection:
    """Exported graphs under ``export_dir``, by their model's ``name``, ``res`` and ``batch``; each narrows the choice.

    ``res`` are resolutions as they were written; :attr:`resolutions` are (height, width) in pixels.
    """

    name: Annotated[str | None, typer.Option("--name", help=f"{NAME_HELP} Chooses among several.")] = None
    res: Annotated[tuple[str, ...], typer.Option("--res", help=f"{RES_HELP} Default: every exported one.")] = ()
    batch: Annotated[int | None, typer.Option("--batch", min=1, help=f"{BATCH_HELP} Chooses among several.")] = None
    export_dir: Annotated[Path, typer.Option("--export-dir", help=EXPORT_DIR_HELP)] = Path("export")

    def __post_init__(self) -> None:
        _ = self.resolutions

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """(Height, width) in pixels of each, in the order given."""
        return [parse_resolution(text) for text in self.res]


@dataclass(frozen=True)
class EngineSelection:
    """Engines under ``engine_dir``, by id or folder (``engine``), model's ``name``, ``res`` and ``batch``.

    What is missing is built from the one graph under ``export_dir`` that fits, unless ``no_build``.
    """

    engine: Annotated[
        tuple[str, ...],
        typer.Option(
            "--engine",
            "-e",
            help=f"{ENGINE_HELP} Or the folder of an engine.",
        ),
    ] = ()
    name: Annotated[str | None, typer.Option("--name", help=f"{NAME_HELP} Chooses among several.")] = None
    res: Annotated[tuple[str, ...], typer.Option("--res", help=f"{RES_HELP} Chooses among several.")] = ()
    batch: Annotated[int | None, typer.Option("--batch", min=1, help=f"{BATCH_HELP} Chooses among several.")] = None
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help=ENGINE_DIR_HELP)] = Path("engines")
    export_dir: Annotated[
        Path, typer.Option("--export-dir", help=f"{EXPORT_DIR_HELP} A missing engine is built from the only one there.")
    ] = Path("export")
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Refuse an engine that is missing instead of building it.")
    ] = False

    def __post_init__(self) -> None:
        _ = self.resolutions

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """(Height, width) in pixels of each, in the order given."""
        return [parse_resolution(text) for text in self.res]

    @property
    def wanted_resolutions(self) -> list[tuple[int, int] | None]:
        """The same, or ``None`` alone where every resolution will do."""
        return [*self.resolutions] or [None]


@dataclass(frozen=True)
class DataOptions:
    """A data set with depth: its folder or file ``data``, its ``format``, and how many of its frames are taken.

    ``depth_scale`` is the stored value of one metre, for the format ``folder``. ``max_frames`` are evenly spread; 0
    means all. ``split`` is the part of it that is read. ``protocol`` says which ground truth is counted and how, by the
    name of a published one; ``range`` is (nearest, farthest) in metres as text, the data set's own by default.
    """

    data: Annotated[Path | None, typer.Option("--data", help="Data set with depth, a folder or a file.")] = None
    format: Annotated[DataFormat, typer.Option("--format", help="Format of --data.")] = DataFormat.FOLDER
    depth_scale: Annotated[
        float | None,
        typer.Option(
            "--depth-scale",
            help="Stored value of one metre, for --format folder. Default: 1000, and 1 in a floating-point .npy.",
        ),
    ] = None
    max_frames: Annotated[
        int | None,
        typer.Option(
            "--max-frames",
            min=0,
            help="Evenly spread frames of --data to take; 0 for all. Default: all, and 64 to judge a graph.",
        ),
    ] = None

    split: Annotated[
        Split | None, typer.Option("--split", help=f"{SPLIT_HELP} Default: every frame there, or the protocol's.")
    ] = None
    protocol: Annotated[
        ProtocolName | None,
        typer.Option("--protocol", help="Published protocol that sets range, crop, split and averaging."),
    ] = None
    range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="MIN,MAX",
            help="Ground truth that counts, in metres. Default: what the data set's sensor, renderer or protocol says.",
        ),
    ] = None

    def __post_init__(self) -> None:
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if self.data is None and changed:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise UsageError(f"{options} would change nothing: they say how --data is read; give --data too")
        if self.depth_scale is not None and not 0 < self.depth_scale < math.inf:
            raise UsageError(f"--depth-scale is a positive number, such as 1000, but got {self.depth_scale:g}")
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
        """The data set, or ``None`` where none was named. Raises DatasetError where it cannot be read."""
        from mvde.datasets.formats import open_dataset

        if self.data is None:
            return None
        split = self.split if self.protocol is None else protocol_named(self.protocol).split
        return open_dataset(self.format, self.data, self.depth_scale, split)

    def evaluation(self, dataset: DepthDataset) -> EvaluationProtocol:
        """How metrics on ``dataset``, which :meth:`open` gave, are taken."""
        split = None if self.split is None else str(self.split)
        named = EvaluationProtocol(dataset.depth_range_m, split=split)
        if self.protocol is not None:
            named = protocol_named(self.protocol)
        return named if self.range is None else named.with_range(parse_range(self.range))


@dataclass(frozen=True)
class CameraOptions:
    """The camera of the frames: ``camera`` (a JSON file, or focal lengths and principal point in pixels of ``frame``).

    ``fov`` says the same of a camera whose data sheet gives its field of view alone, horizontal by vertical in
    degrees. ``frame`` is the camera's height x width in pixels.
    """

    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            metavar="FILE|fx,fy,cx,cy",
            help="Camera of the frames: a JSON file with fx, fy, cx, cy, width and height, or four numbers in pixels.",
        ),
    ] = None
    fov: Annotated[
        str | None,
        typer.Option(
            "--fov",
            metavar="HxV",
            help="Field of view of the camera of the frames, horizontal x vertical in degrees, e.g. 69x42.",
        ),
    ] = None
    frame: Annotated[
        str | None,
        typer.Option("--frame", metavar="HxW", help="Size of a frame of the camera whose four numbers --camera gives."),
    ] = None

    def __post_init__(self) -> None:
        if self.camera is not None and self.fov is not None:
            raise UsageError("--camera and --fov both say what the camera is; give one of them")
        if self.frame is not None and self.camera is None:
            raise UsageError("--frame is the size that the numbers of --camera are for; give --camera fx,fy,cx,cy too")
        _ = self.relative_focal

    @property
    def known_camera(self) -> Camera | None:
        """The camera that ``--camera`` gives, in pixels."""
        if self.camera is None:
            return None
        return parse_camera(self.camera, None if self.frame is None else parse_resolution(self.frame))

    @property
    def relative_focal(self) -> float | None:
        """``sqrt(fx / W * fy / H)`` of the camera; ``None`` where nothing says what it is."""
        camera = self.known_camera
        if camera is not None:
            return camera.relative_focal
        return None if self.fov is None else focal_from_fov(parse_fov(self.fov))


@dataclass(frozen=True)
class QuantizationOptions:
    """Images that decide and judge a lowered graph, and how the ranges of int8 and fp8 are taken from them."""

    quantization_images: Annotated[
        Path | None,
        typer.Option(
            "--quantization-images",
            help="Folder of photographs that decide a lowered graph; every fourth judges it. Default: crops of those "
            "that ship.",
        ),
    ] = None
    method: Annotated[
        RangeMethod, typer.Option("--method", help="How the ranges of int8 and fp8 are taken from them.")
    ] = RangeMethod.AUTO


def only(given: Sequence[Value], option: str, what: str) -> Value | None:
    """The one value of a repeatable option, ``None`` without any. Raises :class:`UsageError` for several."""
    if len(given) > 1:
        raise UsageError(f"{what}, but {option} was given {len(given)} times; give it once")
    return given[0] if given else None
