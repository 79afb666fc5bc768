"""ctypes declarations of ``mvde.h``: enumerations, structures and signatures of the functions used."""

from __future__ import annotations

import ctypes
from typing import Any

VERSION = "0.1."  # of mvde.h; before 1.0 the minor part must match as well
STATS = {"mean": 0, "var": 1, "grad": 2, "min": 3, "max": 4, "valid": 5, "conf": 6}  # enum mvde_stat
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "uint16": 3}  # enum mvde_dtype
CONVERSIONS = {"linear": 0, "inverse": 1, "exp": 2, "log_sigmoid": 3}  # enum mvde_conversion
MASKS = {"sky": 0, "mask": 1}  # enum mvde_mask, by the roles of a network's outputs
RANGES = {"reject": 0, "clamp": 1}  # enum mvde_range
INTERPOLATIONS = {"bilinear": 0, "bicubic": 1}  # enum mvde_interpolation
FITS = {"stretch": 0, "letterbox": 1, "crop": 2}  # enum mvde_fit
PIXEL_FORMATS = {"rgb": 0, "bgr": 1, "grey": 2, "nv12": 3, "yuyv": 4}  # enum mvde_pixel_format
MATRICES = {"bt601": 0, "bt709": 1}  # enum mvde_matrix
DISTORTIONS = {"plumb_bob": 1, "rational_polynomial": 2, "equidistant": 3}  # enum mvde_distortion_model
DEPTH_KINDS = {  # enum mvde_depth_kind
    "metric": 0,
    "metric_focal": 1,
    "inverse_canonical": 2,
    "scale_invariant": 3,
    "inverse_relative": 4,
}
MAX_STATS = 16  # MVDE_MAX_STATS


class CMap(ctypes.Structure):
    """``mvde_map``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("batch", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("batch_stride", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("pixel_stride", ctypes.c_int64),
    )


class CPostprocessOptions(ctypes.Structure):
    """``mvde_postprocess_options``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("conversion", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("shift", ctypes.c_float),
        ("range", ctypes.c_int32),
        ("min_depth_m", ctypes.c_float),
        ("max_depth_m", ctypes.c_float),
        ("invalid_m", ctypes.c_float),
        ("mask", ctypes.POINTER(CMap)),
        ("mask_role", ctypes.c_int32),
        ("mask_threshold", ctypes.c_float),
        ("confidence", ctypes.POINTER(CMap)),
    )


class CStatsRequest(ctypes.Structure):
    """``mvde_stats_request``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("patch_size", ctypes.c_int32),
        ("num_stats", ctypes.c_int32),
        ("stats", ctypes.POINTER(ctypes.c_int32)),
        ("out", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
    )


class CTag(ctypes.Structure):
    """``mvde_tag``."""

    _fields_ = (("timestamp_ns", ctypes.c_int64), ("sequence", ctypes.c_uint64))


class CFrame(ctypes.Structure):
    """``mvde_frame``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("format", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("chroma_row_stride", ctypes.c_int64),
        ("matrix", ctypes.c_int32),
        ("full_range", ctypes.c_int32),
        ("tag", CTag),
        ("anchors", ctypes.c_void_p),
        ("num_anchors", ctypes.c_int32),
        ("time_s", ctypes.c_double),
    )


class CResizerOptions(ctypes.Structure):
    """``mvde_resizer_options``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("fit", ctypes.c_int32),
        ("interpolation", ctypes.c_int32),
        ("bicubic_coefficient", ctypes.c_float),
        ("antialias", ctypes.c_int32),
        ("align_corners", ctypes.c_int32),
        ("multiple", ctypes.c_int32),
        ("padding", ctypes.c_int32),
    )


class CCamera(ctypes.Structure):
    """``mvde_camera``."""

    _fields_ = (
        ("fx", ctypes.c_double),
        ("fy", ctypes.c_double),
        ("cx", ctypes.c_double),
        ("cy", ctypes.c_double),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
    )


class CDistortion(ctypes.Structure):
    """``mvde_distortion``."""

    _fields_ = (("model", ctypes.c_int32), ("reserved", ctypes.c_int32), ("coefficients", ctypes.c_double * 8))


class CPointsOptions(ctypes.Structure):
    """``mvde_points_options``."""

    _fields_ = (("struct_size", ctypes.c_uint32), ("step", ctypes.c_int32), ("colours", ctypes.POINTER(CFrame)))


class CBox(ctypes.Structure):
    """``mvde_box``."""

    _fields_ = tuple((side, ctypes.c_int64) for side in ("top", "left", "bottom", "right"))


class CScanSettings(ctypes.Structure):
    """``mvde_scan_settings``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("height_m", ctypes.c_double),
        ("pitch_deg", ctypes.c_double),
        ("roll_deg", ctypes.c_double),
        ("min_height_m", ctypes.c_double),
        ("max_height_m", ctypes.c_double),
        ("range_min_m", ctypes.c_double),
        ("range_max_m", ctypes.c_double),
        ("increment_deg", ctypes.c_double),
        ("support_deg2", ctypes.c_double),
        ("margin", ctypes.c_double),
    )


class CScanInfo(ctypes.Structure):
    """``mvde_scan_info``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("num_bearings", ctypes.c_int32),
        ("angle_min", ctypes.c_double),
        ("angle_increment", ctypes.c_double),
        ("range_min", ctypes.c_double),
        ("range_max", ctypes.c_double),
        ("support", ctypes.c_int32),
        ("rotation", ctypes.c_double * 4),
        ("reach_m", ctypes.POINTER(ctypes.c_float)),
    )


class CStabilization(ctypes.Structure):
    """``mvde_stabilization``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("scale_gain", ctypes.c_double),
        ("scale_open", ctypes.c_double),
        ("scale_full", ctypes.c_double),
        ("gain", ctypes.c_double),
        ("open", ctypes.c_double),
        ("full", ctypes.c_double),
        ("cut_correlation", ctypes.c_double),
        ("cut_residual", ctypes.c_double),
        ("cut_share", ctypes.c_double),
        ("max_gap_s", ctypes.c_double),
    )


class CSteadyFrame(ctypes.Structure):
    """``mvde_steady_frame``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("reserved", ctypes.c_int32),
        ("rgb", ctypes.c_void_p),
        ("picture_height", ctypes.c_int64),
        ("picture_width", ctypes.c_int64),
        ("picture_row_stride", ctypes.c_int64),
        ("map", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("view", ctypes.c_int64),
        ("time_s", ctypes.c_double),
    )


def declare(library: ctypes.CDLL) -> None:
    """Set argument and result types of all functions used. Raises AttributeError for a missing symbol."""
    pointer, i32, i64, f32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
    maps, request = ctypes.POINTER(CMap), ctypes.POINTER(CStatsRequest)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "mvde_version": (i32, []),
        "mvde_strerror": (ctypes.c_char_p, [i32]),
        "mvde_last_error": (ctypes.c_char_p, []),
        "mvde_kernel": (ctypes.c_char_p, []),
        "mvde_last_kernel": (ctypes.c_char_p, []),
        "mvde_kernel_is_available": (i32, [ctypes.c_char_p]),
        "mvde_set_kernel": (i32, [ctypes.c_char_p]),
        "mvde_workers_create": (i32, [i32, ctypes.POINTER(pointer)]),
        "mvde_workers_destroy": (None, [pointer]),
        "mvde_patch_stats": (i32, [maps, f32, f32, request, pointer]),
        # Not called: their absence tells a library whose structures are others.
        "mvde_resizer_defaults": (None, [ctypes.POINTER(CResizerOptions)]),
        "mvde_frame_defaults": (None, [ctypes.POINTER(CFrame)]),
        "mvde_resizer_create": (
            i32,
            [i32, i64, i64, i64, i64, ctypes.POINTER(CResizerOptions), ctypes.POINTER(pointer)],
        ),
        "mvde_resizer_destroy": (None, [pointer]),
        "mvde_resize": (i32, [pointer, ctypes.POINTER(CFrame), pointer, i64, pointer]),
        "mvde_depth_to_source": (i32, [pointer, pointer, i64, pointer, i64, f32, pointer]),
        "mvde_rays_create": (
            i32,
            [ctypes.POINTER(CCamera), ctypes.POINTER(CDistortion), ctypes.POINTER(pointer)],
        ),
        "mvde_rays_destroy": (None, [pointer]),
        "mvde_points": (i32, [pointer, pointer, i64, ctypes.POINTER(CPointsOptions), pointer, i64, pointer]),
        "mvde_scan_read": (i32, [ctypes.c_char_p, ctypes.POINTER(CScanSettings)]),
        "mvde_scanner_create": (
            i32,
            [pointer, ctypes.POINTER(CBox), ctypes.POINTER(CScanSettings), ctypes.POINTER(pointer)],
        ),
        "mvde_scanner_destroy": (None, [pointer]),
        "mvde_scanner_query": (i32, [pointer, ctypes.POINTER(CScanInfo)]),
        "mvde_scan": (i32, [pointer, pointer, i64, pointer, i64]),
        "mvde_stabilizer_create": (i32, [i32, ctypes.POINTER(CStabilization), ctypes.POINTER(pointer)]),
        "mvde_stabilizer_destroy": (None, [pointer]),
        "mvde_stabilizer_reset": (i32, [pointer]),
        "mvde_stabilize": (i32, [pointer, ctypes.POINTER(CSteadyFrame), pointer, i64, ctypes.POINTER(i32)]),
        "mvde_postprocess": (i32, [maps, ctypes.POINTER(CPostprocessOptions), maps, request, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
