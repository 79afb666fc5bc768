"""Tables of reference points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvde.calibration.points import points_of, read_reference_points
from mvde.errors import CalibrationError


def table(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_points_are_read_by_frame(tmp_path: Path) -> None:
    text = "\ufeffframe,x,y,metres\r\na.jpg,1,2,0.5\r\n\r\n" + '"sub/b, c.jpg",3.5, 4,2\r\na.jpg,5,6,7\r\n'
    found = read_reference_points(table(tmp_path, text))
    assert list(found) == [tmp_path / "a.jpg", tmp_path / "sub/b, c.jpg"]
    assert [(p.x, p.y, p.metres, p.line) for p in found[tmp_path / "a.jpg"]] == [(1, 2, 0.5, 2), (5, 6, 7, 5)]
    assert [(p.x, p.y, p.metres) for p in found[tmp_path / "sub/b, c.jpg"]] == [(3.5, 4, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with '', but expected the line frame,x,y,metres"),
        ("a.jpg,1,2,3\n", "begins with 'a.jpg,1,2,3', but expected the line frame,x,y,metres"),
        ("frame,x,y,metres\na.jpg,1,2\n", "line 2: got 'a.jpg,1,2', but expected frame,x,y,metres"),
        ("frame,x,y,metres\na.jpg,1,2,3,4\n", "line 2: got 'a.jpg,1,2,3,4'"),
        ("frame,x,y,metres\n,1,2,3\n", "line 2: got ',1,2,3'"),
        ("frame,x,y,metres\na.jpg,1,b,3\n", "line 2: y is 'b', but expected a number"),
        ("frame,x,y,metres\na.jpg,1,2,nan\n", "line 2: metres is 'nan', but expected a number"),
        ("frame,x,y,metres\na.jpg,inf,2,1\n", "line 2: x is 'inf', but expected a number"),
        ("frame,x,y,metres\na.jpg,1,2,0\n", "line 2: metres is 0, but expected more than 0 and at most 10000"),
        ("frame,x,y,metres\na.jpg,1,2,2e4\n", "line 2: metres is 20000"),
        ('frame,x,y,metres\n"a.jpg,1,2,3\n', "line 2: unexpected end of data; expected frame,x,y,metres"),
    ],
)
def test_a_malformed_table_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        read_reference_points(table(tmp_path, text))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xff")
    for path in (tmp_path, tmp_path / "none.csv", tmp_path / "a.csv"):
        with pytest.raises(CalibrationError, match=f"cannot read the reference points {path}: .*expected a CSV file"):
            read_reference_points(path)


def test_points_take_the_map_at_the_nearest_pixel(tmp_path: Path) -> None:
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = read_reference_points(table(tmp_path, "frame,x,y,metres\na,1,2,5\na,-0.5,0.4,6\na,3.49,0.5,7\n"))
    points = points_of("a", depth, found[tmp_path / "a"], tmp_path)
    np.testing.assert_array_equal(points.values, [9, 0, 7])
    np.testing.assert_array_equal(points.depth_m, [5, 6, 7])


@pytest.mark.parametrize("pixel", ["4,0", "3.5,0", "0,3", "-1,0", "0,-0.6"])
def test_a_point_outside_the_picture_is_refused(tmp_path: Path, pixel: str) -> None:
    where = table(tmp_path, f"frame,x,y,metres\na,{pixel},1\n")
    points = read_reference_points(where)[tmp_path / "a"]
    with pytest.raises(CalibrationError, match=r"line 2: pixel x .* is outside a, which has 4 columns and 3 rows"):
        points_of("a", np.ones((3, 4), np.float32), points, where)
