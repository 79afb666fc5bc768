"""Folders of good, odd and bad pictures: each is one row, and exactly the bad ones are errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mvde import bulk
from mvde.bulk.inputs import InputOptions
from mvde.bulk.run import compute_stats
from tests.bulk.conftest import encoded, in_this_process


def mixed(folder: Path, count: int, bad: int, odd: int) -> Path:
    """A folder of ``count`` small pictures, ``bad`` of them none, ``odd`` grey, CMYK, RGBA or of a palette."""
    kinds = (("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"))
    bad_contents = (b"no picture", b"", encoded(0)[:200], encoded(0, "JPEG")[:-300])
    for number in range(count):
        path = folder / f"{number % 7}" / f"{number:05d}.png"  # what a file is, its content says
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < bad:
            path.write_bytes(bad_contents[number % len(bad_contents)])
        elif number < bad + odd:
            path.write_bytes(encoded(number, *kinds[number % len(kinds)]))
        else:
            path.write_bytes(encoded(number, "JPEG" if number % 2 else "PNG"))
    return folder


def test_bad_pictures_are_as_many_error_rows_and_odd_ones_none(engine_folder: Path, tmp_path: Path) -> None:
    pictures, out = mixed(tmp_path / "pictures", 100, 3, 8), tmp_path / "out"
    summary = compute_stats(
        [str(pictures)], engine_folder, out, input_options=InputOptions(size=40), runner=in_this_process
    )
    assert (summary.done, summary.rows, summary.errors) == (3, 100, 3)
    assert len(set(bulk.open(out).all_keys())) == 100
    assert len(bulk.open(out)) == 97


@pytest.mark.extended
def test_three_thousand_pictures_of_which_ninety_are_bad(engine_folder: Path, tmp_path: Path) -> None:
    pictures, out = mixed(tmp_path / "pictures", 3000, 90, 90), tmp_path / "out"
    command = [sys.executable, "-m", "mvde", "stats", str(pictures), "-e", str(engine_folder), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split(",")[:2]) == (0, ["3000 pictures", " 90 of them errors"]), done.stderr
    keys = list(bulk.open(out).all_keys())
    assert (len(keys), len(set(keys))) == (3000, 3000)
    assert len(bulk.open(out)) == 2910
    again = subprocess.run(
        [*command, "--max-error-rate", "0.01"], capture_output=True, text=True, timeout=120, check=False
    )
    assert again.returncode == 1
    assert "90 of 3000 pictures are errors, 3.0%, more than the 1.0% of --max-error-rate" in again.stderr
