"""Logs with flipped bits, missing ends and overwritten lengths are read as far as they go, or refused in one line."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mvde.errors import MvdeError
from mvde.robot.camera_topics import camera_topics, first_infos
from mvde.robot.logs import open_log
from mvde.robot.messages import PICTURES, decode, picture
from tests.robot import log_files as logs
from tests.robot.test_logs import ros1_bag, ros2_folder

for package in ("rosbags", "mcap", "mcap_ros2"):
    pytest.importorskip(package)

NUM_MUTATIONS = 15
WRITERS: dict[str, Callable[[Path], Path]] = {
    "log.mcap": partial(logs.camera_log, num_frames=2, chunk_size=9000),
    "log.bag": partial(ros1_bag, num_frames=2),
    "sqlite": partial(ros2_folder, storage="SQLITE3", version=9, num_frames=2),
    "mcap": partial(ros2_folder, storage="MCAP", version=8, num_frames=2),
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Content with one kind of damage."""
    damaged, place = bytearray(content), rng.randrange(len(content))
    match rng.randrange(3):
        case 0:
            for _ in range(rng.randint(1, 8)):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        case 1:
            del damaged[place:]
        case 2:
            damaged[place : place + 8] = bytes(rng.choice((0, 127, 255)) for _ in range(8))
    return bytes(damaged)


def read_all(path: Path) -> None:
    """Read and decode everything, as a run does; a message that is no picture is passed over."""
    reader = open_log(path)
    try:
        first_infos(reader, camera_topics(reader, (), lambda text: None))
        for message in reader.messages(reader.topics):
            try:
                decoded = decode(message)
                if message.topic.msgtype in PICTURES:
                    picture(decoded)
            except MvdeError:
                continue
    finally:
        reader.close()


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_log_never_ends_in_another_error(tmp_path: Path, name: str) -> None:
    whole, path, rng = WRITERS[name](tmp_path / name), tmp_path / f"damaged{Path(name).suffix}", random.Random(name)
    read_all(whole)
    lines = []
    for _ in range(NUM_MUTATIONS):
        if whole.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(whole, path)
            target = rng.choice(sorted(path.iterdir()))
        else:
            target = shutil.copy(whole, path)
        target.write_bytes(mutated(target.read_bytes(), rng))
        try:
            read_all(path)
        except MvdeError as error:
            lines.append(str(error))
    assert not any("\n" in line for line in lines)
