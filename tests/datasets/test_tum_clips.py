"""TUM sequences as clips, written as the data set's page describes it; rotations are SciPy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.datasets.tum_clips import TumClips
from mvde.errors import DatasetError

TIMES = (10.0, 10.033, 10.066, 12.0, 12.033)


def write(root: Path, poses: str | None = None) -> Path:
    """A sequence of five pictures at 30 Hz with a gap of two seconds, and poses half a frame's jitter away."""
    (root / "rgb").mkdir(parents=True)
    (root / "depth").mkdir()
    for name in ("rgb", "depth"):
        (root / f"{name}.txt").write_text("# list\n" + "".join(f"{time:.3f} {name}/{time:.3f}.png\n" for time in TIMES))
    for index, time in enumerate(TIMES):
        Image.fromarray(np.full((48, 64, 3), index, np.uint8)).save(root / "rgb" / f"{time:.3f}.png")
        Image.fromarray(np.full((48, 64), 5000 * (index + 1), np.uint16)).save(root / "depth" / f"{time:.3f}.png")
    lines = [f"{time + 0.004:.3f} {time} 2 3 0.1 0.2 0.3 0.927" for time in TIMES]
    (root / "groundtruth.txt").write_text("# poses\n" + "\n".join(lines) if poses is None else poses)
    return root


def test_a_sequence_gives_clips_with_the_nearest_poses_and_ends_at_gaps(tmp_path: Path) -> None:
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    dataset = TumClips(write(tmp_path / "rgbd_dataset_freiburg1_desk"))
    assert dataset.num_clips == 2
    first, second = dataset.clips()
    np.testing.assert_allclose(first.depth_m[:, 0, 0], [1, 2, 3])
    np.testing.assert_allclose(second.time_s, TIMES[3:])
    np.testing.assert_allclose(second.poses[:, 0, 3], TIMES[3:])
    np.testing.assert_allclose(first.poses[0, :, :3], rotation.from_quat([0.1, 0.2, 0.3, 0.927]).as_matrix(), atol=1e-6)
    np.testing.assert_allclose(first.intrinsics[0, :2], [51.73, 51.65], rtol=1e-4)
    assert not first.is_cut.any()
    assert TumClips(tmp_path / "rgbd_dataset_freiburg1_desk", 2).num_clips == 2


@pytest.mark.parametrize(
    ("poses", "said"),
    [
        ("", "holds no pose; expected lines of"),
        ("10.0 1 2 3 0 0 0", "line 1: expected 'time tx ty tz qx qy qz qw'"),
        ("10.0 1 2 3 0 0 0 0", "with a unit quaternion"),
        ("10.0 1 2 3 0 0 x 1", "line 1: expected"),
        ("99.0 1 2 3 0 0 0 1", "no two pictures in a row have a pose within 0.02 s"),
    ],
)
def test_malformed_poses_are_named(tmp_path: Path, poses: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        TumClips(write(tmp_path / "freiburg1", poses))


def test_a_sequence_without_poses_or_camera_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not tell its camera"):
        TumClips(write(tmp_path / "desk"))
    (tmp_path / "desk" / "groundtruth.txt").unlink()
    with pytest.raises(DatasetError, match=r"groundtruth\.txt is missing; expected poses"):
        TumClips(tmp_path / "desk")
