"""Requests to the page's server, by plain HTTP: who may ask for what."""

from __future__ import annotations

import os
import re
import socket
from contextlib import ExitStack
from importlib import resources
from pathlib import Path

import helpers_report
import pytest
from helpers_watch import ask, begin, impatient, serving, snapshot, stream, until

from patchmill.loaders.common.errors import MillError
from patchmill.training.watch import server as servers
from patchmill.training.watch.routes import Site
from patchmill.training.watch.server import HEADERS, Server
from patchmill.training.watch.shelf import Shelf


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    helpers_report.full(tmp_path / "runs" / "one")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "runs"


def test_the_key_opens_the_page_and_is_kept_as_a_cookie(runs: Path):
    with serving(runs) as server:
        status, headers, body = ask(server, f"/?key={server.key}", key=False)
        assert status == 200 and b"<!DOCTYPE html>" in body
        cookie = headers["Set-Cookie"]
        assert server.key in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert ask(server, "/")[0] == 200
        assert server.url == f"http://127.0.0.1:{server.port}/?key={server.key}"


@pytest.mark.parametrize("path", ["/", "/main.js", "/events", "/views?run=one", "/?key=wrong"])
def test_without_the_key_there_is_nothing(runs: Path, path: str):
    with serving(runs) as server:
        assert ask(server, path, key=False)[0] == 403
        assert ask(server, path, key=False, Cookie=f"{server.cookie}=wrong; a=b")[0] == 403
        assert ask(server, path, key=False, Cookie="\xff[]=;;")[0] == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421), ("evil.example:8421", 421), ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421), ("", 421), ("127.0.0.1:1:2", 421),
        ("localhost:9000", 200), ("127.0.0.1:1234", 200), ("[::1]:8421", 200), ("localhost", 200),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(runs: Path, host: str, status: int):
    with serving(runs) as server:
        assert ask(server, "/", Host=host)[0] == status


def test_pages_of_other_origins_get_nothing(runs: Path):
    with serving(runs) as server:
        path = "/picture?run=one&name=views.png"
        for site in ("cross-site", "same-site"):
            assert ask(server, path, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
        assert ask(server, path, Sec_Fetch_Site="same-origin")[0] == 200
        assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
def test_get_is_the_only_method(runs: Path, method: str):
    with serving(runs) as server:
        status, headers, _ = ask(server, "/", method)
        assert status == 405 and headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.png", "/%2e%2e/secret.png", "/..%2fsecret.png", "//etc/passwd",
        "/index.html/..",
        "/__init__.py", "/page/main.js", "/picture", "/picture?run=..&name=secret.png",
        "/picture?run=one&name=../../secret.png", "/picture?run=one&name=config.yaml",
        "/picture?run=one/..&name=views.png", "/picture?run=one&name=linked.png",
        "/picture?run=linked&name=views.png", "/picture?run=one&name=.hidden.png",
        "/picture?run=one&name=views.png%00", "/views?run=..", "/views?run=linked",
        "/thumbnail?run=../one&id=1",
    ],
)  # fmt: skip
def test_nothing_outside_a_run_and_no_link_is_served(runs: Path, path: str):
    (runs / "one" / "linked.png").symlink_to(runs.parent / "secret.png")
    (runs / "one" / ".hidden.png").write_bytes(b"half")
    (runs / "linked").symlink_to(runs / "one")
    with serving(runs) as server:
        status, _, body = ask(server, path)
        assert status == 404 and b"secret" not in body
        assert ask(server, "/picture?run=one&name=views.png")[0] == 200


def test_links_and_pipes_in_the_place_of_files_are_passed_over(runs: Path, monkeypatch):
    impatient(monkeypatch)
    folder = runs / "one"
    other = helpers_report.full(runs.parent / "other", "moco")
    for name in ("log.csv", "config.yaml", "evaluations.jsonl"):
        (folder / name).unlink()
        (folder / name).symlink_to(other / name)
    (folder / "status.json").unlink()
    os.mkfifo(folder / "status.json")
    os.mkfifo(folder / "pipe.png")
    with serving(runs) as server, stream(server, "one") as events:
        assert until(events, "runs")["runs"][0]["method"] is None
        details = until(events, "run")
        assert details["settings"] == {} and details["evaluations"] == []
        assert "pipe.png" not in dict(details["pictures"])


def test_every_answer_has_the_headers_and_the_page_names_no_other_origin(runs: Path):
    with serving(runs) as server:
        for path in ("/", "/main.js", "/none", "/picture?run=one&name=views.png"):
            headers = ask(server, path)[1]
            assert {name: headers[name] for name in HEADERS} == HEADERS
            assert "Access-Control-Allow-Origin" not in headers
    page = resources.files("patchmill.training.watch").joinpath("page")
    for file in page.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//cdn|@import|url\(|innerHTML|eval\(", text), file.name


def test_the_next_free_port_is_taken_and_a_chosen_one_is_not_another(runs: Path):
    with serving(runs) as first:
        second = Server(Site(Shelf(runs)), first.port)
        assert first.port < second.port <= first.port + servers.TRIES
        second.stop()
        with pytest.raises(MillError, match=f"port {first.port}: choose another, such as --port"):
            Server(Site(Shelf(runs)), first.port, exact=True)


def test_the_server_listens_on_loopback_alone(runs: Path):
    with serving(runs) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"


def test_many_pages_at_a_time_and_then_no_more(runs: Path, monkeypatch):
    impatient(monkeypatch)
    with serving(runs) as server, ExitStack() as stack:
        server.slots = type(server.slots)(24)
        for _ in range(24):
            events = stack.enter_context(stream(server, "one"))
            assert until(events, "log")["rows"] == helpers_report.STEPS
        assert ask(server, "/")[0] == 503
        stack.close()
        while ask(server, "/")[0] != 200:  # until the server has seen that pages are closed
            pass


@pytest.mark.parametrize(
    "sent", [b"", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n", b"GET /" + b"a" * 10**5 + b"\r\n\r\n"]
)
def test_broken_requests_hurt_nobody(runs: Path, sent: bytes):
    with serving(runs) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(sent)
        assert ask(server, "/")[0] == 200
        assert ask(server, "/events?" + "&".join(["run=a"] * 100))[0] == 400


def test_nothing_is_written_into_a_run(tmp_path: Path, monkeypatch):
    impatient(monkeypatch)
    recorder = begin(tmp_path / "run")
    recorder.scalars(1, {"loss": 1.0})
    before = snapshot(tmp_path)
    with serving(tmp_path) as server, stream(server, "run") as events:
        until(events, "log")
        ask(server, "/views?run=run&step=1")
        ask(server, "/thumbnail?run=run&id=1")
    assert snapshot(tmp_path) == before


def test_a_stream_ends_with_the_server(runs: Path):
    with serving(runs) as server, stream(server, "one") as events:
        until(events, "log")
        server.stop()
        assert all(kind in ("tick", "runs") for kind, _ in events)
