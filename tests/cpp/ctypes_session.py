"""Sessions and groups of libmvde through ctypes, for tests that compare them with Python's runtime."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvde import native
from mvde.native.abi import CCamera, CDistortion, CFloor, CFrame, CMounting, CScanSettings, CStabilization, CTag

HAS_OPENVINO = (_path := native.library_path()) is not None and _path.with_name("libmvde_openvino.so").is_file()
NEEDS_OPENVINO = "`make native` builds libmvde and its backend"


class Options(ctypes.Structure):
    """``mvde_session_options``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("format", ctypes.c_int32),
        ("frame_height", ctypes.c_int64),
        ("frame_width", ctypes.c_int64),
        ("fit", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
        ("camera", ctypes.POINTER(CCamera)),
        ("stats", ctypes.POINTER(ctypes.c_int32)),
        ("num_stats", ctypes.c_int32),
        ("invalid_m", ctypes.c_float),
        ("deadline_ms", ctypes.c_int64),
        ("calibration_path", ctypes.c_char_p),
        ("distortion", ctypes.POINTER(CDistortion)),
        ("scan", ctypes.POINTER(CScanSettings)),
        ("stabilization", ctypes.POINTER(CStabilization)),
        ("floor", ctypes.POINTER(CMounting)),
    )


class Outputs(ctypes.Structure):
    """``mvde_outputs``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("depth_m", ctypes.c_void_p),
        ("depth_capacity", ctypes.c_int64),
        ("depth_mm", ctypes.c_void_p),
        ("depth_mm_capacity", ctypes.c_int64),
        ("stats", ctypes.c_void_p),
        ("stats_capacity", ctypes.c_int64),
        ("tag", CTag),
        ("calibrated", ctypes.c_int32),
        ("points", ctypes.c_void_p),
        ("points_capacity", ctypes.c_int64),
        ("points_step", ctypes.c_int32),
        ("points_colours", ctypes.c_void_p),
        ("ranges", ctypes.c_void_p),
        ("ranges_capacity", ctypes.c_int64),
        ("num_steady", ctypes.c_int32),
        ("floor", CFloor),
    )


class Results(NamedTuple):
    """Depth (H, W) and statistics (N, S), float32, of a frame, and what else its outputs hold."""

    depth: np.ndarray
    stats: np.ndarray
    outputs: Outputs


def load() -> ctypes.CDLL:
    """Libmvde as installed, without the signatures that :mod:`mvde.native` declares."""
    library = ctypes.CDLL(str(native.library_path()))
    library.mvde_last_error.restype = ctypes.c_char_p
    return library


def options_of(library: ctypes.CDLL, size: tuple[int, int] = (0, 0), **members: Any) -> Options:
    """Options of a session: defaults, the size (H, W) of its frames, and ``members`` as ctypes takes them."""
    options = Options()
    library.mvde_session_defaults(ctypes.byref(options))
    assert options.struct_size == ctypes.sizeof(Options)  # a shorter structure would be written past its end
    options.frame_height, options.frame_width = size
    for name, value in members.items():
        setattr(options, name, value)
    return options


def frame_of(library: ctypes.CDLL, image: np.ndarray, time_s: float | None = None) -> CFrame:
    """Frame of an RGB image (H, W, 3), uint8, whose memory it borrows; ``time_s`` is when it was taken."""
    frame = CFrame()
    library.mvde_frame_defaults(ctypes.byref(frame))
    frame.data, (frame.height, frame.width) = image.ctypes.data, image.shape[:2]
    frame.time_s = frame.time_s if time_s is None else time_s
    return frame


def results_of(library: ctypes.CDLL, size: tuple[int, int], num_patches: int, num_stats: int = 3) -> Results:
    """Room for the results of a frame of ``size`` (H, W), filled with NaN."""
    depth, stats = np.full(size, np.nan, np.float32), np.full((num_patches, num_stats), np.nan, np.float32)
    outputs = Outputs()
    library.mvde_outputs_defaults(ctypes.byref(outputs))
    assert outputs.struct_size == ctypes.sizeof(Outputs)
    outputs.depth_m, outputs.depth_capacity = depth.ctypes.data, depth.size
    outputs.stats, outputs.stats_capacity = stats.ctypes.data, stats.size
    return Results(depth, stats, outputs)


class Session:
    """A session of an engine with :func:`options_of`; calls that fail raise AssertionError with libmvde's words."""

    def __init__(self, engine: Path, size: tuple[int, int] = (0, 0), **members: Any) -> None:
        self.library, self._handle = load(), ctypes.c_void_p()
        options = options_of(self.library, size, **members)
        self._call("open", str(engine).encode(), ctypes.byref(options), ctypes.byref(self._handle))

    def infer(self, image: np.ndarray, num_patches: int, num_stats: int = 3, time_s: float | None = None) -> Results:
        """Results of a frame."""
        frame = frame_of(self.library, image, time_s)
        found = results_of(self.library, image.shape[:2], num_patches, num_stats)
        self._call("infer", self._handle, ctypes.byref(frame), ctypes.byref(found.outputs))
        return found

    def mount(self, mounting: CMounting | None) -> None:
        """Mounting from the next frame on."""
        self._call("mount", self._handle, None if mounting is None else ctypes.byref(mounting))

    def close(self) -> None:
        """Close the session."""
        self.library.mvde_close(self._handle)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, f"mvde_{name}")(*arguments)
        assert status == 0, (status, self.library.mvde_last_error().decode())
