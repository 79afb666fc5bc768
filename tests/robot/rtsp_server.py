"""A camera that speaks RTSP (RFC 2326), on the loopback interface: MPEG video in RTP (RFC 2250) over the connection."""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

from PIL import Image

from tests.robot.live_servers import SIZE, level

_PAYLOAD = 32  # MPEG video of RFC 3551, which needs no parameters in the description
_CLOCK_HZ = 90_000


def mpeg_frames(num_frames: int) -> list[bytes]:
    """Uniform frames as MPEG-2 video, each decodable by itself."""
    import av

    encoder = av.CodecContext.create("mpeg2video", "w")
    encoder.height, encoder.width = SIZE
    encoder.pix_fmt, encoder.gop_size, encoder.framerate = "yuv420p", 1, 25
    encoder.time_base = Fraction(1, 25)
    packets = []
    for index in range(num_frames):
        frame = av.VideoFrame.from_image(Image.new("RGB", SIZE[::-1], (level(index),) * 3))
        frame.pts = index
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in packets + encoder.encode()]


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while (request := self._read()) is not None:
            method, url, headers = request
            reply = {"CSeq": headers.get("cseq", "0"), "Session": "1"}
            body = ""
            if "/locked" in url and method == "DESCRIBE":
                self._reply("401 Unauthorized", reply | {"WWW-Authenticate": 'Basic realm="camera"'}, "")
                continue
            match method:
                case "OPTIONS":
                    reply["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
                case "DESCRIBE":
                    reply |= {"Content-Type": "application/sdp", "Content-Base": f"{url}/"}
                    body = (
                        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
                        f"m=video 0 RTP/AVP {_PAYLOAD}\r\na=control:track\r\n"
                    )
                case "SETUP":
                    reply["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
            self._reply("200 OK", reply, body)
            if method == "PLAY":
                self._play(stalls="/stalls" in url)
                return

    def _read(self) -> tuple[str, str, dict[str, str]] | None:
        lines = []
        while line := self.rfile.readline().decode().strip():
            lines.append(line)
        if not lines:
            return None
        method, url, _ = lines[0].split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return method, url, headers

    def _reply(self, status: str, headers: dict[str, str], body: str) -> None:
        lines = [f"RTSP/1.0 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode())

    def _play(self, *, stalls: bool) -> None:
        """Send each frame as one RTP packet."""
        server = self.server
        for index, frame in enumerate(server.frames):  # type: ignore[attr-defined]
            stamp = round(index * server.interval_s * _CLOCK_HZ)  # type: ignore[attr-defined]
            head = struct.pack(">BBHII", 0x80, 0x80 | _PAYLOAD, index & 0xFFFF, stamp, 7)  # the marker ends a frame
            video = struct.pack(">I", (index % 1024) << 16 | 1 << 13 | 1 << 12 | 1 << 11 | 1 << 8)  # an I picture
            packet = head + video + frame
            try:
                self.wfile.write(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)
            except OSError:
                return  # the reader has gone
            time.sleep(server.interval_s)  # type: ignore[attr-defined]
        if stalls:
            time.sleep(3)


@contextmanager
def rtsp_server(num_frames: int = 8, interval_s: float = 0.04) -> Iterator[str]:
    """Serve a camera at the yielded URL, to which a path is appended."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.frames, server.interval_s = mpeg_frames(num_frames), interval_s  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"rtsp://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
