"""Rate and memory of ``mvde run`` over a log, against the engine alone over the same frames.

    python benchmarks/logs.py engines/NAME-HxW-BACKEND-PRECISION [--frames 200] [--repeats 5] [--long 10000]

Writes a log of 640x480 rgb8 made of a bundled photograph, and measures in turns: the runtime's stream over the frames
in memory, and the whole way from log to log, as one MCAP file. Says the median of the ratios of neighbouring
measurements, in wall time and in CPU time, since other work on the machine disturbs the first. ``--long`` runs over
that many small frames and says the resident memory after 1000 of them and at the end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mvde.assets import sample_photos
from mvde.robot.camera_topics import camera_topics
from mvde.robot.depth_log import Problems, write_depth_log
from mvde.robot.depth_topics import LogOutputs
from mvde.robot.logs import new_log, open_log
from mvde.robot.logs_mcap import McapWriter
from mvde.robot.messages import CAMERA_INFO, IMAGE, encode, image_message, new_topic, store
from mvde.runtime.depth import DepthRuntime

SIZE, SMALL = (480, 640), (48, 64)
STAMP_NS, PERIOD_NS = 1_700_000_000_000_000_000, 33_333_333


def frames(num_frames: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield a photograph (H, W, 3), uint8, shifted by a few pixels each time."""
    photo = np.asarray(Image.open(sample_photos()[0]).convert("RGB").resize(size[::-1]))
    for index in range(num_frames):
        yield np.roll(photo, 3 * index, axis=1)


def write_log(path: Path, num_frames: int, size: tuple[int, int]) -> Path:
    """Write a log of one rectified camera."""
    types, (height, width) = store().types, size
    writer = McapWriter(path)
    pictures, infos = (writer.add_topic(new_topic(f"/cam/{name}", kind)) for name, kind in _TOPICS)
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([width, 0, width / 2, 0, width, height / 2, 0, 0, 1], float)
    p = np.insert(k.reshape(3, 3), 3, 0, axis=1).reshape(-1)
    for index, frame in enumerate(frames(num_frames, size)):
        time_ns = STAMP_NS + index * PERIOD_NS
        stamp = types["builtin_interfaces/msg/Time"](time_ns // 10**9, time_ns % 10**9)
        header = types["std_msgs/msg/Header"](stamp, "optical")
        info = types[CAMERA_INFO](
            header, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, region
        )
        message = image_message(header, frame.reshape(height, width * 3), "rgb8")
        message.width = width
        writer.write(infos, time_ns, time_ns, encode(info))
        writer.write(pictures, time_ns, time_ns, encode(message))
    writer.close()
    return path


_TOPICS = (("image_rect", IMAGE), ("camera_info", CAMERA_INFO))


def resident_mib() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def over_log(runtime: DepthRuntime, source: Path, out: Path) -> Iterator[int]:
    """Write depth of a log to ``out``, and yield the number of frames so far."""
    reader, problems = open_log(source), Problems(print)
    with new_log(out, source) as writer:
        results = write_depth_log(reader, writer, camera_topics(reader, (), print), runtime, LogOutputs(), problems)
        for index, _ in enumerate(results):
            yield index + 1
    reader.close()
    out.unlink()


def times(work: Iterator[object]) -> tuple[float, float]:
    """Wall and CPU seconds of going through ``work``."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in work:
        pass
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="engine folder")
    parser.add_argument("--frames", type=int, default=200, help="frames of the log at 640x480")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements")
    parser.add_argument("--long", type=int, default=0, help="frames of the long log at 64x48; 0 for none")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, DepthRuntime.load(given.engine) as runtime:
        root = Path(folder)
        source = write_log(root / "in.mcap", given.frames, SIZE)
        in_memory = list(frames(given.frames, SIZE))
        for _ in over_log(runtime, source, root / "warm.mcap"):
            pass
        pairs = []
        for _ in range(given.repeats):
            alone, logged = times(runtime.stream(in_memory)), times(over_log(runtime, source, root / "out.mcap"))
            pairs.append((alone, logged))
            shown = [f"{seconds / given.frames * 1e3:.2f}" for seconds in (*alone, *logged)]
            print(f"engine alone {shown[0]} ms (CPU {shown[1]}), log to log {shown[2]} ms (CPU {shown[3]}) a frame")
        for index, name in enumerate(("wall", "CPU")):
            ratio = statistics.median(alone[index] / logged[index] for alone, logged in pairs)
            print(f"rate over the log / rate of the engine, by {name} time: {ratio:.3f}")
        if given.long:
            source = write_log(root / "long.mcap", given.long, SMALL)
            memory = {
                count: resident_mib()
                for count in over_log(runtime, source, root / "o.mcap")
                if count in (1000, given.long)
            }
            print(
                f"resident memory: {', '.join(f'{mib:.1f} MiB after {count} frames' for count, mib in memory.items())}"
            )


if __name__ == "__main__":
    main()
