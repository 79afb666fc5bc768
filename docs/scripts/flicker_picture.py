"""Draw ``docs/flicker.png``: one row of a clip's depth over time, frame by frame, stabilised, and true.

    python docs/scripts/flicker_picture.py ENGINE CLIPS [--clip 4] [--out docs/flicker.png]

ENGINE is the folder of an engine of metres, CLIPS a folder of ``mvde data synth --video``. Time runs to the right, the
columns of the picture downwards; below is the error of scale, the median of log(depth / truth), in percent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mvde import DepthRuntime
from mvde.camera import Camera
from mvde.datasets.clips import Clip, read_clip
from mvde.runtime.render import colourise
from mvde.runtime.stabilize import Stabilization
from mvde.steadiness import log_errors

_FRAME_PX, _GAP_PX, _CHART_PX, _TITLE_PX = 6, 12, 110, 16
_PLAIN, _STEADY, _GRID = (200, 70, 40), (0, 120, 200), (210, 210, 210)
_ROW = 0.6  # of the height: below the horizon of most cameras


def depth_of(runtime: DepthRuntime, clip: Clip, stabilize: Stabilization | None) -> np.ndarray:
    """Depth (T, H, W) in metres."""
    size = clip.depth_m.shape[1:]
    cameras = iter([Camera(*(float(one) for one in row), size) for row in clip.intrinsics])
    return np.stack(
        [one.depth for one in runtime.stream(clip.rgb, camera=lambda _: next(cameras), stabilize=stabilize)]
    )


def slit(depth_m: np.ndarray, near_m: float, far_m: float) -> Image.Image:
    """One row of each frame as a column of the picture."""
    row = depth_m[:, int(_ROW * depth_m.shape[1])].T
    return Image.fromarray(colourise(np.repeat(row, _FRAME_PX, axis=1), near_m, far_m))


def chart(lines: list[tuple[np.ndarray, tuple[int, int, int]]], width: int) -> Image.Image:
    """Errors of scale over time, with lines at every 5 %."""
    picture = Image.new("RGB", (width, _CHART_PX), "white")
    draw = ImageDraw.Draw(picture)
    values = np.concatenate([line for line, _ in lines]) * 100
    low, high = np.floor(values.min() / 5) * 5, np.ceil(values.max() / 5) * 5

    def y_of(percent: float) -> float:
        return (_CHART_PX - 1) * (high - percent) / max(high - low, 1)

    for percent in np.arange(low, high + 1, 5):
        draw.line((0, y_of(percent), width, y_of(percent)), _GRID)
        draw.text((2, min(max(y_of(percent) - 5, 0), _CHART_PX - 11)), f"{percent:+g} %", (90, 90, 90))
    for line, colour in lines:
        draw.line([((at + 0.5) * width / len(line), y_of(100 * one)) for at, one in enumerate(line)], colour, 2)
    return picture


def main() -> None:
    """Draw and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--clip", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/flicker.png"))
    given = parser.parse_args()
    clip = read_clip(given.clips, given.clip)
    with DepthRuntime.load(given.engine) as runtime:
        plain, steady = (depth_of(runtime, clip, settings) for settings in (None, Stabilization()))
    near_m, far_m = np.quantile(clip.depth_m[clip.depth_m > 0], [0.01, 0.99])
    panels = [("frame by frame", plain), ("stabilised", steady), ("true", clip.depth_m)]
    slits = [(title, slit(depth, near_m, far_m)) for title, depth in panels]
    wide, high = slits[0][1].size
    canvas = Image.new("RGB", (3 * wide + 2 * _GAP_PX, _TITLE_PX + high + _GAP_PX + _CHART_PX), "white")
    draw = ImageDraw.Draw(canvas)
    for at, ((title, picture), colour) in enumerate(zip(slits, (_PLAIN, _STEADY, "black"), strict=True)):
        draw.text((at * (wide + _GAP_PX), 2), title, colour)
        canvas.paste(picture, (at * (wide + _GAP_PX), _TITLE_PX))
    errors = [np.nanmedian(log_errors(one, clip.depth_m).reshape(len(one), -1), axis=1) for one in (plain, steady)]
    below = chart([(errors[0], _PLAIN), (errors[1], _STEADY)], canvas.width)
    canvas.paste(below, (0, _TITLE_PX + high + _GAP_PX))
    canvas.save(given.out, optimize=True)


if __name__ == "__main__":
    main()
