"""Lens distortion: which models and coefficients are taken, and how cameras carry them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from mvde.camera import Camera
from mvde.distortion import Distortion, DistortionModel
from mvde.errors import UsageError

PLUMB_BOB = (-0.28, 0.07, 0.001, -0.002, 0.01)


def test_a_model_is_named_as_in_ros_and_zeros_are_no_distortion() -> None:
    assert Distortion("plumb_bob", PLUMB_BOB) == Distortion(DistortionModel.PLUMB_BOB, PLUMB_BOB)  # type: ignore[arg-type]
    assert Distortion.of("plumb_bob", [0.0] * 5) is None
    assert Distortion.of("no such lens", [0.0, 0.0]) is None
    assert Distortion.of("equidistant", []) is None
    found = Distortion.of("rational_polynomial", [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0])
    assert found is not None
    assert found.coefficients == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


@pytest.mark.parametrize(
    ("model", "coefficients", "message"),
    [
        ("fov", (0.9,), "distortion model 'fov' is not known; expected plumb_bob, rational_polynomial, equidistant"),
        ("plumb_bob", (0.1,) * 3, "plumb_bob distortion has 4 or 5 coefficients"),
        ("equidistant", (0.1,) * 5, "equidistant distortion has 4 coefficients"),
        ("rational_polynomial", (0.1,) * 5, "rational_polynomial distortion has 8 or 12 or 14 coefficients"),
        ("rational_polynomial", (0.1,) * 12, "a thin prism or a tilted sensor"),
        ("plumb_bob", (0.1, 0.1, math.nan, 0.1), "are numbers below 1e9, but got nan"),
        ("plumb_bob", (0.1, 0.1, 1e9, 0.1), "are numbers below 1e9, but got 1000000000.0"),
        ("plumb_bob", ("a", 0.1, 0.1, 0.1), "are numbers below 1e9, but got 'a'"),
        ("plumb_bob", "0000", "plumb_bob distortion has 4 or 5 coefficients, but got '0000'"),
    ],
)
def test_what_is_no_distortion_is_refused(model: Any, coefficients: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Distortion(model, coefficients)


def test_a_crop_and_a_scaled_frame_keep_the_lens() -> None:
    camera = Camera(500.0, 480.0, 330.0, 250.0, (480, 640), Distortion(DistortionModel.PLUMB_BOB, PLUMB_BOB))
    assert camera.cropped(10, 20, (400, 600)).distortion == camera.distortion
    assert camera.scaled((120, 320)).distortion == camera.distortion
    with pytest.raises(UsageError, match=r"is a Distortion or None, but got \(0\.1,\)"):
        Camera(500.0, 480.0, 330.0, 250.0, (480, 640), (0.1,))  # type: ignore[arg-type]


def test_a_file_of_json_may_hold_the_lens(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    numbers = {"fx": 256.0, "fy": 192.0, "cx": 320.5, "cy": 1.0, "width": 640, "height": 480}
    path.write_text(json.dumps({**numbers, "distortion_model": "plumb_bob", "distortion_coefficients": PLUMB_BOB}))
    assert Camera.from_file(path).distortion == Distortion(DistortionModel.PLUMB_BOB, PLUMB_BOB)
    path.write_text(json.dumps({**numbers, "distortion_model": "plumb_bob", "distortion_coefficients": 0.1}))
    with pytest.raises(UsageError, match=r"camera\.json: distortion_coefficients must be a list of numbers"):
        Camera.from_file(path)
    path.write_text(json.dumps({**numbers, "distortion_model": 5, "distortion_coefficients": [0.1]}))
    with pytest.raises(UsageError, match=r"camera\.json: distortion model 5 is not known"):
        Camera.from_file(path)
