"""A scan in plain loops over rays, written without the tables and histograms of the code under test."""

from __future__ import annotations

import math

import numpy as np

from mvde.camera import Camera
from mvde.runtime.scan_settings import ScanSettings


def level_rays(camera: Camera, settings: ScanSettings) -> np.ndarray:
    """Forward, left and up (H, W, 3) of the pixels' rays per metre of depth, by rotation matrices."""
    pitch, roll = math.radians(settings.pitch_deg), math.radians(settings.roll_deg)
    rows, columns = np.indices(camera.size)
    optical = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(camera.size)], -1)
    body = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    about_x = np.array([[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]])
    about_y = np.array([[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]])
    return optical @ (about_y @ about_x @ body).T


def obstacles(depth: np.ndarray, camera: Camera, settings: ScanSettings) -> dict[int, list[float]]:
    """Sorted ranges of the obstacles in each sector; sector 0 begins straight ahead, on the left of it."""
    found: dict[int, list[float]] = {}
    rays = level_rays(camera, settings).tolist()
    for row in range(camera.size[0]):
        for column in range(camera.size[1]):
            metres = float(depth[row, column])
            forward, left, up = rays[row][column]
            if not (0 < metres < math.inf) or (forward == 0 and left == 0):
                continue
            height, distance = settings.height_m + metres * up, metres * math.hypot(forward, left)
            if settings.lowest_m < height < settings.max_height_m and distance <= settings.range_max_m:
                sector = math.floor(math.degrees(math.atan2(left, forward)) / settings.increment_deg)
                found.setdefault(sector, []).append(max(distance, settings.range_min_m))
    return {sector: sorted(ranges) for sector, ranges in found.items()}
