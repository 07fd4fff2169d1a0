"""hf:// paths, against a server on loopback that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from helpers_parquet import noise, write_images

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.parquet import hub

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

COMMIT = "c" * 40

# Opens each of its arguments; a line of JSON for each.
OPEN = """
import json, sys
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source

for url in sys.argv[1:]:
    try:
        source = open_source(url)
        print(json.dumps([len(source), source.classes, source.name, source.read(4).hex()]))
    except MillError as error:
        print(json.dumps(str(error)))
"""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that fetching a public data set needs."""

    files: dict[str, bytes]
    fetched: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/datasets/someone/photos/tree"):
            self._answer_json([
                {"type": "file", "path": name, "size": len(data), "oid": _hash(data)}
                for name, data in self.files.items()
            ])  # fmt: skip
        elif path.startswith("/api/datasets/someone/photos"):
            siblings = [{"rfilename": name} for name in self.files]
            self._answer_json({"id": "someone/photos", "sha": COMMIT, "siblings": siblings})
        elif path.startswith("/datasets/someone/photos/resolve/"):
            name = path.split("/", 6)[6]
            if self.command == "GET":
                self.fetched.append(name)
            self._answer(self.files[name], "application/octet-stream")
        else:
            status = 401 if "closed" in path else 404
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("X-Error-Code", "GatedRepo" if status == 401 else "RepoNotFound")
            self.end_headers()

    def _answer_json(self, content: Any) -> None:
        self._answer(json.dumps(content).encode(), "application/json")

    def _answer(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{_hash(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _hash(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    Hub.files, Hub.fetched = {"README.md": b"# Photos"}, []
    for split, shards in (("train", 2), ("test", 1)):
        for shard in range(shards):
            name = f"data/{split}-{shard:05d}-of-{shards:05d}.parquet"
            images = noise(5, 500, seed=shard + 7 * (split == "test"))
            path = write_images(tmp_path / name, images, [0, 1, 0, 1, 0], ["cat", "dog"])
            Hub.files[name] = path.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def open_urls(server: ThreadingHTTPServer | None, folder: Path, *urls: str) -> list[Any]:
    port = server.server_address[1] if server else 9
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if server is None:
        environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, "-c", OPEN, *urls]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_data_sets_of_the_hub(server: ThreadingHTTPServer, tmp_path: Path):
    url = "hf://datasets/someone/photos"
    urls = (
        f"{url}/data/train-*.parquet",
        f"{url}/data/test-00000-of-00001.parquet",
        url,
        f"{url}/nothing",
        "hf://datasets/someone/missing",
        "hf://datasets/someone/closed",
    )
    train, test, mixed, nothing, missing, closed = open_urls(server, tmp_path, *urls)
    assert train == [10, ["cat", "dog"], urls[0], noise(5, 500)[4].hex()]
    assert test[0] == 5
    assert "several sets of images (data/test-*.parquet, data/train-*.parquet)" in mixed
    assert f"as in {url}/data/train-*.parquet" in mixed
    assert "no file" in nothing and "data/train-*.parquet" in nothing
    assert missing.startswith("hf://datasets/someone/missing") and "\n" not in missing
    assert "closed is not open to you" in closed and "\n" not in closed
    assert sorted(set(Hub.fetched)) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
    ]
    Hub.fetched.clear()
    assert open_urls(server, tmp_path, urls[0]) == [train] and not Hub.fetched
    assert open_urls(None, tmp_path, urls[0]) == [train]
    (refused,) = open_urls(None, tmp_path, "hf://datasets/someone/other")
    assert refused.startswith("cannot fetch hf://datasets/someone/other") and "\n" not in refused


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("hf://datasets/a/b", ("a/b", None, "")),
        ("hf://datasets/a/b-c.d/data/", ("a/b-c.d", None, "data")),
        ("hf://datasets/a/b@v1/x-*.parquet", ("a/b", "v1", "x-*.parquet")),
        ("hf://datasets/a/b@refs%2Fconvert%2Fparquet", ("a/b", "refs/convert/parquet", "")),
    ],
)
def test_paths(url: str, parts: tuple[str, str | None, str]):
    assert hub.parse(url) == parts


@pytest.mark.parametrize("url", ["hf://a/b", "hf://datasets/a", "hf://datasets/"])
def test_paths_that_are_none(url: str):
    with pytest.raises(MillError, match="write hf://datasets/OWNER/NAME"):
        hub.parse(url)
