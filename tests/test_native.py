"""libmvde through ctypes, against the NumPy specification."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mvde
from mvde import native
from mvde.contract import Interpolation
from mvde.errors import BackendError, UsageError
from mvde.resampling import Resampling, resample_depth
from mvde.runtime.placement import depth_to_source, fit_image, place
from mvde.stats import STATS, depth_to_patch_stats, numpy_patch_stats

pytestmark = pytest.mark.skipif(not native.is_available(), reason="libmvde is not built: make native")

RNG = np.random.default_rng(7)


def noisy_depth(shape, invalid_share=0.0):
    depth = 1 + 4 * RNG.random(shape, np.float32)
    depth[RNG.random(shape) < invalid_share] = np.nan
    return depth


@pytest.fixture(params=native.available_kernels() if native.is_available() else [])
def forced_kernel(request):
    native.set_kernel(request.param)
    yield request.param
    native.set_kernel(None)


@pytest.mark.parametrize("patch_size", [1, 7, 14, 16, 24, 56])
@pytest.mark.parametrize("invalid_share", [0.0, 0.1, 1.0])
def test_statistics_match_numpy_on_every_kernel(forced_kernel, patch_size, invalid_share):
    depth = noisy_depth((2, 2 * patch_size, 5 * patch_size), invalid_share)
    got = native.patch_stats(depth, patch_size, STATS)
    assert native.last_kernel() == forced_kernel
    # Up to 16 terms per lane, a reduction tree of four levels, and cancellation: see block_shift in the kernel.
    np.testing.assert_allclose(got, numpy_patch_stats(depth, patch_size, STATS), rtol=7e-6, atol=1e-12)


def test_the_fast_path_is_what_depth_to_patch_stats_uses():
    depth = noisy_depth((1, 32, 32))
    np.testing.assert_array_equal(depth_to_patch_stats(depth, 16, STATS), native.patch_stats(depth, 16, STATS))


@pytest.mark.parametrize(
    "view", [np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[:, ::2], np.s_[:, :, ::2], np.s_[::-1, 8:40, 8:40]]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_views_are_read_in_place(view, dtype):
    depth = noisy_depth((3, 64, 64), 0.05).astype(dtype)[view]
    np.testing.assert_array_equal(
        native.patch_stats(depth, 16, STATS), native.patch_stats(np.ascontiguousarray(depth), 16, STATS)
    )


def test_a_broadcast_or_misaligned_array_is_copied():
    row = noisy_depth((1, 1, 32))
    wide = np.broadcast_to(row, (2, 32, 32))
    np.testing.assert_array_equal(native.patch_stats(wide, 16, STATS), native.patch_stats(wide.copy(), 16, STATS))
    shifted = np.empty(32 * 32 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(1, 32, 32)
    shifted[:] = row
    np.testing.assert_array_equal(native.patch_stats(shifted, 16, STATS), native.patch_stats(wide[:1], 16, STATS))


@pytest.mark.parametrize("conversion", ["linear", "inverse", "exp", "log_sigmoid"])
def test_conversions_match_numpy_on_every_kernel(forced_kernel, conversion):
    raw = RNG.normal(0, 1.5, (1, 48, 80)).astype(np.float32)
    raw[0, 3, 5:9] = math.nan, math.inf, -math.inf, -300
    scale, shift, low, high = 0.75, 0.5, 0.2, 12.0
    with np.errstate(all="ignore"):
        linear = raw.astype(np.float64) * scale + shift
        span = math.log(high / low)
        depth = {
            "linear": lambda: linear,
            "inverse": lambda: np.where(raw > 0, 1 / linear, np.nan),
            "exp": lambda: np.where(np.isfinite(linear), np.exp(np.maximum(linear, -87)), np.nan),
            "log_sigmoid": lambda: low * np.exp(span / (1 + np.exp(-linear))),
        }[conversion]()
    valid = np.isfinite(depth) & (depth > 0)
    expected = np.where(valid, np.clip(depth, low, high), np.nan)
    got = native.postprocess(
        raw,
        16,
        STATS,
        conversion=conversion,
        scale=scale,
        shift=shift,
        depth_range="clamp",
        min_depth=low,
        max_depth=high,
    )
    assert native.last_kernel() == forced_kernel
    # Two exponentials with 2 ulp error each; the argument of the outer one, up to ln(12 / 0.2) = 4.1, adds 1 ulp.
    np.testing.assert_allclose(got.depth, expected, rtol=2e-6)
    stats = numpy_patch_stats(got.depth, 16, STATS)
    np.testing.assert_allclose(got.stats, stats, rtol=7e-6, atol=1e-12)


def test_depth_is_written_where_the_caller_asks():
    raw = noisy_depth((2, 32, 48), 0.02)
    fresh = native.postprocess(raw, 16, STATS, invalid_m=0)
    out = np.full(raw.shape, -1, np.float32)
    reused = native.postprocess(raw, 16, STATS, invalid_m=0, out=out)
    assert reused.depth is out
    np.testing.assert_array_equal(out, fresh.depth)
    np.testing.assert_array_equal(reused.stats, fresh.stats)
    for wrong in (out[:1], out.astype(np.float64), out.astype(np.uint16), out.transpose(0, 2, 1)):
        with pytest.raises(UsageError, match=r"expected contiguous float32 \(2, 32, 48\)"):
            native.postprocess(raw, 16, STATS, out=wrong)


def test_bfloat16_is_the_upper_half_of_a_float():
    bits = RNG.integers(0x3F80, 0x4180, (1, 32, 32)).astype(np.uint16)
    depth = (bits.astype(np.uint32) << 16).view(np.float32)
    got = native.postprocess(bits, 16, STATS, raw_dtype="bfloat16")
    np.testing.assert_array_equal(got.depth, depth)
    np.testing.assert_array_equal(got.stats, native.patch_stats(depth, 16, STATS))


def test_millimetres_are_rounded_and_what_does_not_fit_is_no_depth(forced_kernel):
    depth = np.array([1.0004, 1.0006, 0.0025, 0.0004, 65.535, 65.536, 1e6, math.nan, math.inf, -1.0, 0.0, 2.5])
    raw = np.resize(depth, (1, 4, 12)).astype(np.float32)
    got = native.postprocess(raw, 4, STATS, depth_dtype="uint16").depth
    np.testing.assert_array_equal(got[0, 0], [1000, 1001, 2, 0, 65535, 0, 0, 0, 0, 0, 0, 2500])


@pytest.mark.parametrize(("range_name", "expected"), [("reject", [9, 1, 2, 9]), ("clamp", [1, 1, 2, 2])])
def test_depth_outside_the_range_is_rejected_or_clamped(range_name, expected):
    raw = np.array([0.5, 1.0, 2.0, 3.0], np.float32).reshape(1, 1, 4)
    got = native.postprocess(raw, 1, ("valid",), depth_range=range_name, min_depth=1, max_depth=2, invalid_m=9)
    np.testing.assert_array_equal(got.depth[0, 0], expected)
    assert got.stats.sum() == (2 if range_name == "reject" else 4)


def test_results_do_not_depend_on_the_number_of_threads():
    depth = noisy_depth((2, 112, 140), 0.02)
    alone = native.patch_stats(depth, 14, STATS)
    for num_threads in (1, 2, 5):
        with native.Workers(num_threads) as workers:
            np.testing.assert_array_equal(native.patch_stats(depth, 14, STATS, workers=workers), alone)


def test_many_python_threads_may_call_at_once():
    maps = [noisy_depth((1, 64, 64), 0.02) for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda depth: native.patch_stats(depth, 16, STATS), maps))
    for depth, result in zip(maps, results, strict=True):
        np.testing.assert_array_equal(result, native.patch_stats(depth, 16, STATS))


def test_an_empty_batch_gives_no_rows():
    assert native.patch_stats(np.empty((0, 32, 32), np.float32), 16, STATS).shape == (0, 4, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: native.patch_stats(np.ones((1, 30, 32), np.float32), 16, STATS), "height 16 or 32 and width 32"),
        (lambda: native.patch_stats(np.ones((32, 32), np.float32), 16, STATS), "expected \\(B, H, W\\)"),
        (lambda: native.patch_stats(np.ones((1, 32, 32)), 16, STATS), "'float64'"),
        (lambda: native.patch_stats(np.ones((1, 32, 32), np.float32), 16, ("median",)), "'median'"),
        (lambda: native.patch_stats(np.ones((1, 32, 32), np.float32), 0, STATS), "patch_size is 0"),
        (lambda: native.patch_stats(np.ones((1, 4, 4), np.float32), 4, STATS, min_depth=2, max_depth=1), "bounds"),
        (lambda: native.postprocess(np.ones((1, 4, 4), np.float32), 4, STATS, conversion="cubic"), "'cubic'"),
        (lambda: native.postprocess(np.ones((1, 4, 4), np.float32), 4, STATS, scale=math.nan), "scale nan"),
        (lambda: native.postprocess(np.ones((1, 4, 4), np.float32), 4, STATS, conversion="log_sigmoid"), "min_depth"),
        (lambda: native.set_kernel("sse9"), "'sse9'"),
        (lambda: native.Workers(0), "num_threads is 0"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_closed_workers_are_refused():
    workers = native.Workers(2)
    workers.close()
    workers.close()
    with pytest.raises(UsageError, match="closed"):
        native.patch_stats(np.ones((1, 4, 4), np.float32), 4, STATS, workers=workers)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


STATS_OF_ONES = (
    "import numpy as np; from mvde import native; native.patch_stats(np.ones((1, 4, 4), 'f4'), 4, ('mean',))"
)


@pytest.mark.parametrize("name", native.available_kernels() if native.is_available() else [])
def test_the_environment_forces_a_kernel(name):
    done = run_python(f"{STATS_OF_ONES}; print(native.last_kernel())", MVDE_KERNEL=name)
    assert done.stdout.strip() == name


def test_an_impossible_kernel_is_an_error_and_not_a_fallback():
    done = run_python(STATS_OF_ONES, MVDE_KERNEL="neon" if "avx2" in native.available_kernels() else "avx2")
    assert done.returncode != 0
    assert "MVDE_KERNEL names the kernel" in done.stderr


def test_a_missing_or_foreign_library_is_an_error_and_not_a_fallback(tmp_path):
    code = "from mvde import native; native.is_available()"
    assert "cannot be loaded" in run_python(code, MVDE_LIBRARY=str(tmp_path / "absent.so")).stderr
    (tmp_path / "text.so").write_text("not a library")
    assert "reinstall mvde" in run_python(code, MVDE_LIBRARY=str(tmp_path / "text.so")).stderr


def test_the_library_that_make_renews_goes_before_that_of_an_editable_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "site-packages", tmp_path / "source"]
    for folder in folders:
        (folder / "lib").mkdir(parents=True)
        (folder / "lib" / "libmvde.so").touch()
    monkeypatch.delenv("MVDE_LIBRARY", raising=False)
    monkeypatch.setattr(mvde, "__path__", [str(folder) for folder in folders])
    assert native.library_path() == folders[1] / "lib" / "libmvde.so"


def test_numpy_serves_where_there_is_no_library(monkeypatch):
    depth = noisy_depth((1, 32, 32), 0.1)
    expected = numpy_patch_stats(depth, 16, STATS)
    monkeypatch.setattr(native, "library_path", lambda: None)
    native._library.cache_clear()
    try:
        assert not native.is_available()
        assert native.version() is None
        assert native.kernel() is None
        np.testing.assert_array_equal(depth_to_patch_stats(depth, 16, STATS), expected)
        with pytest.raises(BackendError, match="make native"):
            native.patch_stats(depth, 16, STATS)
    finally:
        native._library.cache_clear()


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize(
    ("source", "target"), [((48, 64), (32, 32)), ((45, 61), (112, 96)), ((300, 37), (64, 80)), ((64, 96), (64, 96))]
)
def test_resizing_has_pillows_bits_and_mapping_back_the_specifications(forced_kernel, source, target, fit):
    image = RNG.integers(0, 256, (*source, 3), dtype=np.uint8)
    depth = noisy_depth(target)
    placement = place(source, target, fit)
    fitted = np.full((*target, 3), 128, np.uint8)
    fitted[placement.target_box.slices] = along_x_then_y(image[placement.source_box.slices], placement.target_box.size)
    mapped = np.full(source, np.nan, np.float32)
    inner = depth[placement.target_box.slices]
    mapped[placement.source_box.slices] = resample_depth(inner, placement.source_box.size, np.nan)
    with native.Resizer(source, target, fit) as resizer, native.Workers(3) as workers:
        np.testing.assert_array_equal(resizer.resize(image), fitted)
        np.testing.assert_array_equal(resizer.resize(image[::-1].copy()[::-1], workers=workers), fitted)
        np.testing.assert_array_equal(resizer.depth_to_source(depth, workers=workers), mapped)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize(
    ("source", "target"), [((48, 64), (32, 32)), ((45, 61), (112, 96)), ((300, 37), (64, 80)), ((64, 96), (64, 96))]
)
def test_mapping_back_depth_with_holes_has_the_bits_of_the_specification(forced_kernel, source, target, fit):
    depth = noisy_depth(target)
    holes = RNG.random(target) < np.linspace(-0.5, 1.2, target[0])[:, None]  # whole rows without and with holes only
    depth[holes] = RNG.choice(np.array([np.nan, np.nan, np.inf, np.inf, np.inf, -np.inf], np.float32), holes.sum())
    depth[-1, -1] = np.float32(1e-45)  # subnormal, but depth
    placement = place(source, target, fit)
    with native.Resizer(source, target, fit) as resizer, native.Workers(3) as workers:
        for invalid in (np.nan, 0.0):
            mapped = resizer.depth_to_source(depth, invalid_m=invalid, workers=workers)
            expected = depth_to_source(depth, placement, invalid)
            np.testing.assert_array_equal(mapped, expected)
            assert np.isinf(mapped).any() == np.isnan(invalid)
        plain = noisy_depth(target)  # weights of an earlier map with holes are not used
        np.testing.assert_array_equal(resizer.depth_to_source(plain), depth_to_source(plain, placement))


@pytest.mark.parametrize("source_width", [1, 7, 33, 100])
def test_rows_of_every_width_have_pillows_bits_and_the_specifications(forced_kernel, source_width):
    """From one tap an output to 67, in all remainders of what a kernel takes at once, along x and y, both ways."""
    image = RNG.choice(np.array([0, 1, 254, 255], np.uint8), (9, source_width, 3))
    for width in (*range(1, 24), 99, 131):
        with native.Resizer((9, source_width), (11, width)) as resizer:
            np.testing.assert_array_equal(resizer.resize(image), along_x_then_y(image, (11, width)))
            depth = noisy_depth((11, width))
            mapped = resample_depth(depth, (9, source_width), np.nan)
            np.testing.assert_array_equal(resizer.depth_to_source(depth), mapped)


def test_negative_zero_maps_back_to_zero_as_a_sum_from_zero_does(forced_kernel):
    depth = np.full((20, 24), -0.0, np.float32)
    with native.Resizer((33, 50), (20, 24)) as resizer:
        mapped = resizer.depth_to_source(depth)
    np.testing.assert_array_equal(np.signbit(mapped), np.signbit(resample_depth(depth, (33, 50), math.nan)))
    assert not np.signbit(mapped).any()


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("coefficient", [None, -0.5, -0.75])
@pytest.mark.parametrize(("antialias", "align_corners"), [(True, False), (False, False), (False, True)])
def test_every_resampling_has_the_bits_of_the_specification(forced_kernel, antialias, align_corners, coefficient, fit):
    resampling = Resampling(
        interpolation=Interpolation.BILINEAR if coefficient is None else Interpolation.BICUBIC,
        bicubic_coefficient=coefficient,
        antialias=antialias,
        align_corners=align_corners,
        multiple=14,
        padding=7,
    )
    image = RNG.choice(np.array([0, 100, 255], np.uint8), (45, 131, 3))  # sums leave the range of bytes at both ends
    for target in ((28, 42), (112, 98), (14, 196)):
        placement = place((45, 131), target, fit, resampling)
        with native.Resizer((45, 131), target, fit, resampling=resampling) as resizer:
            np.testing.assert_array_equal(resizer.resize(image), fit_image(image, placement))


def test_a_letterbox_that_the_target_cannot_hold_is_refused():
    with pytest.raises(UsageError, match="multiples of 14 pixels does not fit into 32x28"):
        native.Resizer((6, 8), (32, 28), "letterbox", resampling=Resampling(multiple=14))


def along_x_then_y(pixels, size):
    """Pillow's bilinear resize of an image, x before y; Pillow's own order depends on its version and the sizes."""
    height, width = size
    image = Image.fromarray(np.ascontiguousarray(pixels))
    along_x = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return np.asarray(along_x.resize((width, height), Image.Resampling.BILINEAR))


def test_every_pixel_format_becomes_rgb():
    rgb = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    size = (6, 8)
    np.testing.assert_array_equal(native.Resizer(size, size, pixel_format="bgr").resize(rgb[..., ::-1].copy()), rgb)
    np.testing.assert_array_equal(
        native.Resizer(size, size, pixel_format="grey").resize(rgb[..., 0]), rgb[..., :1].repeat(3, -1)
    )


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("matrix", "of_red", "of_blue"), [("bt601", 0.299, 0.114), ("bt709", 0.2126, 0.0722)])
@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv"])
def test_yuv_frames_become_rgb_by_their_matrix_and_range(
    forced_kernel, pixel_format, matrix, of_red, of_blue, full_range
):
    lowest, luma_range, chroma_range = (0, 255, 255) if full_range else (16, 219, 224)
    luma = RNG.integers(lowest, lowest + luma_range + 1, (6, 44)).astype(np.uint8)
    shape = (3 if pixel_format == "nv12" else 6, 22, 2)
    chroma = RNG.integers(lowest, lowest + chroma_range + 1, shape).astype(np.uint8)
    if pixel_format == "nv12":
        frame = np.concatenate([luma, chroma.reshape(3, 44)])
        cb, cr = np.moveaxis(chroma.repeat(2, 0).repeat(2, 1).astype(float), -1, 0)
    else:
        frame = np.stack([luma, chroma.reshape(6, 44)], -1)
        cb, cr = np.moveaxis(chroma.repeat(2, 1).astype(float), -1, 0)
    y, half = 255 / luma_range * (luma - float(lowest)), chroma_range / 2
    red, blue = y + 255 / half * (1 - of_red) * (cr - 128), y + 255 / half * (1 - of_blue) * (cb - 128)
    green = (y - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
    expected = np.clip(np.stack([red, green, blue], -1), 0, 255)
    resizer = native.Resizer((6, 44), (6, 44), pixel_format=pixel_format, matrix=matrix, full_range=full_range)
    # The factors of BT.601 with limited range have three digits, like OpenCV's: an error of up to 0.1, plus rounding.
    most = 0.7 if matrix == "bt601" and not full_range else 0.5001
    assert np.abs(resizer.resize(frame) - expected).max() <= most


@pytest.mark.parametrize("pixel_format", ["bgr", "grey", "nv12", "yuyv"])
def test_every_kernel_converts_rows_of_every_width_to_the_scalar_kernels_bits(forced_kernel, pixel_format):
    for width in range(4, 70, 2):
        shapes = {"bgr": (4, width, 3), "grey": (4, width), "nv12": (6, width), "yuyv": (4, width, 2)}
        frame = RNG.integers(0, 256, shapes[pixel_format], dtype=np.uint8)
        for target_width in (width, width - 2):  # the crop begins at the second pixel of a pair
            with native.Resizer((4, width), (4, target_width), "crop", pixel_format) as resizer:
                converted = resizer.resize(frame)
                native.set_kernel("scalar")
                np.testing.assert_array_equal(converted, resizer.resize(frame))
                native.set_kernel(forced_kernel)


def test_frames_of_another_size_are_refused():
    with native.Resizer((6, 8), (4, 4)) as resizer:
        with pytest.raises(UsageError, match=r"\(6, 9, 3\): expected uint8 \(6, 8, 3\)"):
            resizer.resize(np.zeros((6, 9, 3), np.uint8))
        with pytest.raises(UsageError, match="expected float32"):
            resizer.depth_to_source(np.zeros((4, 4)))
    with pytest.raises(UsageError, match="closed"):
        resizer.resize(np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="even"):
        native.Resizer((5, 8), (4, 4), pixel_format="nv12")
    with pytest.raises(UsageError, match="0x4"):
        native.Resizer((6, 8), (0, 4))
    with pytest.raises(UsageError, match="matrix is 'bt2020': expected one of bt601, bt709"):
        native.Resizer((6, 8), (4, 4), pixel_format="nv12", matrix="bt2020")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a compiler")
def test_a_program_that_was_linked_with_the_library_where_it_lies_runs(tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text("#include <mvde/mvde.h>\nint main(void) { return mvde_version() != MVDE_VERSION; }\n")
    library = native.library_path()
    assert library is not None
    include, folder = Path(__file__).parents[1] / "cpp/include", library.parent.resolve()
    command = [
        "cc",
        source,
        f"-I{include}",
        f"-L{folder}",
        "-lmvde",
        f"-Wl,-rpath,{folder}",
        "-o",
        tmp_path / "program",
    ]
    subprocess.run(command, check=True)
    ran = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stderr}: no file has its SONAME; run `make native`"
