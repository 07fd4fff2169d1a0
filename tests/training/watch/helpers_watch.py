"""A server in a thread, requests to it, and folders that a run writes bit by bit."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers_report

from patchmill.training.runtime.records import Recorder
from patchmill.training.watch import shelf
from patchmill.training.watch.routes import Site
from patchmill.training.watch.server import Server
from patchmill.training.watch.shelf import Shelf


@contextlib.contextmanager
def serving(what: Path | Site) -> Iterator[Server]:
    server = Server(what if isinstance(what, Site) else Site(Shelf(what)), 0, exact=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.stop()
        thread.join()


def impatient(monkeypatch: Any) -> None:
    """Look at files again at once."""
    monkeypatch.setattr(shelf, "LIST_EVERY", 0.0)
    monkeypatch.setattr(shelf, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(shelf, "REST", 0)


def ask(
    server: Server, path: str, method: str = "GET", key: bool = True, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; header names are written with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["Cookie"] = f"{server.cookie}={server.key}"
    connection.request(method, path, headers=sent)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


@contextlib.contextmanager
def stream(server: Server, *runs: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """Events as they come, as (kind, content)."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    query = "&".join(f"run={name}" for name in runs)
    cookie = {"Cookie": f"{server.cookie}={server.key}"}
    connection.request("GET", f"/events?{query}", headers=cookie)
    answer = connection.getresponse()
    assert answer.status == 200

    def events() -> Iterator[tuple[str, Any]]:
        kind = ""
        for line in iter(answer.readline, b""):
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value, parse_constant=refuse)

    try:
        yield events()
    finally:
        answer.close()
        connection.close()


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def until(events: Iterator[tuple[str, Any]], kind: str) -> Any:
    """The next event of that kind."""
    return next(content for name, content in events if name == kind)


def begin(folder: Path, method: str = "dilo", **status: Any) -> Recorder:
    """The folder of a run that has just begun, and its recorder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(helpers_report.CONFIG.format(method=method))
    fields = {"state": "running", "step": 0, "steps": 300, "epoch": 0, "time": 4e9, "restarts": 0}
    helpers_report.write(folder, status=fields | status)
    return Recorder(folder, {}, tensorboard=False)


def log(recorder: Recorder, steps: range) -> None:
    for step in steps:
        values = {"loss": 2 + 4 * math.exp(-step / 50), "lr": 0.03, "epoch": step / 30}
        recorder.scalars(step, values | {"images_per_s": 800.0, "wait": 0.02})


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        stat = path.lstat()
        found[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return found
