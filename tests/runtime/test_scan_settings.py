"""Settings of a scan: the file, its defaults, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from mvde.errors import UsageError
from mvde.runtime.scan_settings import ScanSettings


def read(folder: Path, text: str | bytes) -> ScanSettings:
    path = folder / "scan.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return ScanSettings.from_file(path)


def test_a_file_may_give_the_height_alone(tmp_path: Path) -> None:
    assert read(tmp_path, "height_m: 0.6\n") == ScanSettings(0.6)


def test_every_setting_comes_from_the_file(tmp_path: Path) -> None:
    wanted = ScanSettings(0.31, 12.5, -3, -0.1, 0.9, 0.2, 6, 2, 1.5, 0.1)
    lines = [f"{name}: {value!r}" for name, value in dataclasses.asdict(wanted).items()]
    assert read(tmp_path, "\n".join(lines)) == wanted


def test_comments_blank_lines_and_document_marks_are_allowed(tmp_path: Path) -> None:
    text = "---\r\n# the front camera\r\n\r\nheight_m:   6e-1  # over the floor\r\npitch_deg : +12.\r\n...\r\n"
    assert read(tmp_path, text) == ScanSettings(0.6, 12)


def test_yaml_reads_the_file_alike(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    text = "# front\nheight_m: 0.6\npitch_deg: -12.25 # up\nrange_max_m: 8\n"
    assert read(tmp_path, text) == ScanSettings(**yaml.safe_load(text))


def test_the_lowest_obstacle_grows_with_the_height() -> None:
    assert ScanSettings(0.6).lowest_m == pytest.approx(0.17)
    assert ScanSettings(0.6, min_height_m=0.03).lowest_m == 0.03


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks height_m, the height of the camera over the floor in metres"),
        ("height_m: 0", "height_m of a scan lies between 0.01 and 100, but got 0"),
        ("height_m: .nan", "line 1 is 'height_m: .nan', but expected NAME: NUMBER, such as height_m: 0.6"),
        ("height_m: 1e999", "line 1 is 'height_m: 1e999', but expected NAME: NUMBER"),
        ("height_m: 0.6\npitch_deg: 91", "pitch_deg of a scan lies between -80 and 80, but got 91"),
        ("height_m: 0.6\nsupport_deg2: 0", "support_deg2 of a scan lies between 0.001 and 100, but got 0"),
        ("height_m: 0.6\nheight_m: 0.7", "line 2 sets height_m again"),
        ("height: 0.6", "line 1 sets height, which a scan does not have; it has height_m, pitch_deg, roll_deg, "),
        ("height_m=0.6", "line 1 is 'height_m=0.6', but expected NAME: NUMBER"),
        ("- height_m: 0.6", "line 1 is '- height_m: 0.6', but expected"),
        ("height_m: 9", "min_height_m of a scan is 1.85 and max_height_m 1.6: expected the first below the second"),
        ("height_m: 1\nrange_min_m: 2\nrange_max_m: 2", "range_min_m of a scan is 2 and range_max_m 2: expected the"),
        (b"height_m: \xff", "is not text in UTF-8"),
        ("#" * 65537, "is larger than 65536 bytes, too large for the settings of a scan"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'scan.yaml'}: {says}")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file or directory"):
        ScanSettings.from_file(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"is not a file; expected the settings of a scan, such as height_m: 0\.6"):
        ScanSettings.from_file(tmp_path)


@pytest.mark.parametrize("value", ["0.6", None, True])
def test_a_height_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="height_m of a scan must be a number, but got"):
        ScanSettings(value)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="but got nan"):
        ScanSettings(math.nan)
