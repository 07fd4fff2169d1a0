"""A web server on loopback that fails as it is asked to, and a relay that cuts connections."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Fault:
    """Defects of one answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1  # bytes of the body, after which the connection ends
    stall: int = -1  # bytes of the body, after which nothing comes any more
    silent: bool = False  # not even a status
    length_off_by: int = 0
    without_ranges: bool = False
    without_length: bool = False
    body: bytes | None = None  # in place of the file's


class Server(ThreadingHTTPServer):
    """Serves the files of a folder; `faults[path]` are those of the next requests for it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.faults, self.requests = folder, dict[str, list[Fault]](), list[Any]()
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ranges(self) -> list[str | None]:
        """The Range headers of all requests so far."""
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        waiting = self.server.faults.get(path, [])
        fault = waiting.pop(0) if waiting else Fault()
        if fault.silent:
            self.server.closing.wait()
            return
        file = self.server.folder / path.lstrip("/")
        status = fault.status or (200 if file.is_file() else 404)
        if status >= 300:
            self._head(status, {"Content-Length": "0", **fault.headers})
            return
        data = file.read_bytes() if fault.body is None else fault.body
        headers = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", **fault.headers}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and not fault.without_ranges:
            start = int(wanted[1])
            if start >= len(data):
                self._head(416, {"Content-Length": "0"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        if not fault.without_length:
            headers["Content-Length"] = str(len(data) + fault.length_off_by)
        self._head(status, headers)
        if fault.stall >= 0:
            self.wfile.write(data[: fault.stall])
            self.wfile.flush()
            self.server.closing.wait()
        else:
            self.wfile.write(data[: fault.cut] if fault.cut >= 0 else data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class Relay:
    """Passes connections on to a port; ends those in `cuts` after so many bytes of answer.

    After a negative number of them, it keeps the connection and sends nothing more.
    """

    def __init__(self, port: int) -> None:
        self._target, self.cuts = port, list[int]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                left = self.cuts.pop(0) if self.cuts else 1 << 60
                for source, sink, most in ((client, server, 1 << 60), (server, client, left)):
                    threading.Thread(
                        target=_pass_on, args=(source, sink, most), daemon=True
                    ).start()


def _pass_on(source: socket.socket, sink: socket.socket, most: int) -> None:
    left = abs(most)
    with contextlib.suppress(OSError):
        while left and (data := source.recv(min(left, 1 << 16))):
            sink.sendall(data)
            left -= len(data)
    if most < 0:
        return
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
