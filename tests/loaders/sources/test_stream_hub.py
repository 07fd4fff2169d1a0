"""Shards at hf://, from a server on loopback that answers as the hub does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from helpers_shards import image, write_samples

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.stream import over_fsspec, patience
from patchmill.loaders.sources.stream.stream import Stream

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
pytest.importorskip("fsspec", reason="fsspec is not installed")

EACH = 30


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that listing and reading need; answers by 503 on demand."""

    folder: Path
    refusals: int

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/datasets/me/photos/tree"):
            self._answer(self._entries(path.name for path in self.folder.glob("*.tar")))
        elif path.startswith("/api/datasets/me/photos"):
            self._answer({"id": "me/photos", "sha": "c" * 40, "siblings": []})
        elif path.startswith("/datasets/me/photos/resolve/main/"):
            self._send_range(self.folder / path.rpartition("/")[2])
        else:
            self._refuse(404, "RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._answer(self._entries(name for name in wanted if (self.folder / name).is_file()))

    def _entries(self, names: Iterator[str]) -> list[dict[str, Any]]:
        sizes = [(name, (self.folder / name).stat().st_size) for name in sorted(names)]
        return [{"type": "file", "path": n, "size": size, "oid": "0"} for n, size in sizes]

    def _send_range(self, path: Path) -> None:
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        if type(self).refusals:
            type(self).refusals -= 1
            self._refuse(500, "")
            return
        data = path.read_bytes()
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(wanted[1]), int(wanted[2]) + 1) if wanted else (0, len(data))
        self._answer(data[start:stop], 206 if wanted else 200)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, content: Any, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"0"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from fsspec.config import conf

    for number in range(2):
        write_samples(tmp_path / f"{number}.tar", range(number * 100, number * 100 + EACH))
    Hub.folder, Hub.refusals = tmp_path, 0
    monkeypatch.setattr(patience, "_FIRST_DELAY_S", 0.0)
    monkeypatch.setattr(over_fsspec, "_BLOCK", 20_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setitem(conf, "hf", {"endpoint": endpoint, "token": False})
    over_fsspec._system.cache_clear()
    yield Hub
    over_fsspec._system.cache_clear()
    server.shutdown()
    server.server_close()


ALL = [image(number) for number in (*range(EACH), *range(100, 100 + EACH))]


@pytest.mark.parametrize("name", ["*.tar", "{0..1}.tar"])
def test_every_sample(name: str) -> None:
    samples = Stream(f"hf://datasets/me/photos/{name}", window=7).samples(0)
    assert sorted(sample.data for sample in samples) == sorted(ALL)


def test_faults(hub: type[Hub]) -> None:
    with pytest.raises(
        MillError, match=r"cannot read the shard hf://datasets/me/photos/9.tar: .*40"
    ):
        list(Stream("hf://datasets/me/photos/9.tar").samples(0))
    with pytest.raises(
        MillError, match=r"cannot read the shard hf://.*/0.tar: .*404.*check the URL"
    ):
        list(Stream("hf://datasets/me/nothing/0.tar").samples(0))
    hub.refusals = 2
    samples = list(Stream("hf://datasets/me/photos/0.tar", window=1).samples(0))
    assert [sample.data for sample in samples] == ALL[:EACH]
