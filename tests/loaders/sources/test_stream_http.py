"""Shards from a web server on loopback that fails, stalls, cuts and redirects."""

from __future__ import annotations

import base64
import logging
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers_server import Fault, Server, serve
from helpers_shards import image, write_samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.stream import patience
from patchmill.loaders.sources.stream.stream import Stream

EACH = 30

pytest.importorskip("webdataset")  # it writes the shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        write_samples(folder / f"{number}.tar", range(number * 100, number * 100 + EACH))
    return folder


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(patience, "_FIRST_DELAY_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve(folder) as server:
        yield server


def read(url: str | list[str], **options: Any) -> list[int]:
    """The numbers of all images, in the order of a plain read."""
    options = {"window": 1, "timeout_s": 0.3, "retries": 2, **options}
    samples = list(Stream(url, **options).samples(0))
    numbers = [sample.shard * 100 + (sample.id & 0xFFFFFFFF) for sample in samples]
    assert [sample.data for sample in samples] == [image(number) for number in numbers]
    return numbers


ALL = list(range(EACH))
SIZE = 30 * 2048  # of a shard, without the zeros at the end


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(500)],
        [Fault(429), Fault(502)],
        [Fault(503, {"Retry-After": "0"})],
        [Fault(503, {"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}), Fault(cut=9000)],
        [Fault(silent=True)],
        [Fault(stall=0)],
        [Fault(stall=20000)],
        [Fault(cut=0)],
        [Fault(cut=100)],
        [Fault(cut=20000), Fault(cut=10000), Fault(500), Fault(cut=1), Fault(cut=9000)],
        [Fault(cut=20000, without_length=True)],
        [Fault(cut=20000), Fault(without_ranges=True)],
        [Fault(length_off_by=1000)],
    ],
)
def test_every_sample_once_and_in_order_whatever_happens(
    server: Server, faults: list[Fault]
) -> None:
    server.faults["/0.tar"] = list(faults)
    assert read(f"{server.url}/0.tar", retries=3) == ALL
    assert not server.faults["/0.tar"]


def test_a_cut_shard_goes_on_where_it_was_cut(
    server: Server, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = (folder / "0.tar").stat().st_size
    server.faults["/0.tar"] = [Fault(cut=size * 8 // 10)]
    with caplog.at_level(logging.WARNING, "patchmill"):
        assert read(f"{server.url}/0.tar") == ALL
    first, second = server.ranges
    assert first is None and second is not None
    assert size * 0.75 < int(second.removeprefix("bytes=").rstrip("-")) <= size * 0.8
    (line,) = caplog.messages
    assert "the connection ended after" in line and f"of {size:,} bytes; retrying from" in line


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, SIZE), max_size=4), window=st.integers(1, 50))
def test_cuts_change_no_order(server: Server, cuts: list[int], window: int) -> None:
    urls = [f"{server.url}/{{0..2}}.tar"]
    options: dict[str, Any] = {"window": window, "retries": 4, "seed": 7}
    server.faults.clear()
    whole = [sample.id for sample in Stream(urls, **options).samples(1)]
    server.faults["/1.tar"] = [Fault(cut=cut) for cut in cuts]
    assert [sample.id for sample in Stream(urls, **options).samples(1)] == whole


@pytest.mark.parametrize(
    ("faults", "sentence", "requests"),
    [
        (Fault(404), "the server answers 404 Not Found; check the URL", 1),
        (Fault(403), "the server answers 403 Forbidden; check the credentials, and if the", 1),
        (Fault(410), "the server answers 410 Gone; check the URL", 1),
        (Fault(501), "the server answers 501 Not Implemented; check the URL", 1),
        (Fault(500), "the server answers 500 Internal Server Error, even after 2 retries; ", 3),
        (Fault(stall=0), "the server has sent nothing for 0.3 s, even after 2 retries; ", 3),
        (Fault(cut=50), r"the connection ended after 50 of [\d,]+ bytes, even after 2 retries", 3),
        (Fault(length_off_by=-20001), r"it is truncated: it ends at byte [\d,]+ without", 1),
        (Fault(body=b""), "it is empty; check it", 1),
        (Fault(302, {"Location": "/0.tar"}), r"redirects \(302\) in a loop", None),
        (
            Fault(302, {"Location": "file:///etc/passwd"}),
            r"redirects \(302\) in a loop, or to",
            1,
        ),
        (Fault(204), r"answers 204 No Content; check the URL", 1),
    ],
)
def test_one_sentence_with_status_and_url(
    server: Server, faults: Fault, sentence: str, requests: int | None
) -> None:
    server.faults["/0.tar"] = [faults] * 20
    with pytest.raises(MillError, match=sentence) as caught:
        read(f"{server.url}/0.tar")
    assert str(caught.value).startswith(f"cannot read the shard {server.url}/0.tar: ")
    assert "\n" not in str(caught.value)
    assert requests in (None, len(server.requests))


def test_servers_that_are_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MillError, match="404 Not Found; check the URL"):
        read(f"{server.url}/9.tar")
    with pytest.raises(MillError, match=r"the connection fails \(Connection refused\), even after"):
        read("http://127.0.0.1:9/0.tar")
    with pytest.raises(MillError, match=r"cannot be resolved \(.*\); check the URL"):
        read("http://nowhere.invalid/0.tar")
    with pytest.raises(MillError, match=r"the URL cannot be used \(nonnumeric port"):
        read("http://127.0.0.1:x/0.tar")
    with pytest.raises(MillError, match=r"do not list files.* write a range"):
        read(f"{server.url}/*.tar")


def test_a_shard_that_is_replaced_is_not_spliced(server: Server, folder: Path) -> None:
    other = (folder / "1.tar").read_bytes()
    changed = {"Last-Modified": "Fri, 02 Jan 2026 00:00:00 GMT", "ETag": '"2"'}
    server.faults["/0.tar"] = [
        Fault(cut=20000, headers={"ETag": '"1"'}),
        Fault(body=other, headers=changed),
    ]
    with pytest.raises(MillError, match="it was replaced while it was read; start again"):
        read(f"{server.url}/0.tar")


def test_retry_after_is_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(patience.Halt, "sleep", lambda _, seconds: waits.append(seconds))
    server.faults["/0.tar"] = [
        Fault(503, {"Retry-After": "7"}),
        Fault(503, {"Retry-After": "86400"}),
        Fault(503, {"Retry-After": "soon"}),
    ]
    assert read(f"{server.url}/0.tar", retries=3) == ALL
    assert waits == [7.0, patience._LONGEST_DELAY_S, 0.0]


# ------------------------------------------------------------------------- redirects, credentials


def test_redirects_take_credentials_along_on_the_same_host_only(
    server: Server, folder: Path
) -> None:
    basic = "Basic " + base64.b64encode(b"me:pa ss").decode()
    with serve(folder) as other:
        for status in (301, 302, 303, 307, 308):
            server.requests.clear()
            elsewhere = f"{other.url}/0.tar?X-Amz-Signature=secret"
            server.faults["/a/0.tar"] = [Fault(status, {"Location": "/b/0.tar"})]
            server.faults["/b/0.tar"] = [Fault(status, {"Location": elsewhere})]
            assert read(f"http://me:pa%20ss@127.0.0.1:{server.port}/a/0.tar") == ALL
            assert [headers.get("Authorization") for _, headers in server.requests] == [basic] * 2
        assert [headers.get("Authorization") for _, headers in other.requests] == [None] * 5


def test_a_range_survives_a_redirect(server: Server) -> None:
    server.faults["/a/0.tar"] = [Fault(302, {"Location": "/0.tar"})] * 2
    server.faults["/0.tar"] = [Fault(cut=20000)]
    assert read(f"{server.url}/a/0.tar") == ALL
    assert server.ranges[0] is server.ranges[1] is None
    assert server.ranges[2] == server.ranges[3] != None  # noqa: E711


def test_credentials_are_not_printed(
    server: Server, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    url = f"http://me:sesame@127.0.0.1:{server.port}/0.tar?X-Amz-Signature=sesame&part=x"
    server.faults["/0.tar"] = [Fault(500), Fault(403)]
    stream = Stream(url, retries=3)
    with (
        caplog.at_level(logging.DEBUG, "patchmill"),
        pytest.raises(MillError, match="403 Forbidden") as caught,
    ):
        list(stream.samples(0))
    sample = next(iter(stream.samples(0)))
    shown = [str(caught.value), caplog.text, stream.name, stream.where(sample)]
    assert all(f"http://127.0.0.1:{server.port}/0.tar?..." in text for text in shown)
    assert not any("sesame" in text for text in shown)
    assert server.requests[0][0] == "/0.tar?X-Amz-Signature=sesame&part=x"
    renewed = Stream(url.replace("Signature=sesame", "Signature=other"))
    assert renewed.fingerprint == stream.fingerprint  # so that a run goes on when URLs are renewed


def test_a_proxy_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    assert read("http://data.invalid/0.tar") == ALL
    assert server.requests[0][0] == "http://data.invalid/0.tar"
    server.faults["/1.tar"] = [Fault(407)]
    with pytest.raises(MillError, match="407 Proxy Authentication Required; check the cred"):
        read("http://data.invalid/1.tar")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_tls(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://127.0.0.1:{server.port}/0.tar"
    with pytest.raises(MillError, match=r"certificate is not trusted .*; set SSL_CERT_FILE"):
        read(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.faults["/0.tar"] = [Fault(cut=20000), Fault(stall=10000)]
    assert read(url) == ALL


# ------------------------------------------------------------------------------------- settings


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Stream("file:///x.tar").patience == patience.Patience(30.0, 5)
    monkeypatch.setenv("PATCHMILL_STREAM_TIMEOUT", "2.5")
    monkeypatch.setenv("PATCHMILL_STREAM_RETRIES", "0")
    assert Stream("file:///x.tar").patience == patience.Patience(2.5, 0)
    assert Stream("file:///x.tar", timeout_s=9, retries=1).patience == patience.Patience(9, 1)
    for name, value in [("TIMEOUT", "soon"), ("TIMEOUT", "0"), ("RETRIES", "1.5")]:
        monkeypatch.setenv(f"PATCHMILL_STREAM_{name}", value)
        with pytest.raises(MillError, match=f"PATCHMILL_STREAM_{name}.* must be .*, not '?{value}"):
            Stream("file:///x.tar")
        monkeypatch.setenv(f"PATCHMILL_STREAM_{name}", "1")


@pytest.mark.parametrize(
    "second", [Fault(silent=True), Fault(stall=0), Fault(503, {"Retry-After": "60"})]
)
def test_leaving_ends_every_wait(server: Server, second: Fault) -> None:
    """Waits of a minute for an answer, for a byte and for the next attempt."""
    server.faults["/0.tar"] = [Fault(cut=20000), second]
    samples = Stream(f"{server.url}/0.tar", timeout_s=60, window=5).samples(0)
    next(samples)
    _wait_for(lambda: len(server.requests) == 2)
    samples.close()  # type: ignore[attr-defined]
    _wait_for(lambda: "patchmill-ahead" not in [thread.name for thread in threading.enumerate()])


@pytest.mark.parametrize("fault", [Fault(silent=True), Fault(503, {"Retry-After": "60"})])
def test_ctrl_c_ends_every_wait(server: Server, fault: Fault) -> None:
    server.faults["/0.tar"] = [fault] * 9
    script = (
        "from patchmill.loaders.common.errors import run_command\n"
        "from patchmill.loaders.sources.stream.stream import Stream\n"
        f"stream = Stream('{server.url}/0.tar', timeout_s=60, retries=50)\n"
        "run_command(lambda: list(stream.samples(0)))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: server.requests)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors


def _wait_for(condition: Callable[[], object]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")
