"""Depth of a camera in an empty room, by its geometry alone: a floor, and a wall across the way; and its pictures."""

from __future__ import annotations

import numpy as np

from mvde.camera import Camera
from mvde.runtime.mounting import Mounting
from mvde.runtime.scan_settings import ScanSettings
from tests.runtime.scan_reference import level_rays


def room_depth(camera: Camera, mounting: Mounting, wall_m: float = 4.0) -> np.ndarray:
    """Depth (H, W), float32 metres, of a floor ``height_m`` below the camera and a wall ``wall_m`` ahead of it."""
    rays = level_rays(camera, ScanSettings(mounting.height_m, mounting.pitch_deg, mounting.roll_deg))
    with np.errstate(divide="ignore"):
        floor = np.where(rays[..., 2] < 0, mounting.height_m / -rays[..., 2], np.inf)
        wall = np.where(rays[..., 0] > 0, wall_m / rays[..., 0], np.inf)
    return np.minimum(floor, wall).astype(np.float32)


def picture(depth_m: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3), uint8, of which the tiny engine says this depth, 0.5 to 4.5 m: its channels share a sum."""
    total = np.rint((np.clip(depth_m, 0.5, 4.5) - 0.5) / 4.0 * 255 * 3).astype(int)
    return np.stack([(total + channel) // 3 for channel in range(3)], -1).astype(np.uint8)
