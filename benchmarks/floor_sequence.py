"""Scale from the floor on a real sequence with poses and gravity: of the sensor's own depth, and of an engine's.

    python benchmarks/floor_sequence.py ENGINE --sequence FOLDER --plane floor=1.485 --plane desk=0.76 [--every 20]

FOLDER has the form of 7-Scenes, with the direction of gravity in the world in ``gravity-direction.txt``, as sequences
of 3DMatch have it. A plane is told by how many metres it lies below the world's origin, its height over which is the
camera's mounting. Since poses drift, a frame that shows at least 2000 pixels of it within 5 cm takes their median.

The contenders: the sensor's depth times 1, 0.8 and 1.25, whose scale is known, and the engine's. "Off" is the found
scale over the true one, at most.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mvde.camera import Camera
from mvde.datasets.seven_scenes import SevenScenesDataset
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.floor import LEAST_FALL, FloorScale, FloorStatus, floor_falls, floor_scale
from mvde.runtime.mounting import Mounting, tilt_of
from mvde.runtime.placement import Box

WRONG = (1.0, 0.8, 1.25)
"""What the sensor's depth is multiplied by."""
_NEAR_M, _LEAST_PIXELS = 0.05, 2000


@dataclass(frozen=True)
class Frame:
    """Picture, sensor's depth and camera of a frame, and its mounting over each plane."""

    rgb: np.ndarray
    depth_m: np.ndarray
    camera: Camera
    mountings: dict[str, Mounting]


def frames(root: Path, planes: dict[str, float], every: int) -> Iterator[Frame]:
    """Every ``every`` th frame of a sequence."""
    dataset, down = SevenScenesDataset(root), np.loadtxt(root / "gravity-direction.txt")
    down = down / np.linalg.norm(down)
    for index in range(0, len(dataset), every):
        sample, pose = dataset[index], dataset.pose(index)
        camera, tilt = sample.camera, tilt_of(-pose[:, :3].T @ down)
        if camera is None or tilt is None:
            continue
        below = floor_falls(camera, Mounting(1.0, *tilt)) * sample.depth_m  # metres below the camera
        mountings = {}
        for name, plane in planes.items():
            height = plane - float(pose[:, 3] @ down)
            on_it = below[(sample.depth_m > 0) & (np.abs(below - height) < _NEAR_M)]
            mountings[name] = Mounting(float(np.median(on_it)) if len(on_it) > _LEAST_PIXELS else height, *tilt)
        yield Frame(sample.rgb, sample.depth_m, camera, mountings)


@dataclass
class Row:
    """What one contender's frames got from the floor: errors without and with it, and scales over the true ones."""

    floors: list[FloorScale] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    scaled: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)

    def add(self, depth: np.ndarray, found: FloorScale, frame: Frame) -> None:
        """Add a frame whose depth was ``depth`` before the floor's scale."""
        known = (frame.depth_m > 0) & np.isfinite(depth)
        ratio = depth[known].astype(np.float64) / frame.depth_m[known]
        self.floors.append(found)
        self.without.append(float(np.mean(np.abs(ratio - 1))))
        self.scaled.append(float(np.mean(np.abs(ratio * found.scale - 1))))
        if found.status is FloorStatus.USED:
            off = float(np.median(ratio)) * found.scale
            self.off.append(max(off, 1 / off))

    def __str__(self) -> str:
        counts = Counter(str(one.status) for one in self.floors)
        used = ", ".join(f"{counts[name]} {name}" for name in ("used", "unseen", "uneven"))
        off = f"{max(self.off) - 1:.1%}" if self.off else "–"
        return f"{used} | {off} | {np.mean(self.without):.4f} | {np.mean(self.scaled):.4f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="engine folder or id")
    parser.add_argument("--sequence", type=Path, required=True)
    parser.add_argument("--plane", action="append", required=True, metavar="NAME=M")
    parser.add_argument("--every", type=int, default=20)
    given = parser.parse_args()
    planes = {name: float(metres) for name, metres in (one.split("=") for one in given.plane)}
    rows: dict[tuple[str, str], Row] = {}
    shown: dict[str, list[float]] = {name: [] for name in planes}
    with DepthRuntime.load(given.engine) as runtime:
        for frame in frames(given.sequence, planes, given.every):
            depth = runtime.infer(frame.rgb, camera=frame.camera).depth
            for plane, mounting in frame.mountings.items():
                falls = floor_falls(frame.camera, mounting)
                looks_down = (falls >= LEAST_FALL) & (frame.depth_m > 0)
                on_it = np.abs(falls[looks_down] * frame.depth_m[looks_down] - mounting.height_m) < _NEAR_M
                shown[plane].append(float(on_it.mean()))
                for wrong in WRONG:
                    sensor = frame.depth_m * np.float32(wrong)
                    found = floor_scale(sensor, falls, mounting.height_m, Box(0, 0, *frame.camera.size))
                    rows.setdefault((plane, f"sensor × {wrong:g}"), Row()).add(sensor, found, frame)
                result = runtime.infer(frame.rgb, camera=frame.camera, mounting=mounting)
                rows.setdefault((plane, runtime.manifest.name), Row()).add(depth, result.floors[0], frame)
    for plane, shares in shown.items():
        low, middle, high = np.quantile(shares, (0, 0.5, 1))
        print(f"{plane}: {low:.0%} to {high:.0%} of what looks down, in half of the frames {middle:.0%} or less")
    print("\n| plane | depth | frames | off | AbsRel without | with |\n|---|---|---|---|---|---|")
    for (plane, name), row in rows.items():
        print(f"| {plane} | {name} | {row} |")


if __name__ == "__main__":
    main()
