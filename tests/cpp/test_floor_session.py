"""A session whose scale is the floor's, bit for bit the runtime: frame by frame and steady, with changing mountings."""

from __future__ import annotations

import ctypes
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.distortion import Distortion, DistortionModel
from mvde.native import abi
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.mounting import Mounting
from mvde.runtime.stabilize import Stabilization
from tests.cpp.ctypes_session import HAS_OPENVINO, NEEDS_OPENVINO, Session
from tests.runtime.floor_rooms import picture, room_depth

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(not HAS_OPENVINO, reason=NEEDS_OPENVINO)

SIZE = (60, 80)
CAMERA = Camera.from_fov(60.0, None, SIZE)
LENS = Distortion(DistortionModel.PLUMB_BOB, (-0.02, 0.01, 0.0, 0.0, 0.0))
MOUNTING = Mounting(0.6, 15.0, 2.0)
WRONG = 0.8
"""What the engine's depth is of the room's."""


def sequence() -> list[tuple[np.ndarray, Mounting | None]]:
    """Frames and mountings: a room that moves sideways, an unknown mounting and a wrong one, a cut there and back."""
    rng = np.random.default_rng(0)
    room = picture(room_depth(CAMERA, MOUNTING) * WRONG).astype(int)
    room += rng.integers(-12, 12, (*SIZE, 1))  # texture, which the stabiliser follows
    seen = [np.clip(np.roll(room, shift, axis=1), 0, 255).astype(np.uint8) for shift in range(6)]
    cut = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    higher, wrong = Mounting(0.66, 15.0), Mounting(0.6, -60.0)
    images = [*seen[:4], cut, *seen[4:]]
    return list(zip(images, [MOUNTING, higher, None, wrong, None, MOUNTING, higher], strict=True))


def as_c(mounting: Mounting | None) -> abi.CMounting | None:
    if mounting is None:
        return None
    return abi.CMounting(ctypes.sizeof(abi.CMounting), *dataclasses.astuple(mounting))


def opened(engine: Path, lens: Distortion | None, *, is_steady: bool) -> Session:
    members = {"camera": ctypes.pointer(abi.CCamera(CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy, *SIZE))}
    if lens is not None:
        model = abi.CDistortion(abi.DISTORTIONS[str(lens.model)], 0, (ctypes.c_double * 8)(*lens.coefficients))
        members["distortion"] = ctypes.pointer(model)
    if is_steady:
        values = dataclasses.astuple(Stabilization())
        members["stabilization"] = ctypes.pointer(abi.CStabilization(ctypes.sizeof(abi.CStabilization), *values))
    return Session(engine, SIZE, fit=abi.FITS["letterbox"], floor=ctypes.pointer(as_c(MOUNTING)), **members)


@pytest.mark.parametrize("lens", [None, LENS], ids=["rectified", "lens"])
@pytest.mark.parametrize("stabilize", [None, Stabilization()], ids=["each", "steady"])
def test_a_session_gives_the_runtimes_bits(
    engine_folder: Path, stabilize: Stabilization | None, lens: Distortion | None
) -> None:
    images, mountings = zip(*sequence(), strict=True)
    times_s = [at * 0.1 for at in range(len(images))]
    session = opened(engine_folder, lens, is_steady=stabilize is not None)
    camera, statuses = dataclasses.replace(CAMERA, distortion=lens), []
    with DepthRuntime.load(engine_folder, camera=camera) as runtime:
        stream = runtime.stream(images, "letterbox", stabilize=stabilize, times_s=times_s, mountings=mountings)
        for result, image, mounting, time_s in zip(stream, images, mountings, times_s, strict=True):
            session.mount(as_c(mounting))
            depth, stats, outputs = session.infer(image, num_patches=6, time_s=time_s)
            np.testing.assert_array_equal(depth, result.depth)
            np.testing.assert_array_equal(stats, result.stats)
            (floor,) = result.floors
            found = outputs.floor
            assert found.status == abi.FLOORS[floor.status]
            numbers = (found.scale, found.share, found.residual)
            assert numbers == (floor.scale, floor.share, floor.residual)
            assert outputs.num_steady == (result.num_steady or 0)
            statuses.append(str(floor.status))
    session.close()
    lost = ["unknown", "unseen"] if stabilize is None else ["held", "held"]
    assert statuses == ["used", "used", *lost, "unknown", "used", "used"]
