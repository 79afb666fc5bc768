"""Points of a depth map: they project onto their pixels, through every lens, with the bits of the library."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mvde import native
from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.distortion import Distortion, DistortionModel
from mvde.errors import UsageError
from mvde.runtime.placement import place
from mvde.runtime.points import depth_points, write_points
from mvde.runtime.rays import camera_rays
from mvde.runtime.result import DepthResult, Timings

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = (48, 67)
"""A width that is no multiple of the sixteen pixels that a kernel takes at once."""
CAMERA = Camera(41.5, 40.25, 30.5, 25.75, SIZE)
LENSES = {
    # Of published calibrations: a webcam, a RealSense-like wide camera, the Azure Kinect's colour camera, a fisheye.
    "webcam": Distortion(DistortionModel.PLUMB_BOB, (-0.28, 0.074, 0.0004, -0.0013)),
    "wide": Distortion(DistortionModel.PLUMB_BOB, (-0.055, 0.067, 0.0007, 0.0005, -0.021)),
    "rational": Distortion(DistortionModel.RATIONAL_POLYNOMIAL, (0.47, -2.6, 0.0008, -0.0003, 1.5, 0.36, -2.44, 1.43)),
    "fisheye": Distortion(DistortionModel.EQUIDISTANT, (-0.013, 0.021, -0.017, 0.004)),
}
needs_library = pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")


def result_of(
    depth: NDArray[np.float32], camera: Camera | None = CAMERA, kind: DepthKind = DepthKind.METRIC
) -> DepthResult:
    size = (depth.shape[-2], depth.shape[-1])
    placed, stats = place(size, size, "stretch"), np.zeros((1, 1), np.float32)
    return DepthResult(depth, stats, (1, 1), Timings(0, 0, 0), ("mean",), kind, placed, camera=camera)


def depth_with_holes(size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.2, 30, size).astype(np.float32)
    flat = depth.reshape(-1)
    flat[::7] = np.nan
    flat[3::31] = np.resize(np.array([np.inf, -np.inf, 0, -0.0, -2.5, 1e-45, 3.4e38], np.float32), len(flat[3::31]))
    return depth


def frame_of(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)


def projected(point: NDArray[np.float32], camera: Camera) -> tuple[float, float]:
    """Pixel (column, row) of a point, by the formulas of OpenCV's documentation, in plain Python."""
    x, y = float(point[0]) / float(point[2]), float(point[1]) / float(point[2])
    r2, lens = x * x + y * y, camera.distortion
    if lens is not None and lens.model is DistortionModel.EQUIDISTANT:
        theta = math.atan(math.sqrt(r2))
        bent = theta + sum(k * theta ** (3 + 2 * i) for i, k in enumerate(lens.coefficients))
        scale = bent / math.sqrt(r2) if r2 else 1.0
        x, y = x * scale, y * scale
    elif lens is not None:
        k1, k2, p1, p2, k3, k4, k5, k6 = (*lens.coefficients, 0.0, 0.0, 0.0, 0.0)[:8]
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    return camera.fx * x + camera.cx, camera.fy * y + camera.cy


@pytest.mark.parametrize("lens", [None, *LENSES])
def test_a_point_projects_onto_its_pixel_at_its_depth(lens: str | None) -> None:
    camera = dataclasses.replace(CAMERA, distortion=None if lens is None else LENSES[lens])
    depth = depth_with_holes()
    points = result_of(depth, camera).points()
    assert (points.shape, points.dtype) == ((*SIZE, 3), np.float32)
    for row, column in np.argwhere(np.isfinite(points[..., 2]))[::5]:
        point = points[row, column]
        assert point[2] == depth[row, column]
        if point[2] < 1e-30:  # a subnormal depth has a position, but few digits
            continue
        assert projected(point, camera) == pytest.approx((column, row), abs=2e-4)
    has_ray = ~np.isnan(result_of(np.ones(SIZE, np.float32), camera).points()[..., 0])
    assert has_ray.mean() > 0.75
    valid = (depth > 0) & (depth <= 1e16)
    np.testing.assert_array_equal(~np.isnan(points), np.broadcast_to((valid & has_ray)[..., None], points.shape))


def test_a_wall_is_flat_and_as_large_as_it_is() -> None:
    points = result_of(np.full((481, 641), 3.0, np.float32), Camera(500, 500, 320, 240, (481, 641))).points()
    assert (points[..., 2] == 3).all()
    np.testing.assert_allclose(points[240, :, 0], (np.arange(641) - 320) * 3 / 500, atol=1e-6)
    np.testing.assert_allclose(points[:, 320, 1], (np.arange(481) - 240) * 3 / 500, atol=1e-6)


@pytest.mark.parametrize("step", [2, 3, 16, 70])
def test_a_step_keeps_every_so_many_rows_and_columns(step: int) -> None:
    depth, rgb = depth_with_holes(), frame_of()
    for lens in (None, *LENSES.values()):
        result = result_of(depth, dataclasses.replace(CAMERA, distortion=lens))
        points = result.points(step, rgb)
        assert points.shape == (-(-SIZE[0] // step), -(-SIZE[1] // step), 4)
        np.testing.assert_array_equal(points.view(np.uint32), result.points(1, rgb)[::step, ::step].view(np.uint32))


def test_the_bytes_are_the_data_of_a_point_cloud() -> None:
    """Read back as a subscriber does: by the fields' offsets, the colour from a float's bits (PCL's packing)."""
    depth, rgb = depth_with_holes(), frame_of()
    points = result_of(depth).points(rgb=rgb)
    fields = np.dtype(
        {"names": ["x", "y", "z", "rgb"], "formats": ["<f4"] * 4, "offsets": [0, 4, 8, 12], "itemsize": 16}
    )
    cloud = np.frombuffer(points.tobytes(), fields).reshape(SIZE)
    np.testing.assert_array_equal(cloud["z"], np.where((depth > 0) & (depth <= 1e16), depth, np.nan))
    packed = cloud["rgb"].view(np.uint32) if cloud["rgb"].flags.c_contiguous else cloud["rgb"].copy().view(np.uint32)
    colours = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1)
    np.testing.assert_array_equal(colours, rgb)  # those of pixels without depth too
    assert (packed >> 24 == 0).all()


@needs_library
@pytest.mark.parametrize("lens", [None, *LENSES])
@pytest.mark.parametrize("size", [SIZE, (1, 1), (3, 16), (20, 1031)])
def test_the_library_has_the_bits_of_the_specification(lens: str | None, size: tuple[int, int]) -> None:
    camera = Camera(39.0, 41.0, size[1] * 0.45, size[0] * 0.6, size, None if lens is None else LENSES[lens])
    depth, rgb = depth_with_holes(size), frame_of(size)
    rays = camera_rays(camera)
    for step in (1, 3):
        for colours in (None, rgb):
            expected = np.empty((-(-size[0] // step), -(-size[1] // step), 3 if colours is None else 4), np.float32)
            write_points(depth, *rays, step, colours, expected)
            try:
                for kernel in native.available_kernels():
                    native.set_kernel(kernel)
                    found = depth_points(depth, camera, step, colours)
                    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), err_msg=kernel)
            finally:
                native.set_kernel(None)


@needs_library
def test_threads_and_strided_maps_change_nothing() -> None:
    from mvde.native.points import Rays

    depth, rgb = depth_with_holes(), frame_of()
    expected = depth_points(depth, CAMERA, rgb=rgb)
    wide = np.zeros((SIZE[0], SIZE[1] + 5), np.float32)
    wide[:, : SIZE[1]] = depth
    assert depth_points(wide[:, : SIZE[1]], CAMERA, rgb=rgb).tobytes() == expected.tobytes()
    assert depth_points(np.asfortranarray(depth), CAMERA, rgb=np.asfortranarray(rgb)).tobytes() == expected.tobytes()
    assert (
        depth_points(depth[::-1], CAMERA, rgb=rgb).tobytes()
        == depth_points(depth[::-1].copy(), CAMERA, rgb=rgb).tobytes()
    )
    repeated = np.broadcast_to(depth[:1], SIZE)  # rows 0 bytes apart
    assert depth_points(repeated, CAMERA, rgb=rgb).tobytes() == depth_points(repeated.copy(), CAMERA, rgb=rgb).tobytes()
    with Rays((CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy), SIZE) as rays, native.Workers(3) as workers:
        found = np.empty_like(expected)
        rays.points(depth, found, rgb=rgb, workers=workers)
        with pytest.raises(UsageError, match=r"expected float32 \(48, 67\) with dense rows"):
            rays.points(repeated, found, rgb=rgb)
    assert found.tobytes() == expected.tobytes()
    with pytest.raises(UsageError, match="is closed"):
        rays.points(depth, found, rgb=rgb)


def test_pixels_beyond_the_fold_of_a_lens_have_no_point() -> None:
    """The radius r - 0.3 r³ is largest at r = 1.054, where it is 0.703: no ray meets the picture farther out."""
    camera = Camera(50, 50, 60, 45, (91, 121), Distortion(DistortionModel.PLUMB_BOB, (-0.3, 0.0, 0.0, 0.0)))
    points = result_of(np.ones(camera.size, np.float32), camera).points()
    rows, columns = np.indices(camera.size)
    radius = np.hypot(columns - 60, rows - 45) / 50
    assert not np.isnan(points[radius < 0.69]).any()
    assert np.isnan(points[radius > 0.71]).all()
    assert np.nanmax(np.hypot(points[..., 0], points[..., 1])) < 1.06


def test_a_fisheye_has_points_to_86_degrees_and_none_behind() -> None:
    camera = Camera(50, 50, 100.25, 10, (21, 201), Distortion(DistortionModel.EQUIDISTANT, (0.0, 0.0, 0.0, 1e-9)))
    points = result_of(np.ones(camera.size, np.float32), camera).points()
    angle = np.abs(np.arange(201) - 100.25) / 50  # 2 radians at the border
    seen = ~np.isnan(points[10, :, 0])
    np.testing.assert_array_equal(seen, angle < 1.5)
    np.testing.assert_allclose(points[10, seen, 0], np.tan((np.arange(201) - 100.25)[seen] / 50), rtol=1e-5)


def test_a_batch_and_a_given_buffer() -> None:
    depth, rgb = np.stack([depth_with_holes(), depth_with_holes()[::-1]]), np.stack([frame_of(), frame_of()[::-1]])
    points = result_of(depth).points(2, rgb)
    for one, frame, expected in zip(depth, rgb, points, strict=True):
        assert result_of(one).points(2, frame).tobytes() == expected.tobytes()
    out = np.empty_like(points)
    assert result_of(depth).points(2, rgb, out) is out
    assert out.tobytes() == points.tobytes()
    buffer = np.empty((*SIZE, 3), np.float32)
    assert result_of(depth[0]).points(out=buffer) is buffer


@pytest.mark.parametrize("kind", [DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_RELATIVE, DepthKind.INVERSE_CANONICAL])
def test_a_map_without_metres_has_no_points(kind: DepthKind) -> None:
    with pytest.raises(UsageError, match=rf"points\(\) needs a map in metres, but this one is {kind}.*calibration"):
        result_of(depth_with_holes(), kind=kind).points()


def test_bad_input_is_refused_with_what_was_expected() -> None:
    depth, rgb = depth_with_holes(), frame_of()
    result = result_of(depth)
    with pytest.raises(UsageError, match=r"needs the camera of the frame, and metric assumes none: give camera="):
        result_of(depth, None).points()
    for step in (0, -1, 2.0, True, "2", 1 << 17):
        with pytest.raises(UsageError, match=r"step is .*: expected 1 \(every pixel\) to 65536"):
            result.points(step)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"rgb is uint8 \(47, 67, 3\): expected uint8 \(48, 67, 3\)"):
        result.points(rgb=rgb[1:])
    with pytest.raises(UsageError, match="rgb is float32"):
        result.points(rgb=rgb.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"out is float64 \(48, 67, 3\): expected contiguous float32 \(48, 67, 3\)"):
        result.points(out=np.empty((*SIZE, 3)))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"out is float32 \(48, 67, 3\): expected contiguous float32 \(48, 67, 4\)"):
        result.points(rgb=rgb, out=np.empty((*SIZE, 3), np.float32))
    with pytest.raises(UsageError, match="the camera is of frames of 48x67, but this frame is 47x67"):
        result_of(depth[1:]).points()
    with pytest.raises(UsageError, match="rgb and out need one entry for each of the 2 maps"):
        result_of(np.stack([depth, depth])).points(rgb=rgb[None])
