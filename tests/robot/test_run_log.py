"""``mvde run`` on logs, read back by mcap-ros2-support."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.camera import Camera
from mvde.runtime.depth import DepthRuntime
from tests.robot import log_files as logs
from tests.robot.log_runs import COMPRESSED, IMAGE, INFO, SCAN, error_line, expected, run

for package in ("openvino", "rosbags", "mcap", "mcap_ros2"):
    pytest.importorskip(package)


def make_focal(robot: Path, edit_manifest: Callable[..., None]) -> None:
    """Make metres depend on the camera: those of a focal length of half a frame's width."""
    focal = {"depth_kind": "metric_focal", "canonical_focal": 0.5, "focal_convention": "horizontal"}
    edit_manifest(next((robot / "engines").rglob("engine.json")), lambda plain: plain.update(focal))


def test_a_log_of_rectified_pictures_gives_a_log_of_depth(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.camera_log(robot / "in.mcap")
    found = run()
    printed = capsys.readouterr().out
    assert "3 frames in out.mcap" in printed
    assert "/front/image_rect: 3 pictures, rectified, camera of /front/camera_info: fx 72, fy 72" in printed
    patches = {f"/front/depth/patch/{name}" for name in ("mean", "var", "grad", "camera_info")}
    assert set(found) == {"/front/depth/image_rect", "/front/depth/camera_info", *patches}
    for index, (record, depth) in enumerate(found["/front/depth/image_rect"]):
        np.testing.assert_array_equal(logs.pixels_of(depth), expected(index).depth)
        assert depth.header.frame_id == logs.FRAME_ID
        assert depth.header.stamp.sec * 10**9 + depth.header.stamp.nanosec == record.log_time - 5
        assert record.publish_time == record.log_time - 2


def test_statistics_are_one_image_for_each_column_with_the_camera_of_the_grid(robot: Path) -> None:
    logs.camera_log(robot / "in.mcap", 1)
    found, result = run(), expected(0)
    for index, name in enumerate(result.stat_names):
        ((_, image),) = found[f"/front/depth/patch/{name}"]
        np.testing.assert_array_equal(logs.pixels_of(image), result.stats[:, index].reshape(result.grid))
    ((_, info),) = found["/front/depth/patch/camera_info"]
    assert (info.height, info.width) == result.grid == (2, 3)
    # 80x60 pixels to 3x2 patches, by the edges: cx = (39.5 + 0.5) * 3 / 80 - 0.5.
    np.testing.assert_allclose(np.array(info.p).reshape(3, 4)[:2, :3], [[72 * 3 / 80, 0, 1], [0, 72 * 2 / 60, 0.5]])


def test_patches_that_the_network_did_not_see_are_nan(robot: Path) -> None:
    logs.camera_log(robot / "in.mcap", 1)
    found, result = run("--fit", "letterbox"), expected(0, fit="letterbox")
    is_seen = (result.stats != 0).any(axis=1).reshape(result.grid)
    for name in ("mean", "var", "grad"):
        ((_, image),) = found[f"/front/depth/patch/{name}"]
        np.testing.assert_array_equal(np.isfinite(logs.pixels_of(image)), is_seen)


def test_metadata_says_what_the_depth_is(robot: Path) -> None:
    from mcap.reader import make_reader

    logs.camera_log(robot / "in.mcap", 1)
    run()
    with (robot / "out.mcap").open("rb") as stream:
        (record,) = [one for one in make_reader(stream).iter_metadata() if one.name == "mvde"]
    facts = {"engine": "openvino:fp32", "depth_kind": "metric", "unit": "m", "camera_assumed": "false"}
    assert facts.items() <= record.metadata.items()


def test_distorted_pictures_keep_their_camera_and_are_called_raw(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.camera_log(robot / "in.mcap", 1, "/front/image_raw", d=(0.1, 0.0, 0.0, 0.0, 0.0))
    found = run()
    assert "/front/image_raw: 1 pictures, distorted (plumb_bob)" in capsys.readouterr().out
    assert "/front/depth/image_raw" in found
    ((_, info),) = found["/front/depth/camera_info"]
    assert list(info.d) == [0.1, 0, 0, 0, 0]
    assert info.k[0] == 70
    assert info.header.frame_id == logs.FRAME_ID


@pytest.mark.parametrize(("topic", "focal"), [("/front/image_rect_color", 72), ("/front/image_raw", 70)])
def test_the_camera_of_the_log_makes_the_metres(
    robot: Path, edit_manifest: Callable[..., None], topic: str, focal: float
) -> None:
    make_focal(robot, edit_manifest)
    logs.camera_log(robot / "in.mcap", 1, topic, d=(0.1, 0.0, 0.0, 0.0, 0.0))
    found = run()
    name = "/front/depth/image_rect" if "rect" in topic else "/front/depth/image_raw"
    ((_, depth),) = found[name]
    result = expected(0, camera=Camera(focal, focal, 39.5, 29.5, logs.SIZE))
    np.testing.assert_array_equal(logs.pixels_of(depth), result.depth)
    assert result.camera_factor == pytest.approx(focal / 80 / 0.5)


def test_a_camera_that_is_given_takes_the_place_of_the_logs(robot: Path, edit_manifest: Callable[..., None]) -> None:
    make_focal(robot, edit_manifest)
    logs.camera_log(robot / "in.mcap", 1)
    found = run("--camera", "40,40,39.5,29.5")
    ((_, depth),) = found["/front/depth/image_rect"]
    np.testing.assert_array_equal(logs.pixels_of(depth), expected(0).depth)  # a factor of 1
    ((_, info),) = found["/front/depth/camera_info"]
    assert info.p[0] == info.k[0] == 40


def test_without_camera_info_depth_is_written_and_the_camera_is_assumed(
    robot: Path, edit_manifest: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    make_focal(robot, edit_manifest)
    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_raw", IMAGE, logs.image(0))
    log.finish()
    found = run()
    printed = capsys.readouterr().out
    assert "/front/image_raw: 1 pictures, without CameraInfo" in printed
    assert "camera assumed" in printed
    ((_, depth),) = found["/front/depth/image_raw"]
    np.testing.assert_array_equal(logs.pixels_of(depth), expected(0).depth)
    ((_, info),) = found["/front/depth/camera_info"]
    assert info.k[0] == 40  # half the width, as the manifest assumes


def test_pictures_before_the_first_camera_info_have_its_camera(robot: Path, edit_manifest: Callable[..., None]) -> None:
    make_focal(robot, edit_manifest)
    log = logs.McapLog(robot / "in.mcap")
    for index, focal in enumerate((70.0, 38.0)):
        log.add("/front/image_rect", IMAGE, logs.image(0), index)
        log.add("/front/camera_info", INFO, logs.camera_info(index, focal), index)
    log.add("/front/image_rect", IMAGE, logs.image(0), 2)
    log.finish()
    depths = [logs.pixels_of(depth) for _, depth in run()["/front/depth/image_rect"]]
    np.testing.assert_array_equal(depths[0], depths[1])
    np.testing.assert_allclose(depths[2], depths[1] * (40 / 72), rtol=1e-6)


def test_millimetres_and_compressed_depth(robot: Path) -> None:
    logs.camera_log(robot / "in.mcap", 1)
    ((_, plain),) = run("--depth-encoding", "16UC1")["/front/depth/image_rect"]
    millimetres = expected(0).millimetres()
    np.testing.assert_array_equal(logs.pixels_of(plain), millimetres)
    found = run("--depth-encoding", "compressedDepth", out="packed.mcap")
    ((_, packed),) = found["/front/depth/image_rect/compressedDepth"]
    assert packed.format == "16UC1; compressedDepth png"
    content = bytes(packed.data)
    assert content[:12] == bytes(12)
    with Image.open(BytesIO(content[12:]), formats=["PNG"]) as png:
        np.testing.assert_array_equal(np.asarray(png).astype(np.uint16), millimetres)


def test_points_are_those_of_the_runtime_in_the_fields_of_a_point_cloud(robot: Path) -> None:
    logs.camera_log(robot / "in.mcap", 1, "/front/image_raw", d=(0.1, 0.0, 0.0, 0.0, 0.0))
    ((_, cloud),) = run("--point-step", "3")["/front/depth/points"]
    assert [(field.name, field.offset, field.datatype, field.count) for field in cloud.fields] == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
        ("rgb", 12, 7, 1),
    ]
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (20, 27, 16, 27 * 16)
    assert (cloud.is_bigendian, cloud.is_dense) == (False, False)
    fields = np.dtype({"names": ["x", "y", "z", "b", "g", "r"], "formats": ["<f4"] * 3 + ["u1"] * 3,
                       "offsets": [0, 4, 8, 12, 13, 14], "itemsize": 16})  # fmt: skip
    points = np.frombuffer(bytes(cloud.data), fields).reshape(20, 27)
    depth = expected(0).depth[::3, ::3]
    np.testing.assert_array_equal(points["z"], depth)
    np.testing.assert_array_equal(np.stack([points[name] for name in "rgb"], -1), logs.picture(0)[::3, ::3])
    # Undistorting by fixed-point iteration: k1 alone, x' = x (1 + 0.1 r^2).
    columns, rows = np.meshgrid(np.arange(0, 80, 3), np.arange(0, 60, 3))
    distorted = np.stack([(columns - 39.5) / 70, (rows - 29.5) / 70])
    rays = distorted
    for _ in range(50):
        rays = distorted / (1 + 0.1 * (rays**2).sum(axis=0))
    np.testing.assert_allclose(points["x"], rays[0] * depth, atol=1e-5)
    np.testing.assert_allclose(points["y"], rays[1] * depth, atol=1e-5)


def test_a_scan_is_that_of_the_runtime_with_its_frame(robot: Path) -> None:
    from scipy.spatial.transform import Rotation

    (robot / "scan.yaml").write_text(SCAN)
    log = logs.McapLog(robot / "in.mcap")
    for index in range(2):
        log.add("/front/image_rect", IMAGE, logs.image(index), index)
    log.add("/front/camera_info", INFO, logs.camera_info(0))
    log.finish()
    found = run("--scan", "scan.yaml")
    with DepthRuntime.load("fp32", scan="scan.yaml", camera=Camera(72, 72, 39.5, 29.5, logs.SIZE)) as runtime:
        for index, (_, message) in enumerate(found["/front/depth/scan"]):
            scan = runtime.infer(logs.picture(index)).scan
            assert np.isfinite(scan.ranges).any()
            np.testing.assert_array_equal(np.array(message.ranges, np.float32), scan.ranges)
            angles = (message.angle_min, message.angle_max, message.angle_increment)
            np.testing.assert_allclose(angles, (scan.angle_min, scan.angle_max, scan.angle_increment), rtol=1e-6)
            assert message.angle_max == pytest.approx(message.angle_min + (len(message.ranges) - 1) * angles[2])
            assert (message.range_min, message.range_max) == pytest.approx((0.1, 20))
            assert message.header.frame_id == f"{logs.FRAME_ID}_level"
    ((_, transforms),) = found["/tf_static"]  # once, however many frames
    (transform,) = transforms.transforms
    assert (transform.header.frame_id, transform.child_frame_id) == (logs.FRAME_ID, f"{logs.FRAME_ID}_level")
    q = transform.transform.rotation
    # The child's axes in the optical frame of a camera that looks down by 10 degrees, its left side up by 3 degrees:
    # turned about the level frame's y and then its own x, and from a body to its optical frame.
    level_from_body = Rotation.from_euler("y", 10, degrees=True) * Rotation.from_euler("x", 3, degrees=True)
    body_from_optical = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    expected_turn = (level_from_body * body_from_optical).inv()
    np.testing.assert_allclose(
        Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), expected_turn.as_matrix(), atol=1e-9
    )
    from mcap.reader import make_reader

    with (robot / "out.mcap").open("rb") as stream:
        channels = make_reader(stream).get_summary().channels.values()
    (qos,) = [channel.metadata["offered_qos_profiles"] for channel in channels if channel.topic == "/tf_static"]
    assert "durability: 1" in qos  # transient local


def test_a_scans_frame_joins_the_static_transforms_of_the_log(robot: Path) -> None:
    from mvde.robot.messages import encode, new_topic, store

    (robot / "scan.yaml").write_text(SCAN)
    log = logs.camera_log(robot / "first.mcap", 1)
    from mvde.robot.logs import new_log, open_log

    reader = open_log(log)
    with new_log(robot / "in.mcap", log) as writer:
        numbers = {topic.key: writer.add_topic(topic) for topic in reader.topics}
        static = writer.add_topic(new_topic("/tf_static", "tf2_msgs/msg/TFMessage"))
        empty = store().types["tf2_msgs/msg/TFMessage"]([])
        writer.write(static, logs.STAMP_NS, logs.STAMP_NS, encode(empty))
        for message in reader.messages(reader.topics):
            writer.write(numbers[message.topic.key], message.log_time_ns, message.publish_time_ns, message.data)
    reader.close()
    found = run("--scan", "scan.yaml", "--copy-topics")
    assert [len(message.transforms) for _, message in found["/tf_static"]] == [0, 1]
    assert cli.execute(["run", "in.mcap", "-o", "folder", "--scan", "scan.yaml", "--copy-topics"]) == 0


def test_depth_without_a_unit_goes_to_names_of_its_own(
    robot: Path, edit_manifest: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = next((robot / "engines").rglob("engine.json"))
    edit_manifest(manifest, lambda plain: plain.update(depth_kind="inverse_relative", unit="1/u"))
    logs.camera_log(robot / "in.mcap", 1)
    found = run()
    ((_, image),) = found["/front/relative/image"]
    np.testing.assert_array_equal(logs.pixels_of(image), expected(0).depth)
    assert not [name for name in found if "/depth/" in name]
    capsys.readouterr()
    assert cli.execute(["run", "in.mcap", "-o", "mm.mcap", "--depth-encoding", "16UC1"]) == 2
    assert "inverse_relative" in error_line(capsys)
    assert not (robot / "mm.mcap").exists()


@pytest.mark.parametrize("encoding", ["bgr8", "mono8"])
def test_encodings_of_a_camera_are_read(robot: Path, encoding: str) -> None:
    log = logs.McapLog(robot / "in.mcap")
    pixels = logs.picture(0)
    stored = pixels[..., ::-1] if encoding == "bgr8" else pixels[..., 0]
    log.add("/front/image_rect", IMAGE, logs.image(0, encoding, stored))
    log.finish()
    ((_, depth),) = run()["/front/depth/image_rect"]
    with DepthRuntime.load("fp32") as runtime:
        seen = pixels if encoding == "bgr8" else np.stack([pixels[..., 0]] * 3, axis=2)
        np.testing.assert_array_equal(logs.pixels_of(depth), runtime.infer(seen).depth)


def test_compressed_pictures_are_decoded(robot: Path) -> None:
    log = logs.McapLog(robot / "in.mcap")
    for index, kind in enumerate(("png", "jpeg")):
        stream = BytesIO()
        Image.fromarray(logs.picture(0)).save(stream, format=kind)
        message = {"header": logs.stamp(index), "format": f"rgb8; {kind} compressed bgr8", "data": stream.getvalue()}
        log.add("/front/image_raw/compressed", COMPRESSED, message, index)
    log.add("/front/camera_info", INFO, logs.camera_info(0))
    log.finish()
    (_, of_png), (_, of_jpeg) = run()["/front/depth/image_rect"]  # the CameraInfo has no distortion
    np.testing.assert_array_equal(logs.pixels_of(of_png), expected(0).depth)
    with Image.open(BytesIO(stream.getvalue())) as opened, DepthRuntime.load("fp32") as runtime:
        np.testing.assert_array_equal(logs.pixels_of(of_jpeg), runtime.infer(np.asarray(opened)).depth)


def test_all_other_topics_are_copied_on_request(robot: Path) -> None:
    logs.camera_log(robot / "in.mcap")
    before, found = logs.decoded(robot / "in.mcap"), run("--copy-topics")
    for name, messages in before.items():
        assert [(record.data, record.log_time, record.publish_time) for record, _ in found[name]] == [
            (record.data, record.log_time, record.publish_time) for record, _ in messages
        ]
    assert len(found["/front/depth/image_rect"]) == 3


def test_messages_out_of_order_keep_their_order(robot: Path) -> None:
    log = logs.McapLog(robot / "in.mcap")
    for index in (3, 1, 2, 0):
        log.add("/front/image_rect", IMAGE, logs.image(index), index)
    log.finish()
    run()
    from mcap.reader import make_reader

    with (robot / "out.mcap").open("rb") as stream:
        times = [
            record.log_time
            for _, _, record in make_reader(stream).iter_messages(["/front/depth/image_rect"], log_time_order=False)
        ]
    assert [(time - 5 - logs.STAMP_NS) // logs.PERIOD_NS for time in times] == [3, 1, 2, 0]


def brighter(index: int) -> np.ndarray:
    """One picture whose depth grows with the frame, but which is no cut."""
    return logs.picture(0) // 2 + np.uint8(4 * index)


def steady_log(path: Path, indices: tuple[int, ...]) -> None:
    """Log of pictures that differ a little, with the stamps of these frames."""
    log = logs.McapLog(path)
    for number, index in enumerate(indices):
        log.add("/front/camera_info", INFO, logs.camera_info(index), number)
        log.add("/front/image_rect", IMAGE, logs.image(index, pixels=brighter(number)), number)
    log.finish()


def test_a_log_is_steady_along_its_stamps_and_says_so(robot: Path) -> None:
    from mcap.reader import make_reader

    from mvde.runtime.stabilize import Stabilization

    steady_log(robot / "in.mcap", (0, 1, 2, 60))  # the last one two seconds later
    found = [logs.pixels_of(depth) for _, depth in run("--stabilize")["/front/depth/image_rect"]]
    with DepthRuntime.load(next((robot / "engines").iterdir())) as runtime:
        pictures = [brighter(number) for number in range(4)]
        steady = [one.depth for one in runtime.stream(pictures[:3], stabilize=Stabilization())]
        plain = [one.depth for one in runtime.stream(pictures)]
    np.testing.assert_array_equal(found, [*steady, plain[3]])
    assert all((one != other).mean() > 0.9 for one, other in zip(found[1:3], plain[1:3], strict=True))
    with (robot / "out.mcap").open("rb") as stream:
        (record,) = [one for one in make_reader(stream).iter_metadata() if one.name == "mvde"]
    assert record.metadata["stabilized"] == "true"


def test_pictures_out_of_order_or_of_equal_stamps_are_passed_over_when_steady(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steady_log(robot / "in.mcap", (0, 2, 2, 1, 3))
    assert len(run("--stabilize", status=1)["/front/depth/image_rect"]) == 3
    said = capsys.readouterr().err
    assert "was passed over: it comes after that of" in said
    assert "2 messages or topics of the log were passed over" in said
    assert len(run(out="plain.mcap")["/front/depth/image_rect"]) == 5


def test_cameras_of_a_log_are_each_steady_in_themselves(robot: Path) -> None:
    from mvde.runtime.stabilize import Stabilization

    log = logs.McapLog(robot / "in.mcap")
    views = {"/front": 0, "/rear": 7}
    for number in range(3):
        for name, first in views.items():  # in turn, with equal stamps
            log.add(f"{name}/camera_info", INFO, logs.camera_info(number), number)
            log.add(f"{name}/image_rect", IMAGE, logs.image(number, pixels=brighter(first + number)), number)
    log.finish()
    found = run("--stabilize", "--topic", "/front/image_rect", "--topic", "/rear/image_rect")
    with DepthRuntime.load(next((robot / "engines").iterdir())) as runtime:
        for name, first in views.items():
            pictures = [brighter(first + number) for number in range(3)]
            alone = [one.depth for one in runtime.stream(pictures, stabilize=Stabilization())]
            depths = [logs.pixels_of(depth) for _, depth in found[f"{name}/depth/image_rect"]]
            np.testing.assert_array_equal(depths, alone)
