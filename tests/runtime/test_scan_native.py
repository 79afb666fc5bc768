"""libmvde's scan has the bits and the words of the specification in NumPy."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from mvde import native
from mvde.camera import Camera
from mvde.errors import UsageError
from mvde.native import abi
from mvde.native.scan import Scanner
from mvde.runtime.placement import Box
from mvde.runtime.points import native_rays
from mvde.runtime.scan import numpy_scan, scan_of
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import scan_table

pytestmark = pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")

CAMERA = Camera.from_fov(57.0, None, (96, 128))
LEVEL = ScanSettings(0.6)


def scanner_of(camera: Camera, mounted: ScanSettings, box: Box | None = None) -> Scanner:
    box = box or Box(0, 0, *camera.size)
    resolved = dataclasses.replace(mounted, min_height_m=mounted.lowest_m)
    return Scanner(native_rays(camera), dataclasses.astuple(box), dataclasses.astuple(resolved))


def read_settings(path: str) -> dict[str, float]:
    """Settings of a file by name, as libmvde reads it; NaN for a lowest height that is not given."""
    library, found = native._require(), abi.CScanSettings(ctypes.sizeof(abi.CScanSettings))
    native._check(library, library.mvde_scan_read(path.encode(), found))
    return {name: getattr(found, name) for name, *_ in found._fields_[1:]}


def mixed_depth(size: tuple[int, int], seed: int, holes: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    depth = np.exp(rng.uniform(-4, 5, size)).astype(np.float32)
    odd = rng.random(size) < holes
    depth[odd] = rng.choice(np.array([np.nan, 0, -1, np.inf, -np.inf, 1e-42, 3e38], np.float32), odd.sum())
    return depth


def refusal(call: Callable[[], object]) -> str | None:
    """Message of the UsageError that a call raises."""
    try:
        call()
    except UsageError as error:
        return str(error)
    return None


@settings(max_examples=60, deadline=None)
@given(
    strategies.builds(
        ScanSettings,
        height_m=strategies.floats(0.1, 3),
        pitch_deg=strategies.floats(-80, 80),
        roll_deg=strategies.floats(-180, 180),
        min_height_m=strategies.none() | strategies.floats(-1, 1),
        range_min_m=strategies.floats(0.01, 0.5),
        range_max_m=strategies.floats(0.6, 1000),
        increment_deg=strategies.floats(0.5, 10),
        support_deg2=strategies.floats(0.05, 9),
        margin=strategies.floats(0, 1),
    ),
    strategies.floats(20, 900),
    strategies.floats(20, 900),
    strategies.tuples(*[strategies.floats(0, 1)] * 4),
    strategies.integers(0, 2**32 - 1),
    strategies.sampled_from([0.0, 0.1, 0.6, 1.0]),
)
def test_bits_and_words_are_those_of_the_specification(
    mounted: ScanSettings, fx: float, fy: float, cut: tuple[float, ...], seed: int, holes: float
) -> None:
    size = (37 + seed % 40, 50 + seed % 31)
    camera = Camera(fx, fy, cut[0] * size[1], cut[1] * size[0], size)
    box = Box(int(cut[2] * 9), int(cut[3] * 9), size[0] - int(cut[0] * 9), size[1] - int(cut[1] * 9))
    if (refused := refusal(lambda: scan_table(camera, mounted, box))) is not None:
        assert refusal(lambda: scanner_of(camera, mounted, box)) == f"libmvde: {refused}"
        return
    table = scan_table(camera, mounted, box)
    with scanner_of(camera, mounted, box) as scanner:
        info = scanner.info
        assert (info.angle_min, info.angle_increment) == (table.angle_min, table.angle_increment)
        assert info.support == table.support
        assert info.reach_m.tobytes() == table.reach_m.tobytes()
        depth = mixed_depth(size, seed, holes)
        expected = numpy_scan(depth, table)
        assert scanner.scan(depth).tobytes() == expected.tobytes()
        assert info.rotation == scan_of(expected, table).rotation


@pytest.mark.parametrize("name", native.available_kernels() if native.is_available() else [])
def test_every_implementation_gives_the_same_bits(name: str) -> None:
    camera = Camera.from_fov(90.0, None, (67, 1061))  # wider than the chunks that are counted
    table, depth = scan_table(camera, LEVEL), mixed_depth(camera.size, 7, 0.2)
    native.set_kernel(name)
    try:
        assert scanner_of(camera, LEVEL).scan(depth).tobytes() == numpy_scan(depth, table).tobytes()
    finally:
        native.set_kernel(None)


def test_strided_and_reversed_rows_are_read() -> None:
    whole = mixed_depth((192, 128), 3, 0.1)
    scanner, table = scanner_of(CAMERA, LEVEL), scan_table(CAMERA, LEVEL)
    for depth in (whole[::2], whole[95::-1], np.asfortranarray(whole[:96])):
        assert scanner.scan(depth).tobytes() == numpy_scan(np.ascontiguousarray(depth), table).tobytes()


def test_out_receives_the_ranges() -> None:
    scanner, depth = scanner_of(CAMERA, LEVEL), mixed_depth(CAMERA.size, 1, 0.1)
    out = np.zeros_like(scanner.info.reach_m)
    assert scanner.scan(depth, out) is out
    assert out.tobytes() == scanner.scan(depth).tobytes()
    with pytest.raises(UsageError, match=r"out is float32 \(3,\): expected contiguous float32"):
        scanner.scan(depth, np.zeros(3, np.float32))
    with pytest.raises(UsageError, match="depth is float64"):
        scanner.scan(depth.astype(np.float64))


def test_a_file_gives_the_same_settings(tmp_path: Path) -> None:
    path = tmp_path / "scan.yaml"
    path.write_text(
        "---\r\n# front\nheight_m:  .75 # over the floor\nroll_deg : -1.5e1\nmargin: +0.1\n\nmax_height_m: 2.\n"
    )
    found, expected = read_settings(str(path)), dataclasses.asdict(ScanSettings.from_file(path))
    assert math.isnan(found.pop("min_height_m"))
    assert expected.pop("min_height_m") is None
    assert found == expected


@pytest.mark.parametrize(
    "content",
    [
        "",
        "height_m: 0",
        "height_m: nan",
        "height_m: 1e999",
        "height_m: 1e-999",
        "height_m: 0x1p3",
        "height_m: +-1",
        "height_m: 1_0",
        "height_m: 1e",
        "height_m:0.6",
        "height_m : 0.6 0.7",
        "height_m: 0.6#7",
        "height: 0.6",
        "Height_m: 0.6",
        "height_m: 0.6\nheight_m: 0.7",
        "height_m: 0.6\nsupport_deg2: 0",
        "height_m: 0.6\nmin_height_m: 3",
        "height_m: 0.6\nrange_min_m: 10",
        "  height_m: 0.6",
        "höhe: 0.6 'quoted' and longer than forty characters in all",
        b"height_m: \xff",
        b"height_m: \xed\xa0\x80",
        "#" * 65537,
    ],
)
def test_a_bad_file_is_refused_in_the_same_words(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "scan.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    expected = refusal(lambda: ScanSettings.from_file(path))
    assert expected is not None
    assert refusal(lambda: read_settings(str(path))) == f"libmvde: {expected}"


def test_a_folder_and_a_missing_file_are_refused_in_the_same_words(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        expected = refusal(lambda path=path: ScanSettings.from_file(path))  # type: ignore[misc]
        assert expected is not None
        assert refusal(lambda path=path: read_settings(str(path))) == f"libmvde: {expected}"  # type: ignore[misc]


def test_a_scanner_that_was_closed_is_refused() -> None:
    scanner = scanner_of(CAMERA, LEVEL)
    scanner.close()
    with pytest.raises(UsageError, match="this Scanner is closed"):
        scanner.scan(np.ones(CAMERA.size, np.float32))
