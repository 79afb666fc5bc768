"""Draw ``docs/robot.jpg``: a photograph with the obstacles of its scan, and its points and scan from above.

    python docs/scripts/robot_picture.py ENGINE PHOTO [--height 1.4] [--pitch 0] [--out docs/robot.jpg]

ENGINE is the folder of an engine of the shipped model. The mounting is that of the photograph, as far as it can be
told.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mvde import DepthRuntime
from mvde.image import read_image
from mvde.runtime.result import DepthResult
from mvde.runtime.scan import Scan
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import level_rotation

_NEAR, _FREE, _GRID = (0, 170, 230), (44, 160, 44), (110, 110, 110)


def from_above(result: DepthResult, image: np.ndarray, scan: Scan, side: int) -> Image.Image:
    """Top view (side, side): points in their colours, the scan in blue, a grid of 0.5 m; the camera at the bottom."""
    level = level_points(result, image, scan)
    reach = 1.15 * float(np.nanpercentile(level[:, 0], 98))
    scale = side / reach
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)

    def pixel(x: float, y: float) -> tuple[float, float]:
        return side / 2 - y * scale, side - 10 - x * scale

    for metres in np.arange(0.5, reach, 0.5):
        radius = metres * scale
        draw.arc((side / 2 - radius, side - 10 - radius, side / 2 + radius, side - 10 + radius), 180, 360, _GRID)
        draw.text(pixel(metres, 0.02), f"{metres:g} m", _GRID)
    for x, y, *colour in level:
        column, row = pixel(x, y)
        draw.rectangle((column, row, column + 1, row + 1), tuple(int(value) for value in colour))
    for bearing, distance in zip(scan.bearings, scan.ranges, strict=True):
        if math.isfinite(distance):
            column, row = pixel(distance * math.cos(bearing), distance * math.sin(bearing))
            draw.ellipse((column - 3, row - 3, column + 3, row + 3), _NEAR)
        elif math.isinf(distance):
            draw.line((pixel(0, 0), pixel(0.2 * math.cos(bearing), 0.2 * math.sin(bearing))), _FREE)
    return picture


def level_points(result: DepthResult, image: np.ndarray, scan: Scan) -> np.ndarray:
    """Points as rows of x, y in the scan's level frame and red, green, blue, the lowest ones first."""
    points = result.points(step=2).reshape(-1, 3)
    colours = image[::2, ::2].reshape(-1, 3)
    seen = np.isfinite(points[:, 2])
    level = points[seen] @ np.array(level_rotation(scan.settings)).T
    order = np.argsort(level[:, 2])
    return np.concatenate([level[order, :2], colours[seen][order]], axis=1)


def with_obstacles(result: DepthResult, image: np.ndarray, scan: Scan) -> Image.Image:
    """The photograph, with the pixels between the heights of obstacles near the scan's range in blue."""
    camera, settings = result.camera, scan.settings
    assert camera is not None
    forward, left, up = np.moveaxis(result.points() @ np.array(level_rotation(settings)).T, -1, 0)
    sector = np.round((np.arctan2(left, forward) - scan.angle_min) / scan.angle_increment)
    inside = (sector >= 0) & (sector < len(scan.ranges))
    told = np.where(inside, scan.ranges[np.clip(sector, 0, len(scan.ranges) - 1).astype(int)], np.nan)
    height = settings.height_m + up
    is_between = (height > settings.lowest_m) & (height < settings.max_height_m)
    is_near = np.hypot(forward, left) < 1.03 * told
    marked = np.where((is_between & is_near & np.isfinite(told))[..., None], np.array(_NEAR) * 0.6 + image * 0.4, image)
    return Image.fromarray(marked.astype(np.uint8))


def main() -> None:
    """Draw the picture and print the description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--height", type=float, default=1.4, help="of the camera over the floor, in metres")
    parser.add_argument("--pitch", type=float, default=0.0, help="degrees down")
    parser.add_argument("--out", type=Path, default=Path("docs/robot.jpg"))
    options = parser.parse_args()
    settings = ScanSettings(options.height, options.pitch)
    image = read_image(options.photo)
    with DepthRuntime.load(options.engine, scan=settings) as runtime:
        result = runtime.infer(image)
    assert result.scan is not None
    print(result.describe())
    photo = with_obstacles(result, image, result.scan)
    above = from_above(result, image, result.scan, photo.height)
    both = Image.new("RGB", (photo.width + above.width + 8, photo.height), "white")
    both.paste(photo, (0, 0))
    both.paste(above, (photo.width + 8, 0))
    both.save(options.out, quality=88)


if __name__ == "__main__":
    main()
