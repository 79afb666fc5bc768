"""Foxglove server: what a client of the protocol receives, and ports that cannot be opened."""

from __future__ import annotations

import dataclasses
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.errors import OutputError
from mvde.robot.foxglove_server import FoxgloveServer
from mvde.robot.viewed import Viewed
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.floor import FloorScale, FloorStatus
from mvde.runtime.scan_settings import ScanSettings
from tests.robot.foxglove_client import FoxgloveClient

pytest.importorskip("openvino")
pytest.importorskip("foxglove")

STAMP_NS = 1_700_000_000_123_456_789
CAMERA = Camera(70.0, 71.0, 39.5, 29.5, (60, 80))
TOPICS = {
    "/image": "foxglove.RawImage",
    "/camera_info": "foxglove.CameraCalibration",
    "/depth/image": "foxglove.RawImage",
    "/depth/patch/mean": "foxglove.RawImage",
    "/depth/patch/var": "foxglove.RawImage",
    "/depth/patch/grad": "foxglove.RawImage",
    "/points": "foxglove.PointCloud",
    "/tf": "foxglove.FrameTransforms",
    "/floor": "mvde.Floor",
    "/latency": "mvde.Latency",
    "/statistics": "mvde.Statistics",
}


@pytest.fixture(scope="module")
def viewed(engine_folder: Path) -> Viewed:
    """A frame of random pixels, with a hole in its depth and a patch without any."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    with DepthRuntime.load(engine_folder, camera=CAMERA) as runtime:
        result = runtime.infer(image)
    depth, stats = result.depth.copy(), result.stats.copy()
    depth[:20, :30], stats[0] = np.nan, 0
    floors = (FloorScale(FloorStatus.USED, 1.25, 0.5, 0.02),)
    result = dataclasses.replace(result, depth=depth, stats=stats, floors=floors)
    return Viewed(7, image, result, STAMP_NS, age_ms=12.5, num_late=2)


@pytest.fixture
def server() -> Iterator[FoxgloveServer]:
    one = FoxgloveServer(port=0)
    yield one
    one.close()


def image_of(message: object) -> np.ndarray:
    dtype = {"rgb8": np.uint8, "32FC1": np.float32}[message.encoding]  # type: ignore[attr-defined]
    pixels = np.frombuffer(message.data, dtype)  # type: ignore[attr-defined]
    assert message.step * message.height == pixels.nbytes  # type: ignore[attr-defined]
    return pixels.reshape(message.height, message.width, -1).squeeze()  # type: ignore[attr-defined]


def test_a_client_of_the_protocol_receives_every_topic(server: FoxgloveServer, viewed: Viewed) -> None:
    server.show(viewed)  # advertises; nobody listens yet
    with FoxgloveClient(server.url) as client:
        client.wait_for(*TOPICS)
        assert {topic: channel["schemaName"] for topic, channel in client.channels.items()} == TOPICS
        client.subscribe(*TOPICS)
        assert server.wait_for_subscriber(10)
        while not all(channel.has_sinks() for channel in server._channels.values()):
            server.wait_for_subscriber(0.01)
        server.show(viewed)
        found = client.receive_each(*TOPICS)
    assert {message.time_ns for message in found.values()} == {STAMP_NS}
    np.testing.assert_array_equal(image_of(found["/image"].content), viewed.image)
    np.testing.assert_array_equal(image_of(found["/depth/image"].content), viewed.result.depth)
    stamp = found["/depth/image"].content.timestamp
    assert (stamp.seconds * 10**9 + stamp.nanos, found["/depth/image"].content.frame_id) == (
        STAMP_NS,
        "camera_optical_frame",
    )
    for column, name in enumerate(("mean", "var", "grad")):
        expected = viewed.result.stats[:, column].reshape(2, 3).copy()
        expected[0, 0] = np.nan
        np.testing.assert_array_equal(image_of(found[f"/depth/patch/{name}"].content), expected)
    info = found["/camera_info"].content
    assert (info.width, info.height, list(info.K)) == (80, 60, [70, 0, 39.5, 0, 71, 29.5, 0, 0, 1])
    assert list(info.P) == [70, 0, 39.5, 0, 0, 71, 29.5, 0, 0, 0, 1, 0]
    timings = viewed.result.timings
    assert found["/latency"].content == {
        "pre_ms": timings.pre_ms, "infer_ms": timings.infer_ms, "post_ms": timings.post_ms,
        "total_ms": timings.total_ms, "age_ms": 12.5, "is_late": False, "num_passed_over": 0, "num_late": 2,
    }  # fmt: skip
    assert found["/floor"].content == {"status": "used", "scale": 1.25, "share": 0.5, "residual": 0.02}
    mean = viewed.result.stats[1:, 0]
    statistics = found["/statistics"].content
    assert (statistics["num_patches"], statistics["num_valid_patches"]) == (6, 5)
    assert statistics["mean"] == pytest.approx(
        {"min": float(mean.min()), "median": float(np.median(mean)), "max": float(mean.max())}
    )


def test_points_have_the_place_and_the_colour_of_their_pixels(server: FoxgloveServer, viewed: Viewed) -> None:
    server.show(viewed)
    with FoxgloveClient(server.url) as client:
        client.wait_for("/points")
        client.subscribe("/points")
        assert server.wait_for_subscriber(10)
        server.show(viewed)
        cloud = client.receive().content
    assert [(field.name, field.offset, field.type) for field in cloud.fields] == [
        ("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("blue", 12, 1), ("green", 13, 1), ("red", 14, 1), ("alpha", 15, 1),
    ]  # fmt: skip
    assert (cloud.frame_id, cloud.point_stride) == ("camera_optical_frame", 16)
    table = np.frombuffer(cloud.data, [("xyz", "<f4", 3), ("bgra", "u1", 4)])
    v, u = (axis.reshape(-1) for axis in np.mgrid[0:60:4, 0:80:4])
    z = viewed.result.depth[v, u].astype(float)
    seen = np.isfinite(z)
    assert 0 < seen.sum() < seen.size
    expected = np.stack([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z], axis=1)[seen]
    np.testing.assert_allclose(table["xyz"], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(table["bgra"][:, 2::-1], viewed.image[v, u][seen])
    assert (table["bgra"][:, 3] == 255).all()


def test_a_scan_comes_with_the_transform_of_its_mounting(server: FoxgloveServer, engine_folder: Path) -> None:
    settings = ScanSettings(height_m=0.6, pitch_deg=10, roll_deg=3, support_deg2=1, increment_deg=6, max_height_m=5)
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    with DepthRuntime.load(engine_folder, camera=CAMERA, scan=settings) as runtime:
        result = runtime.infer(image)
    scan = result.scan
    assert scan is not None
    assert np.isfinite(scan.ranges).any()
    viewed = Viewed(0, image, result, STAMP_NS)
    server.show(viewed)
    with FoxgloveClient(server.url) as client:
        topics = ("/scan", "/tf", "/description")
        client.wait_for(*topics)
        client.subscribe(*topics)
        while not all(server._channels[topic].has_sinks() for topic in topics):
            server.wait_for_subscriber(0.01)
        server.show(viewed)
        found = client.receive_each(*topics)
    assert found["/description"].content["text"] == str(result.describe())
    message = found["/scan"].content
    np.testing.assert_array_equal(np.array(message.ranges, np.float32), scan.ranges)
    assert message.frame_id == "camera_scan"
    count = len(message.ranges)
    assert message.end_angle - message.start_angle == pytest.approx((count - 1) * np.radians(6))
    transform = next(one for one in found["/tf"].content.transforms if one.child_frame_id == "camera_scan")
    assert transform.parent_frame_id == "camera_optical_frame"
    spatial = pytest.importorskip("scipy.spatial.transform")
    turn = transform.rotation
    optical_from_scan = spatial.Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    # The camera looks 10 degrees down: straight ahead on the level is up in its picture, and down on the plumb line
    # is turned by roll and pitch.
    forward, up = optical_from_scan[:, 0], optical_from_scan[:, 2]
    np.testing.assert_allclose(forward[2], np.cos(np.radians(10)), atol=1e-6)
    assert forward[1] < -0.1
    np.testing.assert_allclose(up[2], -np.sin(np.radians(10)), atol=1e-3)


def test_the_optical_frame_is_turned_upright(server: FoxgloveServer, viewed: Viewed) -> None:
    server.show(viewed)
    with FoxgloveClient(server.url) as client:
        client.wait_for("/tf")
        client.subscribe("/tf")
        assert server.wait_for_subscriber(10)
        server.show(viewed)
        (transform,) = client.receive().content.transforms
    assert (transform.parent_frame_id, transform.child_frame_id) == ("camera_link", "camera_optical_frame")
    spatial = pytest.importorskip("scipy.spatial.transform")
    turn = transform.rotation
    rotation = spatial.Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    # Right is -y, down is -z, forward is x of REP 103's body.
    np.testing.assert_allclose(rotation @ np.eye(3), [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)


def test_depth_without_a_unit_has_another_name(server: FoxgloveServer, viewed: Viewed) -> None:
    result = dataclasses.replace(viewed.result, depth_kind=DepthKind.INVERSE_RELATIVE, camera=None)
    server.show(dataclasses.replace(viewed, result=result))
    with FoxgloveClient(server.url) as client:
        client.wait_for("/statistics")
        assert {topic for topic in client.channels if topic.startswith("/relative/")} == {
            "/relative/image", "/relative/patch/mean", "/relative/patch/var", "/relative/patch/grad",
        }  # fmt: skip
        assert not {topic for topic in client.channels if topic.startswith(("/depth", "/camera_info", "/points"))}


def test_a_topic_that_nobody_subscribed_to_is_not_made(
    server: FoxgloveServer, viewed: Viewed, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.show(viewed)
    with FoxgloveClient(server.url) as client:
        client.wait_for("/latency")
        client.subscribe("/latency")
        assert server.wait_for_subscriber(10)
        monkeypatch.setattr("mvde.robot.foxglove_server._image", lambda *given: pytest.fail("an image was made"))
        server.show(viewed)
        assert client.receive().topic == "/latency"


def test_a_viewer_that_leaves_is_no_error(
    server: FoxgloveServer, viewed: Viewed, capfd: pytest.CaptureFixture[str]
) -> None:
    server.show(viewed)
    with FoxgloveClient(server.url) as client:
        client.wait_for("/image")
        client.subscribe("/image")
        assert server.wait_for_subscriber(10)
    while server._channels["/image"].has_sinks():
        time.sleep(0.01)
    server.show(viewed)
    server.close()
    assert "failed" not in capfd.readouterr().err


def test_the_server_listens_on_the_loopback_interface_alone(server: FoxgloveServer) -> None:
    assert server.url.startswith("ws://127.0.0.1:")
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OSError, match=r"refused"), socket.create_connection(("127.0.0.2", port), timeout=2):
        pass


def test_a_port_in_use_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"port {port} of 127.0.0.1 is in use, perhaps by another `mvde view`; give another with --port"
        with pytest.raises(OutputError, match=re.escape(expected)):
            FoxgloveServer(port)


def test_several_servers_run_at_once_and_a_port_is_free_again_after_closing(viewed: Viewed) -> None:
    first, second = FoxgloveServer(port=0), FoxgloveServer(port=0)
    first.show(viewed)
    with FoxgloveClient(second.url) as client:
        second.show(dataclasses.replace(viewed, result=dataclasses.replace(viewed.result, camera=None)))
        client.wait_for("/statistics")
        assert "/camera_info" not in client.channels
    port = int(first.url.rpartition(":")[2])
    first.close()
    second.close()
    opened = None
    begun = time.monotonic()
    while opened is None:  # the library closes its socket a moment after it was told to
        try:
            opened = FoxgloveServer(port)
        except OutputError:
            assert time.monotonic() - begun < 10
            time.sleep(0.05)
    opened.close()
