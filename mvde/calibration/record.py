"""The calibration file: scale and shift, and intervals, of one graph's map for one resolution, fit and camera.

A JSON file of its own, ``NAME.calibration.json``, never inside an engine's folder: engines of any precision of the same
fp32 graph may use it. Its last key is a digest, as in :mod:`mvde.manifest`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mvde.alignment import LARGEST_DEPTH_M
from mvde.calibration.interval_record import IntervalsRecord, interval_rows
from mvde.calibration.solve import apply
from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.errors import CalibrationError, ManifestError, UsageError
from mvde.files import atomic_write, read_small
from mvde.manifest import EngineManifest, with_digest
from mvde.schema import expect, parse_json, read_record, to_json_types

SCHEMA_VERSION = 1
SUFFIX = ".calibration.json"
FIXED_SCENE, ONE_SCALE, ANCHORS = "fixed scene", "one scale", "anchors"
"""What results say: a relative map calibrated for a scene, a metric one by its scale, and any by its own anchors."""

_KIND = "calibration"
_REMEDY = "calibrate again with `mvde calibrate scale`"
_MAX_BYTES = 1 << 16
_FITS = ("stretch", "letterbox", "crop")
_CAMERA_TOLERANCE = 1e-6
"""Relative; a field of view gives focal lengths that differ in the last bits between programs."""
_MAX_NUMBER = 1e9


@dataclass(frozen=True)
class CameraRecord:
    """A pinhole camera in pixels of the calibrated frames."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class MeasuredRecord:
    """What the fit was made of and how well it holds, as in :class:`mvde.calibration.fit.Fit`."""

    num_points: int
    num_frames: int
    distance_m: tuple[float, float]
    held_out_abs_rel: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Scale and shift of a map: depth in metres is scale * x, or 1 / (scale * x + shift) of an inverse kind.

    ``graph_sha256`` is the fp32 graph's, ``resolution`` the input's (H, W) in pixels, ``frame`` the camera frames' (H,
    W), ``fit`` how these enter; ``camera`` is theirs, ``None`` if it was not given. ``name`` is the model's, ``engine``
    the id of the engine it was measured on. ``scale`` and ``measured`` are ``None`` together where only ``intervals``
    were calibrated; ``frame`` is ``None`` where these are of frames of several cameras, whose focal lengths the metres
    of kinds with a canonical camera contain.
    """

    name: str
    created: str
    graph_sha256: str
    engine: str
    depth_kind: DepthKind
    resolution: tuple[int, int]
    fit: str
    frame: tuple[int, int] | None = None
    scale: float | None = None
    measured: MeasuredRecord | None = None
    shift: float = 0.0
    camera: CameraRecord | None = None
    intervals: IntervalsRecord | None = None

    def __post_init__(self) -> None:
        """Raise :class:`ManifestError` for values that do not fit together."""
        is_hash = len(self.graph_sha256) == 64 and set(self.graph_sha256) <= set("0123456789abcdef")
        expect(is_hash, "graph_sha256", self.graph_sha256, "64 hexadecimal digits")
        for key, size in (("resolution", self.resolution), ("frame", self.frame)):
            is_size = size is None or all(0 < side <= 1 << 16 for side in size)
            expect(is_size, key, size, "a size of 1 to 65536 pixels")
        expect(self.fit in _FITS, "fit", self.fit, f"one of {', '.join(_FITS)}")
        expect(self.scale is None or 0 < self.scale < _MAX_NUMBER, "scale", self.scale, "a positive number")
        expect(abs(self.shift) < _MAX_NUMBER, "shift", self.shift, "a finite number")
        has_shift = self.depth_kind is DepthKind.INVERSE_RELATIVE
        expect(has_shift or self.shift == 0, "shift", self.shift, f"0 for {self.depth_kind}")
        self._check_parts()
        try:
            _ = self.frame_camera
        except UsageError as error:
            raise ManifestError(f"camera: {error}") from error

    def _check_parts(self) -> None:
        """Raise :class:`ManifestError` unless what was calibrated is complete, and for the frames it can be of."""
        is_scaled, has_measured = self.scale is not None, self.measured is not None
        measured = "given" if has_measured else None
        expect(is_scaled == has_measured, "measured", measured, "one beside a scale, and none without")
        has_any = is_scaled or self.intervals is not None
        expect(has_any, "scale", self.scale, "a positive number, or intervals in its place")
        is_of_any = self.depth_kind.has_canonical_camera and not is_scaled and self.camera is None
        expect(self.frame is not None or is_of_any, "frame", self.frame, "the size of the calibrated frames")
        if self.intervals is None:
            return
        metric = (DepthKind.METRIC, DepthKind.METRIC_FOCAL, *([DepthKind.INVERSE_CANONICAL] if is_scaled else []))
        expected = f"one of {', '.join(metric)} beside intervals"
        expect(self.depth_kind in metric, "depth_kind", self.depth_kind.value, expected)
        has_camera = self.frame is None or self.camera is not None
        expect(has_camera, "camera", self.camera, "that of the frames, beside intervals")

    @property
    def frame_camera(self) -> Camera | None:
        """Camera of the calibrated frames; ``None`` if it was not given."""
        where = self.camera
        if where is None or self.frame is None:
            return None
        return Camera(where.fx, where.fy, where.cx, where.cy, self.frame)

    @property
    def describes(self) -> str | None:
        """What results of this calibration say; ``None`` where it has no scale, so that metres are the network's."""
        if self.scale is None:
            return None
        is_relative = self.depth_kind in (DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_RELATIVE)
        return FIXED_SCENE if is_relative else ONE_SCALE

    def range_m(self, valid_range: tuple[float, float]) -> tuple[float, float]:
        """Depth (min, max) in metres that a network's range of its map becomes."""
        if self.scale is None:
            return valid_range
        ends = apply(self.depth_kind, self.scale, self.shift, np.array(valid_range))
        return float(ends.min()), float(min(ends.max(), LARGEST_DEPTH_M))

    def to_json(self) -> str:
        """Indented JSON text with the digest and a final newline."""
        plain = {"schema_version": SCHEMA_VERSION, "kind": _KIND, **to_json_types(self)}
        return with_digest(json.dumps(plain, ensure_ascii=False))

    def check_engine(self, manifest: EngineManifest) -> None:
        """Raise :class:`CalibrationError` unless it is of this engine's fp32 graph and resolution."""
        if self.graph_sha256 != fp32_graph_sha256(manifest):
            raise CalibrationError(
                f"the calibration is of another graph: {self.name} {_size(self.resolution)}, fp32 SHA-256 "
                f"{self.graph_sha256[:12]}..., measured on {self.engine}; this engine is of {manifest.name} "
                f"{_size(manifest.resolution)}, {fp32_graph_sha256(manifest)[:12]}...; {_REMEDY}"
            )
        if self.resolution != manifest.resolution or self.depth_kind is not manifest.depth_kind:
            raise CalibrationError(
                f"the calibration is of {self.depth_kind} at {_size(self.resolution)}, but this engine is of "
                f"{manifest.depth_kind} at {_size(manifest.resolution)}; {_REMEDY}"
            )

    def check_frame(self, size: tuple[int, int], fit: str, camera: Camera | None) -> None:
        """Raise :class:`CalibrationError` unless frames of ``size`` (H, W) enter as the calibrated ones did."""
        if self.frame is not None and size != self.frame:
            raise CalibrationError(
                f"the calibration is of frames of {_size(self.frame)}, but this frame is {_size(size)}; {_REMEDY}"
            )
        if fit != self.fit:
            raise CalibrationError(f"the calibration is of fit {self.fit}, but this frame has {fit}; {_REMEDY}")
        if self.frame is not None and not _is_same_camera(camera, self.frame_camera):
            raise CalibrationError(
                f"the calibration is of {_camera(self.frame_camera)}, but this frame has {_camera(camera)}; {_REMEDY}"
            )


Calibrations: TypeAlias = "str | Path | Calibration | Sequence[str | Path | Calibration]"
"""A calibration or its file; of engines with a deadline several, or their folder."""


def camera_record(camera: Camera | None) -> CameraRecord | None:
    """Record of the calibrated frames' camera.

    Raises :class:`UsageError` for a distorted one: the file holds none, and its points would silently be others.
    """
    if camera is not None and camera.distortion is not None:
        raise UsageError(
            f"the camera has {camera.distortion.model} distortion, which a calibration cannot hold; rectify the "
            "frames, with `ros2 run image_proc rectify_node` or cv2.undistort, and give the camera of those"
        )
    return None if camera is None else CameraRecord(camera.fx, camera.fy, camera.cx, camera.cy)


def rows(calibration: Calibration) -> list[tuple[str, str]]:
    """Label and formatted value of what a user needs to know of a calibration."""
    size = calibration.frame
    filmed = _camera(calibration.frame_camera) if size else "cameras within the range of the intervals"
    frames = f"{_size(size) if size else 'of any size'}, {calibration.fit}, {filmed}"
    return [
        ("calibrated", calibration.describes or "intervals"),
        *_scale_rows(calibration),
        *([] if calibration.intervals is None else interval_rows(calibration.intervals)),
        ("frames", frames),
        ("engine", f"{calibration.name} {_size(calibration.resolution)}, measured on {calibration.engine}"),
        ("graph", f"fp32, SHA-256 {calibration.graph_sha256}"),
    ]


def _scale_rows(calibration: Calibration) -> list[tuple[str, str]]:
    measured = calibration.measured
    if measured is None:
        return []
    shift = f", shift {calibration.shift:.6g}" if calibration.shift else ""
    return [
        ("depth", f"{calibration.depth_kind} to metres: scale {calibration.scale:.6g}{shift}"),
        (
            "measured",
            f"{measured.num_points} points in {measured.num_frames} frames, {measured.distance_m[0]:.3g} to "
            f"{measured.distance_m[1]:.3g} m; held-out median AbsRel {measured.held_out_abs_rel:.1%}, spread of the "
            f"scales of single frames {measured.spread:.1%}",
        ),
    ]


def fp32_graph_sha256(manifest: EngineManifest) -> str:
    """SHA-256 of the fp32 graph that an engine of any precision was made from."""
    return manifest.engine.onnx_sha256 if manifest.lowering is None else manifest.lowering.onnx_sha256


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file. Raises :class:`CalibrationError` naming the file, the problem and its remedy."""
    path = Path(path)
    try:
        text = read_small(path, _MAX_BYTES).decode("utf-8")
        plain = parse_json(text)
    except OSError as error:
        raise CalibrationError(f"cannot read the calibration {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise CalibrationError(f"{path} is nested too deeply to be a calibration") from error
    except ValueError as error:  # includes UnicodeDecodeError
        raise CalibrationError(f"{path} is not valid JSON: {error}; {_REMEDY}") from error
    return _calibration(plain, text, path)


def calibration_for(manifest: EngineManifest, given: Calibrations) -> Calibration:
    """Calibration for an engine, read if it is a path.

    Raises :class:`CalibrationError` if it is malformed, or not of the engine's graph, :class:`UsageError` for several.
    """
    if not isinstance(given, (str, Path, Calibration)):
        raise UsageError(f"an engine takes one calibration, but got {given!r}; several are of engines with a deadline")
    calibration = given if isinstance(given, Calibration) else read_calibration(given)
    calibration.check_engine(manifest)
    return calibration


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(calibration.to_json(), encoding="utf-8")


def _calibration(plain: Any, text: str, path: Path) -> Calibration:
    if not isinstance(plain, dict) or plain.get("kind") != _KIND or "schema_version" not in plain:
        raise CalibrationError(f"{path} is not a calibration of mvde: its kind is not {_KIND!r}; {_REMEDY}")
    rest = dict(plain)
    del rest["kind"]
    if (version := rest.pop("schema_version")) != SCHEMA_VERSION or type(version) is not int:
        raise CalibrationError(
            f"{path} has schema_version {version!r}, but this mvde reads {SCHEMA_VERSION}; upgrade mvde, or {_REMEDY}"
        )
    if rest.pop("digest", None) is None or with_digest(text) != text:
        raise CalibrationError(
            f"{path}: its digest does not fit its content: it was damaged, or edited by hand; copy it again, or "
            f"{_REMEDY}"
        )
    try:
        return read_record(Calibration, rest, str(path), remedy=_REMEDY)
    except ManifestError as error:
        raise CalibrationError(str(error)) from error


def _is_same_camera(one: Camera | None, other: Camera | None) -> bool:
    if one is None or other is None:
        return one is other
    pairs = ((one.fx, other.fx), (one.fy, other.fy), (one.cx, other.cx), (one.cy, other.cy))
    return all(math.isclose(a, b, rel_tol=_CAMERA_TOLERANCE) for a, b in pairs)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _camera(camera: Camera | None) -> str:
    if camera is None:
        return "no camera"
    return f"a camera of fx {camera.fx:.6g}, fy {camera.fy:.6g}, cx {camera.cx:.6g}, cy {camera.cy:.6g}"
