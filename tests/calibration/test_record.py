"""The calibration file: strict reading, and what it may be used with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvde.calibration.interval_record import HeldOutRecord, IntervalsRecord, IntervalTable, NearestTable
from mvde.calibration.record import (
    Calibration,
    CameraRecord,
    MeasuredRecord,
    camera_record,
    read_calibration,
    write_calibration,
)
from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.distortion import Distortion, DistortionModel
from mvde.errors import CalibrationError, ManifestError, UsageError
from mvde.manifest import with_digest

CALIBRATION = Calibration(
    name="tiny",
    created="2026-01-01T00:00:00+00:00",
    graph_sha256="a" * 64,
    engine="openvino:int8",
    depth_kind=DepthKind.INVERSE_RELATIVE,
    resolution=(32, 48),
    fit="letterbox",
    frame=(480, 640),
    scale=0.25,
    shift=-0.125,
    camera=CameraRecord(500.0, 500.5, 319.5, 239.5),
    measured=MeasuredRecord(20, 5, (0.5, 4.0), 0.03, 0.02),
)


def write(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    plain = json.loads(CALIBRATION.to_json())
    change(plain)
    path.write_text(with_digest(json.dumps(plain)))
    return path


@pytest.mark.parametrize("camera", [None, CALIBRATION.camera])
def test_what_is_written_is_read(tmp_path: Path, camera: CameraRecord | None) -> None:
    written = dataclasses.replace(CALIBRATION, camera=camera, shift=0.1)
    write_calibration(written, tmp_path / "a.calibration.json")
    assert read_calibration(tmp_path / "a.calibration.json") == written


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "kind": (lambda p: p.update(kind="engine"), "is not a calibration of mvde"),
    "version": (lambda p: p.update(schema_version=2), "schema_version 2, but this mvde reads 1; upgrade mvde"),
    "true": (lambda p: p.update(schema_version=True), "schema_version True, but this mvde reads 1"),
    "unknown": (lambda p: p.update(offset=1), "unknown key offset; known keys: name, created"),
    "missing": (lambda p: p.pop("scale"), "measured is 'given', but expected one beside a scale, and none without"),
    "nested": (lambda p: p["measured"].pop("spread"), "measured.spread is missing; calibrate again"),
    "text": (lambda p: p.update(scale="1"), "scale must be float, but got str"),
    "zero": (lambda p: p.update(scale=0), "scale is 0.0, but expected a positive number"),
    "large": (lambda p: p.update(shift=1e30), "shift is 1e[+]30, but expected a finite number"),
    "shift": (lambda p: p.update(depth_kind="metric"), "shift is -0.125, but expected 0 for metric"),
    "hash": (lambda p: p.update(graph_sha256="A" * 64), "expected 64 hexadecimal digits"),
    "size": (lambda p: p.update(frame=[0, 640]), "expected a size of 1 to 65536 pixels"),
    "sides": (lambda p: p.update(resolution=[32]), "resolution must be a list of 2"),
    "fit": (lambda p: p.update(fit="squeeze"), "fit is 'squeeze', but expected one of stretch, letterbox, crop"),
    "depth": (lambda p: p.update(depth_kind="depth"), "depth_kind is 'depth', but expected one of metric"),
    "camera": (lambda p: p["camera"].update(fx=-1), "camera: fx of a camera lies between 0 and"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_with_anything_else_is_refused(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    with pytest.raises(CalibrationError, match=message) as raised:
        read_calibration(write(tmp_path / "a.calibration.json", change))
    assert "a.calibration.json" in str(raised.value)


def test_a_number_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(CALIBRATION.to_json().replace("0.25", "0.26"))
    with pytest.raises(CalibrationError, match="its digest does not fit its content"):
        read_calibration(path)
    plain = json.loads(CALIBRATION.to_json())
    del plain["digest"]
    path.write_text(json.dumps(plain))
    with pytest.raises(CalibrationError, match="its digest does not fit its content"):
        read_calibration(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[]", "is not a calibration of mvde"),
        (b'{"kind": "calibration"}', "is not a calibration of mvde"),
        (b'{"scale": NaN}', "NaN is not a number of JSON's"),
        (b"[" * 100 + b"]" * 100, "is nested too deeply"),
        (b" " * 70_000, "it has more than 65536 bytes"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CalibrationError, match=message):
        read_calibration(tmp_path / "a.json")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(CalibrationError, match=f"cannot read the calibration {path}: "):
            read_calibration(path)


def test_another_frame_fit_or_camera_is_refused() -> None:
    camera = CALIBRATION.frame_camera
    assert camera == Camera(500.0, 500.5, 319.5, 239.5, (480, 640))
    CALIBRATION.check_frame((480, 640), "letterbox", camera)
    CALIBRATION.check_frame((480, 640), "letterbox", dataclasses.replace(camera, fx=500.0000001))
    with pytest.raises(CalibrationError, match="of frames of 480x640, but this frame is 640x480"):
        CALIBRATION.check_frame((640, 480), "letterbox", camera)
    with pytest.raises(CalibrationError, match="of fit letterbox, but this frame has stretch"):
        CALIBRATION.check_frame((480, 640), "stretch", camera)
    with pytest.raises(CalibrationError, match=r"of a camera of fx 500, fy 500\.5, .* but this frame has no camera"):
        CALIBRATION.check_frame((480, 640), "letterbox", None)
    with pytest.raises(CalibrationError, match="but this frame has a camera of fx 501"):
        CALIBRATION.check_frame((480, 640), "letterbox", dataclasses.replace(camera, fx=501))
    unknown = dataclasses.replace(CALIBRATION, camera=None)
    with pytest.raises(CalibrationError, match="of no camera, but this frame has a camera"):
        unknown.check_frame((480, 640), "letterbox", camera)


def test_results_say_what_a_calibration_holds_for() -> None:
    assert CALIBRATION.describes == "fixed scene"
    assert dataclasses.replace(CALIBRATION, depth_kind=DepthKind.METRIC, shift=0.0).describes == "one scale"


def test_the_camera_of_a_distorting_lens_is_refused() -> None:
    lens = Distortion(DistortionModel.EQUIDISTANT, (0.1, 0.0, 0.0, 0.0))
    with pytest.raises(UsageError, match="equidistant distortion, which a calibration cannot hold; rectify"):
        camera_record(Camera(500.0, 500.0, 320.0, 240.0, (480, 640), lens))


INTERVALS = IntervalsRecord(
    coverage=0.9,
    nearest_coverage=0.95,
    mean=IntervalTable((1.5, 3.0), (0.8, 0.75, 0.7), (1.2, 1.3, 1.5)),
    nearest=NearestTable((2.0,), (0.8, 0.6)),
    camera_factor=(0.8, 1.25),
    held_out=HeldOutRecord(
        num_scenes=40,
        num_frames=80,
        num_patches=9000,
        patches=0.9,
        scenes=0.91,
        worst_scenes=0.7,
        bins=(0.9, 0.9, 0.88),
        nearest=0.95,
        width=0.87,
    ),
)
FOR_INTERVALS = dataclasses.replace(CALIBRATION, depth_kind=DepthKind.METRIC_FOCAL, shift=0.0, intervals=INTERVALS)


@pytest.mark.parametrize(
    "given",
    [
        FOR_INTERVALS,
        dataclasses.replace(FOR_INTERVALS, scale=None, measured=None),
        dataclasses.replace(FOR_INTERVALS, scale=None, measured=None, frame=None, camera=None),
    ],
)
def test_intervals_are_read_as_written(tmp_path: Path, given: Calibration) -> None:
    write_calibration(given, tmp_path / "a.calibration.json")
    assert read_calibration(tmp_path / "a.calibration.json") == given
    assert given.describes == (None if given.scale is None else "one scale")
    assert given.range_m((0.5, 4.0)) == ((0.5, 4.0) if given.scale is None else (0.125, 1.0))


BAD_INTERVALS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "relative": (
        lambda p: p.update(depth_kind="inverse_relative"),
        "depth_kind is 'inverse_relative', but expected one of metric, metric_focal, inverse_canonical beside",
    ),
    "camera": (lambda p: p.pop("camera"), "camera is None, but expected that of the frames, beside intervals"),
    "frame": (lambda p: p.pop("frame"), "frame is None, but expected the size of the calibrated frames"),
    "measured": (lambda p: p.pop("measured"), "measured is None, but expected one beside a scale"),
    "edges": (
        lambda p: p["intervals"]["mean"].update(edges_m=[3, 1.5]),
        r"intervals.mean.edges_m is \(3.0, 1.5\), but expected ascending numbers above 0",
    ),
    "count": (
        lambda p: p["intervals"]["mean"].update(lo=[0.8]),
        r"intervals.mean.lo is \(0.8,\), but expected 3 numbers, one more than edges_m",
    ),
    "zero": (
        lambda p: p["intervals"]["nearest"].update(factors=[0.8, 0]),
        r"intervals.nearest.factors is \(0.8, 0.0\), but expected numbers above 0 and below 1e\+06",
    ),
    "order": (
        lambda p: p["intervals"]["mean"].update(hi=[0.7, 1.3, 1.5]),
        r"intervals.mean.lo is \(0.8, 0.75, 0.7\), but expected at most intervals.mean.hi",
    ),
    "many": (
        lambda p: p["intervals"]["nearest"].update(edges_m=list(range(1, 65)), factors=[0.5] * 65),
        "intervals.nearest.edges_m is 64, but expected at most 63 numbers",
    ),
    "share": (lambda p: p["intervals"].update(coverage=1), "intervals.coverage is 1.0, but expected a number between"),
    "factor": (
        lambda p: p["intervals"].update(camera_factor=[2, 1]),
        r"intervals.camera_factor is \(2.0, 1.0\), but expected 0 < least <= largest",
    ),
    "key": (lambda p: p["intervals"]["mean"].pop("hi"), "the key intervals.mean.hi is missing"),
}


@pytest.mark.parametrize("case", BAD_INTERVALS)
def test_intervals_with_anything_else_are_refused(tmp_path: Path, case: str) -> None:
    change, message = BAD_INTERVALS[case]
    plain = json.loads(FOR_INTERVALS.to_json())
    change(plain)
    (tmp_path / "a.calibration.json").write_text(with_digest(json.dumps(plain)))
    with pytest.raises(CalibrationError, match=message):
        read_calibration(tmp_path / "a.calibration.json")


def test_a_file_of_neither_scale_nor_intervals_is_refused() -> None:
    with pytest.raises(ManifestError, match="scale is None, but expected a positive number, or intervals in its place"):
        dataclasses.replace(FOR_INTERVALS, scale=None, measured=None, intervals=None)
