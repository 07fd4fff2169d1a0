"""Shards from an S3-compatible server on loopback: patterns, faults, cuts, credentials."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest
from helpers_s3 import ENVIRONMENT, Store, serve_s3
from helpers_shards import image, write_samples

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.stream import opening, over_fsspec, patience
from patchmill.loaders.sources.stream.stream import Stream

EACH = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        write_samples(folder / f"{number}.tar", range(number * 100, number * 100 + EACH))
    (folder / "readme.txt").write_text("not a shard")
    with serve_s3() as server:
        server.put("photos", folder)
        yield server


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(patience, "_FIRST_DELAY_S", 0.0)
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    over_fsspec._system.cache_clear()
    yield server
    server.check_credentials(False)
    server.relay.cuts.clear()
    over_fsspec._system.cache_clear()


def read(urls: str | list[str], timeout_s: float = 20) -> list[int]:
    samples = list(Stream(urls, window=1, timeout_s=timeout_s, retries=2).samples(0))
    numbers = [sample.shard * 100 + (sample.id & 0xFFFFFFFF) for sample in samples]
    assert [sample.data for sample in samples] == [image(number) for number in numbers]
    return numbers


ALL = [shard * 100 + i for shard in range(3) for i in range(EACH)]


@pytest.mark.parametrize(
    "urls",
    [
        "s3://photos/{0..2}.tar",
        "s3://photos/*.tar",
        "s3://photos/",
        ["s3://photos/0.tar", "s3://photos/[12].tar"],
    ],
)
def test_every_way_to_name_shards(store: Store, urls: str | list[str]) -> None:
    assert sorted(read(urls)) == ALL


def test_a_shard_goes_on_after_cuts(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(over_fsspec, "_BLOCK", 10_000)
    # 9 requests for blocks and one for the length, of which the third is cut, and what follows.
    store.relay.cuts[:] = [1 << 30, 1 << 30, 5000, 100, 0, 1 << 30]
    with caplog.at_level(logging.WARNING, "patchmill"):
        assert read("s3://photos/0.tar") == ALL[:EACH]
    assert "the shard s3://photos/0.tar: " in caplog.text and "retrying from byte" in caplog.text


def test_a_shard_goes_on_after_stalls(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.relay.cuts[:] = [-20_000]
    with caplog.at_level(logging.WARNING, "patchmill"):
        assert read("s3://photos/0.tar", timeout_s=2) == ALL[:EACH]
    assert "has not sent the next 8 MiB within 2 s; retrying from byte 0" in caplog.text


def test_leaving_ends_a_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_fsspec, "_BLOCK", 10_000)
    store.relay.cuts[:] = [-16_000] * 9
    over_fsspec._system.cache_clear()
    samples = Stream("s3://photos/0.tar", window=2, timeout_s=60).samples(0)
    next(samples)
    samples.close()  # type: ignore[attr-defined]
    for _ in range(1000):
        if "patchmill-ahead" not in [thread.name for thread in threading.enumerate()]:
            return
        time.sleep(0.01)
    raise AssertionError("a thread still waits")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "s3://photos/9.tar",
            r"answers 404 Not Found \(.*key does not exist.*\); check",
        ),
        (
            "s3://nowhere/0.tar",
            r"answers 404 Not Found \(.*bucket does not exist.*\); check",
        ),
    ],
)
def test_what_is_missing(store: Store, url: str, sentence: str) -> None:
    with pytest.raises(MillError, match=sentence) as caught:
        read(url)
    assert str(caught.value).startswith(f"cannot read the shard {url}: ")
    assert "retries" not in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_credentials(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.check_credentials(True)
    with pytest.raises(MillError, match=r"403 Forbidden \(.*\); check the credentials") as caught:
        read("s3://photos/0.tar")
    assert "sesame" not in str(caught.value) and "retries" not in str(caught.value)
    with pytest.raises(MillError, match=r"cannot list s3://photos/\*.tar: .*403 Forbidden"):
        read("s3://photos/*.tar")


def test_no_credentials(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(MillError, match=r"refuses access \(Unable to locate cred.*check the cred"):
        read("s3://photos/0.tar")


def test_no_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(MillError, match=r"read \(.*127.0.0.1:9.*\), even after 2 retries"):
        read("s3://photos/0.tar")


def test_patterns_that_match_nothing(store: Store) -> None:
    with pytest.raises(MillError, match=r"no shard matches s3://photos/train-\*.tar: check"):
        read("s3://photos/train-*.tar")


def test_the_log_says_once_what_reads(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    opening._say_once.cache_clear()
    with caplog.at_level(logging.INFO, "patchmill"):
        for _ in range(2):
            Stream("s3://photos/{0..2}.tar")
    assert caplog.messages == ["s3:// is read by fsspec with s3fs"]
