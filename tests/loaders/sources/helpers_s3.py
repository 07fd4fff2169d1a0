"""An S3-compatible server on loopback: moto's, which checks signatures and permissions."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_server import Relay

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "sesame",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    "AWS_CONFIG_FILE": "/nowhere",
}
_NEVER = 1 << 30


class Store:
    """The server, and the relay that the loader reaches it by."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.relay = Relay(port)
        self.url = f"http://127.0.0.1:{self.relay.port}"

    def put(self, bucket: str, folder: Path) -> None:
        """Store all files of a folder in a new bucket."""
        self._call("PUT", f"/{bucket}")
        for path in folder.iterdir():
            self._call("PUT", f"/{bucket}/{path.name}", path.read_bytes())

    def check_credentials(self, wanted: bool) -> None:
        self._call("POST", "/moto-api/reset-auth", str(0 if wanted else _NEVER).encode())

    def _call(self, method: str, path: str, data: bytes | None = None) -> None:
        headers = {
            "Authorization": "AWS4-HMAC-SHA256 Credential=AKIA/x/us-east-1/s3/aws4_request",
            "Content-Type": "application/octet-stream",
        }
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            answer.read()


@contextlib.contextmanager
def serve_s3() -> Iterator[Store]:
    server_module: Any = pytest.importorskip("moto.server", reason="needs moto, of extra streams")
    pytest.importorskip("s3fs", reason="needs s3fs, of the extra streams")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    store = Store(server.get_host_and_port()[1])
    try:
        yield store
    finally:
        store.relay.close()
        server.stop()
