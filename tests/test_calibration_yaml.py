"""ROS camera calibrations: as their tools write them, against PyYAML, with distortion, and malformed."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from mvde.calibration_yaml import _parse_yaml
from mvde.camera import Camera
from mvde.distortion import Distortion, DistortionModel
from mvde.errors import UsageError

# As camera_calibration's cameracalibrator writes it; the numbers are those of the format's documentation.
CALIBRATION = """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [600.5, 0.    , 320.25,
           0.   , 601.5, 240.75,
           0.   , 0.    , 1.    ]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.0, 0.0, 0.0, 0.0, 0.0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [580., 0., 318.5, 0., 0., 581., 239.5, 0., 0., 0., 1., 0.]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "camera.yaml"
    path.write_text(text)
    return path


def test_a_calibration_of_ros_is_a_camera(tmp_path: Path) -> None:
    expected = Camera(600.5, 601.5, 320.25, 240.75, (480, 640))
    assert Camera.from_file(write(tmp_path, CALIBRATION)) == expected
    without = re.sub(r"(?s)distortion_model.*", "", CALIBRATION)
    assert Camera.from_file(write(tmp_path, f"%YAML 1.0\n---\n# front\n{without}")) == expected


def test_distortion_of_a_known_model_belongs_to_the_camera(tmp_path: Path) -> None:
    text = CALIBRATION.replace("data: [0.0, 0.0, 0.0", "data: [-0.3, 0.1, 0.0")
    camera = Camera.from_file(write(tmp_path, text))
    assert camera.distortion == Distortion(DistortionModel.PLUMB_BOB, (-0.3, 0.1, 0.0, 0.0, 0.0))
    assert camera.size == (480, 640)


def test_other_distortion_is_refused_with_what_rectifies_and_the_camera_of_the_result(tmp_path: Path) -> None:
    text = CALIBRATION.replace("data: [0.0, 0.0, 0.0", "data: [-0.3, 0.1, 0.0").replace("plumb_bob", "thin_prism")
    with pytest.raises(UsageError, match=r"camera\.yaml: the lens has thin_prism distortion") as refused:
        Camera.from_file(write(tmp_path, text))
    assert "`ros2 run image_proc rectify_node`" in str(refused.value)
    assert "--camera 580,581,318.5,239.5" in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_width: 640\n", "", "lacks image_width"),
        ("camera_matrix", "matrix", "lacks camera_matrix"),
        ("image_width: 640", "image_width: wide", "width of a camera must be a whole number"),
        ("image_height: 480", "image_height: 0", "height of a camera lies between"),
        ("600.5, 0. ", "-600.5, 0. ", "fx of a camera lies between 0 and"),
        ("600.5, 0. ", "600.5, 3. ", "expected [fx, 0, cx, 0, fy, cy, 0, 0, 1]"),
        ("600.5, 0. ", "nan, 0. ", "camera_matrix must have data: [9 numbers]"),
        ("600.5, 0. ", "600.5, ", "camera_matrix must have data: [9 numbers]"),
        ("1.    ]", "1.", "camera_matrix must have data: [9 numbers]"),
        ("1., 0.]", "1., 0.", "is not closed"),
        ("camera_name", "image_width: 3\ncamera_name", "has image_width twice"),
        ("  rows: 3\n  cols: 3\n  data: [6", "\trows: 3\n\tcols: 3\n\tdata: [6", "indented with tabs"),
        ("camera_name: narrow_stereo", "just text", "'just text' is out of place"),
        ("image_width: 640", "image_width: " + "6" * 9000, "width of a camera must be a whole number"),
    ],
)
def test_what_is_no_calibration_is_refused_with_its_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as refused:
        Camera.from_file(write(tmp_path, CALIBRATION.replace(old, new, 1)))
    assert "camera.yaml" in str(refused.value)


def test_a_binary_and_a_deeply_nested_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "camera.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a ROS camera calibration"):
        Camera.from_file(tmp_path / "camera.yaml")
    nested = "".join(f"{' ' * level}a:\n" for level in range(340))
    with pytest.raises(UsageError, match=r"camera\.yaml"):
        Camera.from_file(write(tmp_path, nested))


@pytest.mark.parametrize("style", [None, False, True])
def test_numbers_are_those_of_pyyaml(style: bool | None) -> None:
    yaml = pytest.importorskip("yaml")
    chance = random.Random(0)
    for _ in range(20):
        plain: dict[str, Any] = {
            "image_width": chance.randrange(1, 5000),
            "camera_name": "front camera",
            "camera_matrix": {"rows": 3, "cols": 3, "data": [chance.uniform(-1e3, 1e3) for _ in range(9)]},
            "distortion_coefficients": [chance.uniform(-1, 1) for _ in range(5)],
        }
        text = yaml.safe_dump(plain, default_flow_style=False if style is None else style, width=40)
        if style:  # a mapping in braces is refused, not misread
            with pytest.raises(UsageError):
                _parse_yaml(text)
            continue
        assert _parse_yaml(text) == yaml.safe_load(text) == plain
