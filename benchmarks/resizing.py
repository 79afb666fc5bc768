"""Single-threaded time of resizing frames to a model's input and depth back, beside OpenCV's, Pillow's and PyTorch's.

    python benchmarks/resizing.py [--sizes 480x640 1080x1920] [--targets 192x192 448x448] [--budget 6] [--json FILE]

The contenders of one size are interleaved; the median over rounds of the thread's CPU time is shown, which is robust
to other load. "Same filter" is the antialiased triangle, whose support grows as the image shrinks: mvde gives Pillow's
bits, PyTorch's 8-bit path rounds its weights to fewer. OpenCV has no such filter: INTER_AREA averages the covered
pixels, half as many; INTER_LINEAR reads four pixels whatever the scale, so it aliases, and is here as a lower bound.
OpenCV (opencv-python-headless) and PyTorch are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from patch_stats import time_in_turn
from PIL import Image

from mvde import native
from mvde.resolution import parse_resolution

Size = tuple[int, int]
Calls = dict[str, Callable[[], object]]


def of_opencv(image: np.ndarray, depth: np.ndarray) -> tuple[Calls, Calls]:
    """OpenCV's calls for a frame and for a map of depth, if it is installed."""
    if importlib.util.find_spec("cv2") is None:
        return {}, {}
    import cv2

    cv2.setNumThreads(1)
    out = np.empty((*depth.shape, 3), np.uint8)
    size, back = depth.shape[::-1], image.shape[1::-1]
    return (
        {
            "OpenCV, INTER_AREA": lambda: cv2.resize(image, size, dst=out, interpolation=cv2.INTER_AREA),
            "OpenCV, INTER_LINEAR": lambda: cv2.resize(image, size, dst=out, interpolation=cv2.INTER_LINEAR),
        },
        {"OpenCV, INTER_LINEAR": lambda: cv2.resize(depth, back, interpolation=cv2.INTER_LINEAR)},
    )


def of_torch(image: np.ndarray, depth: np.ndarray) -> tuple[Calls, Calls]:
    """PyTorch's calls for a frame and for a map of depth, if it is installed."""
    if importlib.util.find_spec("torch") is None:
        return {}, {}
    import torch

    torch.set_num_threads(1)
    resize = torch.nn.functional.interpolate
    frame = torch.from_numpy(image).permute(2, 0, 1)[None]  # channels last: its fast path
    map_, size, back = torch.from_numpy(depth)[None, None], depth.shape, image.shape[:2]
    return (
        {"PyTorch, same filter": lambda: resize(frame, size=size, mode="bilinear", antialias=True)},
        {"PyTorch, bilinear": lambda: resize(map_, size=back, mode="bilinear")},
    )


def contenders(source: Size, target: Size) -> dict[str, Calls]:
    """Calls to time, of each direction."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*source, 3), np.uint8)
    depth = rng.uniform(0.5, 10, target).astype(np.float32)
    resizer, out = native.Resizer(source, target), np.empty((*target, 3), np.uint8)
    picture, size = Image.fromarray(image), target[::-1]
    frames: Calls = {
        "mvde": lambda: resizer.resize(image, out=out),
        "Pillow, same filter": lambda: picture.resize(size, Image.Resampling.BILINEAR),
    }
    maps: Calls = {"mvde": lambda: resizer.depth_to_source(depth)}
    for others, more in (of_opencv(image, depth), of_torch(image, depth)):
        frames |= others
        maps |= more
    return {"resizing": frames, "mapping back": maps}


def main() -> None:
    """Print the times, and write them as JSON lines if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["480x640", "1080x1920"], metavar="HxW", help="of frames")
    parser.add_argument("--targets", nargs="+", default=["192x192", "448x448"], metavar="HxW", help="of the model")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds per table")
    parser.add_argument("--json", type=Path, help="append the rows to this file, one object a line")
    options = parser.parse_args()
    print(f"kernel {native.kernel()}, one thread; times over mvde's in brackets")
    for source in map(parse_resolution, options.sizes):
        for target in map(parse_resolution, options.targets):
            for direction, calls in contenders(source, target).items():
                times_ms = time_in_turn(calls, options.budget)
                row = {"source": source, "target": target, "direction": direction, "ms": times_ms}
                if options.json:
                    with options.json.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(row) + "\n")
                print(f"{direction}, frame {source[0]}x{source[1]}, model {target[0]}x{target[1]}")
                for name, time_ms in times_ms.items():
                    print(f"  {name:24} {time_ms:7.2f} ms  ({time_ms / times_ms['mvde']:.2f})")


if __name__ == "__main__":
    main()
