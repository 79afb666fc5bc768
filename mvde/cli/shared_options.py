"""Options and option groups shared by several verbs.

An option means the same in every verb; a test checks that type, short form and first help sentence agree. Reserved for
future use: ``--calibration FILE``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mvde.camera import Camera, focal_from_fov, parse_camera, parse_fov, parse_intrinsics
from mvde.contract import COLOURS, DepthKind
from mvde.datasets.formats import DataFormat
from mvde.datasets.splits import Split
from mvde.errors import UsageError
from mvde.export.imported.contract import parse_channels, parse_focal, parse_span
from mvde.export.range_method import RangeMethod
from mvde.protocols import EvaluationProtocol, ProtocolName, parse_range, protocol_named
from mvde.resolution import parse_resolution

if TYPE_CHECKING:
    from mvde.datasets.sample import DepthDataset
    from mvde.runtime.frame_camera import CameraOf

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
CALIBRATION_HELP = "Calibration file of mvde calibrate, which makes depth metric."
DEPTH_SCALE_HELP = "Stored value of one metre. Default: 1000, or 1 for floating-point .npy."
SPLIT_HELP = "Split of the data set."
FORMAT_HELP = "Format of the data."
FRAMES_HELP = "Number of evenly spaced frames; 0 for all."
SEED_HELP = "Random seed."
TRANSFORMERS_HELP = "Model of transformers, a hub name or folder."
JSON_HELP = "Write JSON to this file; - prints it instead of the table."
KIND_HELP = "Meaning of the map's numbers."
EXPORT_DIR_HELP = "Folder of exported graphs."
ENGINE_DIR_HELP = "Folder of engines."
SCAN_HELP = "Settings of distances by bearing: how the camera is mounted, and what counts as an obstacle."
POINT_STEP_HELP = "Every N-th row and column of depth gives a point."


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
    format: Annotated[DataFormat, typer.Option("--format", help=FORMAT_HELP)] = DataFormat.FOLDER
    depth_scale: Annotated[
        float | None,
        typer.Option("--depth-scale", help=f"{DEPTH_SCALE_HELP} For --format folder."),
    ] = None
    max_frames: Annotated[
        int | None,
        typer.Option(
            "--max-frames",
            min=0,
            help=f"{FRAMES_HELP} Default: all, or 64 for `mvde lower`.",
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
    """Intrinsics of the camera: ``camera`` is a file, or fx,fy,cx,cy in pixels of ``frame``.

    ``fov``, as an alternative, is the field of view from a data sheet, horizontal x vertical in degrees. ``frame`` is
    the camera's height x width in pixels; verbs that see frames take it from them.
    """

    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            metavar="FILE|fx,fy,cx,cy",
            help="Camera intrinsics: a ROS calibration (.yaml), a JSON file with fx, fy, cx, cy, width and height, or "
            "four numbers in pixels.",
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
        self._check_frame()
        if self.camera is not None and self.frame is None and (numbers := parse_intrinsics(self.camera)) is not None:
            Camera(*numbers, size=(1, 1))  # the frame's size comes later
        else:
            _ = self.relative_focal

    def _check_frame(self) -> None:
        if self.frame is not None and self.camera is None:
            raise UsageError("--frame is the frame size for --camera; give --camera fx,fy,cx,cy too")

    @property
    def frame_camera(self) -> CameraOf | None:
        """Function from the size (H, W) of a frame to its camera; ``None`` if no camera was given.

        Numbers without ``frame`` are in pixels of the first frame.
        """
        if self.fov is not None:
            horizontal_deg, vertical_deg = parse_fov(self.fov)
            return lambda size: Camera.from_fov(horizontal_deg, vertical_deg, size)
        if self.camera is None:
            return None
        numbers = parse_intrinsics(self.camera)
        cameras = [self.known_camera] if numbers is None or self.frame is not None else []

        def camera_of(size: tuple[int, int]) -> Camera | None:
            if not cameras and numbers is not None:
                cameras.append(Camera(*numbers, size=size))
            return cameras[0]

        return camera_of

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
class FilmedDataOptions(DataOptions, CameraOptions):
    """A data set with ground truth, and the camera that took all of its frames, which overrides its own intrinsics."""

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        CameraOptions.__post_init__(self)


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


@dataclass(frozen=True)
class PixelOptions:
    """What a network expects of its pixels; texts as given, ``None`` for the preset's or the model's own."""

    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            metavar="R,G,B",
            help="Mean that is subtracted from the pixels, one number or three; 0 where the graph normalises itself.",
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            "--std",
            metavar="R,G,B",
            help="Deviation that the pixels are divided by, one number or three; 1 where the graph normalises itself.",
        ),
    ] = None
    pixel_range: Annotated[
        float | None,
        typer.Option("--pixel-range", help="Largest value of a pixel before normalisation, 1 or 255. Default: 1."),
    ] = None
    colour: Annotated[str | None, typer.Option("--colour", help="Order of the channels, RGB or BGR.")] = None

    def __post_init__(self) -> None:
        if self.colour is not None and self.colour not in COLOURS:
            raise UsageError(f"--colour is {' or '.join(COLOURS)}, but got {self.colour!r}")
        if self.pixel_range is not None and self.pixel_range not in (1, 255):
            raise UsageError(f"--pixel-range is 1 or 255, but got {self.pixel_range:g}")

    @property
    def given(self) -> dict[str, Any]:
        """Fields of :class:`mvde.contract.PreprocessRecord` that were given."""
        found: dict[str, Any] = {"pixel_range": self.pixel_range, "colour": self.colour}
        found["mean"] = None if self.mean is None else parse_channels(self.mean, "--mean")
        found["std"] = None if self.std is None else parse_channels(self.std, "--std")
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class MeaningOptions:
    """What the numbers of a depth map mean; ``None`` for the preset's or the model's own."""

    kind: Annotated[DepthKind | None, typer.Option("--kind", help=f"{KIND_HELP} See docs/models.md.")] = None
    canonical_focal: Annotated[
        str | None,
        typer.Option(
            "--canonical-focal",
            metavar="VALUE,CONVENTION",
            help="Focal length that metres are for, e.g. 1000,pixels; for metric_focal and inverse_canonical.",
        ),
    ] = None
    depth_range: Annotated[
        str | None,
        typer.Option(
            "--depth-range",
            metavar="MIN,MAX",
            help="Range of the network's map, in its unit. Default: from 0 to twice the largest on photographs.",
        ),
    ] = None
    patch: Annotated[
        int | None, typer.Option("--patch", min=1, help="Patch of the statistics in pixels. Default: 16.")
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """Fields of an import's contract that were given."""
        found: dict[str, Any] = {"kind": self.kind, "patch": self.patch}
        if self.canonical_focal is not None:
            found["canonical_focal"], found["focal_convention"] = parse_focal(self.canonical_focal)
        if self.depth_range is not None:
            found["valid_range"] = parse_span(self.depth_range, "--depth-range")
        return {name: value for name, value in found.items() if value is not None}


def only(given: Sequence[Value], option: str, what: str) -> Value | None:
    """Only value of a repeatable option, ``None`` if absent; raises :class:`UsageError` for several."""
    if len(given) > 1:
        raise UsageError(f"{what}, but {option} was given {len(given)} times; give it once")
    return given[0] if given else None
