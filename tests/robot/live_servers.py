"""Local streams to read in tests: MJPEG over HTTP with the standard library, on the loopback interface alone."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

SIZE = (48, 64)
"""Height and width of the frames in pixels."""


def level(index: int) -> int:
    """Grey level of a frame of a stream, 20 apart so that compression does not confuse neighbours."""
    return 20 + 20 * (index % 11)


def jpeg(index: int) -> bytes:
    """Uniform frame number ``index`` as JPEG."""
    content = io.BytesIO()
    Image.new("RGB", SIZE[::-1], (level(index),) * 3).save(content, "JPEG", quality=95)
    return content.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Send ``num`` frames, one each ``interval_s``, then end as the path says."""
        match self.path.partition("?")[0]:
            case "/missing":
                self.send_error(404)
            case "/text":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"this is no video " * 100)
            case "/silent":
                time.sleep(5)
            case ending:
                self._send_frames()
                if ending == "/stalls":
                    time.sleep(5)
                elif ending == "/breaks":  # a reset in place of an orderly end
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _send_frames(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for index in range(self.server.num_frames):  # type: ignore[attr-defined]
                picture = jpeg(index)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                self.wfile.flush()
                time.sleep(self.server.interval_s)  # type: ignore[attr-defined]
            self.wfile.write(b"--frame--\r\n")
        except OSError:
            pass  # the reader has gone


@contextmanager
def mjpeg_server(num_frames: int = 8, interval_s: float = 0.02) -> Iterator[str]:
    """Serve MJPEG at the yielded URL, to which a path is appended."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.num_frames, server.interval_s = num_frames, interval_s  # type: ignore[attr-defined]
    with _serving(server) as url:
        yield url


class _FileHandler(BaseHTTPRequestHandler):
    def __init__(self, content: bytes, *arguments: object) -> None:
        self._content = content
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self._content)))
        self.end_headers()
        self.wfile.write(self._content)


@contextmanager
def file_server(content: bytes) -> Iterator[str]:
    """Serve one file at the yielded URL, whatever the path."""
    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(_FileHandler, content))) as url:
        yield url


def mpeg(num_frames: int) -> bytes:
    """Uniform frames as MPEG-2 video in a transport stream."""
    import av

    content = io.BytesIO()
    with av.open(content, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            picture = Image.new("RGB", SIZE[::-1], (level(index),) * 3)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return content.getvalue()


@contextmanager
def _serving(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
