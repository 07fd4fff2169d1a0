"""Streamed shards: who reads what, in which order, and where a broken or resumed stream goes on."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from helpers_shards import image, write_samples, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import read_ahead
from patchmill.loaders.sources import open_data
from patchmill.loaders.sources.stream import over_fsspec, patience
from patchmill.loaders.sources.stream import stream as stream_module
from patchmill.loaders.sources.stream.stream import Stream, StreamPosition

SHARDS, EACH = 5, 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 9 samples each, but for an empty one and one with 4."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        count = {2: 0, 3: 4}.get(number, EACH)
        numbers = range(number * 100, number * 100 + count)
        write_samples(folder / f"{number}.tar", numbers, **{"mask.png": b"mask", "txt": b"words"})
    return folder


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_DELAY_S", 0.0)
    monkeypatch.setenv("PATCHMILL_STREAM_RETRIES", "3")


def stream(folder: Path, kind: str = "file", **options: int) -> Stream:
    range_ = f"{{0..{SHARDS - 1}}}.tar"
    urls = {"file": f"file://{folder}/{range_}", "pipe": f"pipe:cat {folder}/{range_}"}
    return Stream(urls[kind], **options)


def ids(samples: object) -> list[int]:
    return [sample.id for sample in samples]  # type: ignore[attr-defined]


EVERYTHING = sorted(
    shard << 32 | i for shard, count in enumerate([9, 9, 0, 4, 9]) for i in range(count)
)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_all_samples_with_all_their_parts(folder: Path, kind: str) -> None:
    found = list(stream(folder, kind, window=4).samples(0))
    assert sorted(ids(found)) == EVERYTHING
    for sample in found:
        number = sample.shard * 100 + (sample.id & 0xFFFFFFFF)
        assert sample.data == image(number) and sample.mask == b"mask"
        assert sample.label == number % 10 and sample.id >> 32 == sample.shard
        with open(folder / f"{sample.shard}.tar", "rb") as file:
            file.seek(sample.offset)
            assert file.read(13) == b"photos/%06d" % number


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_every_epoch(folder: Path, world_size: int) -> None:
    for epoch in range(3):
        shares = [
            ids(stream(folder).samples(epoch, rank, world_size)) for rank in range(world_size)
        ]
        assert sorted(itertools.chain(*shares)) == EVERYTHING


def test_the_order_follows_from_seed_and_epoch(folder: Path) -> None:
    orders = [
        tuple(ids(stream(folder, seed=seed, window=6).samples(epoch)))
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]
    ]
    assert orders[0] == orders[3] and len(set(orders)) == 3
    assert len({tuple(stream(folder).shards(epoch, 0, 1).tolist()) for epoch in range(20)}) > 5


def test_windows_are_shuffled_one_by_one(folder: Path) -> None:
    plain = ids(stream(folder, window=1).samples(0))
    shuffled = ids(stream(folder, window=8).samples(0))
    for start in range(0, len(plain), 8):
        assert shuffled[start : start + 8] != plain[start : start + 8]
        assert sorted(shuffled[start : start + 8]) == sorted(plain[start : start + 8])


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    window=st.integers(1, 50),
    world_size=st.integers(1, 3),
    consumed=st.integers(0, 31),
    kind=st.sampled_from(["file", "file", "file", "pipe"]),
)
def test_a_stream_resumes_after_any_sample(
    folder: Path, window: int, world_size: int, consumed: int, kind: str
) -> None:
    source = stream(folder, kind, window=window)
    whole = list(source.samples(3, 0, world_size))
    consumed = min(consumed, len(whole))
    mark = whole[consumed - 1].after if consumed else StreamPosition()
    rest = list(source.samples(3, 0, world_size, mark))
    assert rest == whole[consumed:]


def test_a_resume_rereads_one_window_at_most(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stream(folder, window=6)
    whole = list(source.samples(0))
    read, pieces = stream_module.read_shard, []

    def counted(*where: object) -> Generator[object]:
        for piece in read(*where):  # type: ignore[arg-type]
            pieces.append(piece)
            yield piece

    monkeypatch.setattr(stream_module, "read_shard", counted)
    list(source.samples(0, start=whole[27].after))
    assert len(pieces) == 31 - 24


# ------------------------------------------------------------------------------------ bad input


def test_reading_resumes_after_failures(folder: Path, tmp_path: Path) -> None:
    """The first attempt breaks off in the middle of a sample, the second at once."""
    shard, flag = folder / "0.tar", tmp_path / "attempts"
    command = (
        f"echo >> {flag}; case $(wc -l < {flag}) in "
        f"1) head -c 9000 {shard};; 2) exit 3;; *) cat {shard};; esac"
    )
    found = list(Stream(f"pipe:{command}", window=2).samples(0))
    assert sorted(ids(found)) == list(range(EACH))
    assert {sample.data for sample in found} == {image(i) for i in range(EACH)}
    assert len(flag.read_text()) == 3


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (
            "pipe:exit 7",
            r"cannot read the shard pipe:exit 7: the command fails \(exit 7\), .* 3",
        ),
        ("pipe:echo why not >&2; false", r"fails \(exit 1\): why not, even after 3 retries; check"),
        ("pipe:nonsense", r"the command fails \(exit 127\): .*nonsense.*not found; check the comm"),
        ("pipe:cat /nowhere/x.tar", r"No such file or directory; check the command"),
        ("pipe:echo 'An error occurred (NoSuchKey)' >&2; false", r"\(NoSuchKey\); check the comm"),
        ("pipe:echo 'curl: (22) returned error: 404' >&2; false", r"error: 404; check the command"),
        ("pipe:cat {0}; exit 7", r"cannot read the shard .*exit 7"),
        ("pipe:head -c 5000 {0}", r"it is truncated: .* after 3 retries"),
        ("pipe:true", r"it is empty, even after 3 retries"),
        ("file:///nowhere/x.tar", r"cannot be opened or read \(No such file"),
        ("pipe:gzip -c {0}", r"compressed with gzip: decompress it .* or stream it as 'pipe:gzip"),
        ("pipe:cat {0} | tr '\\0' '\\1'", r"the shard .* is not a tar"),
        ("gopher://example.org/x.tar", r"cannot be streamed from 'gopher:.* one of .*https"),
    ],
)
def test_one_sentence(folder: Path, url: str, complaint: str) -> None:
    with pytest.raises(MillError, match=complaint) as caught:
        list(Stream([url.replace("{0}", str(folder / "0.tar"))]).samples(0))
    assert "\n" not in str(caught.value)


def test_decompressed_by_a_command(folder: Path) -> None:
    found = Stream(f"pipe:gzip -c {folder}/0.tar | gzip -dc").samples(0)
    assert len(list(found)) == EACH


def test_members_that_make_no_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [("a.cls", b"1"), ("b.jpg", b"b"), ("c.json", b"{}"), ("d.jpg", b"d"), ("d.txt", b"")]
    path = write_tar(tmp_path / "x.tar", files)
    with caplog.at_level(logging.WARNING, "patchmill"):
        found = list(Stream(f"file://{path}", window=1).samples(0))
    assert [(s.id, s.data, s.label) for s in found] == [(0, b"b", None), (1, b"d", None)]
    assert "2 samples without an image are skipped" in caplog.text
    write_tar(path, [("a.jpg", b"x"), ("a.cls", b"cat")])
    with pytest.raises(MillError, match=r"'a.cls' .* is not an integer"):
        list(Stream(f"file://{path}").samples(0))
    write_tar(path, [("a.jpg", b"x"), ("a.jpg", b"y")])
    with pytest.raises(MillError, match=r"'a.jpg' .* occurs twice"):
        list(Stream(f"file://{path}").samples(0))


def test_more_ranks_than_shards(folder: Path) -> None:
    with pytest.raises(MillError, match="5 streamed shards cannot be distributed to 6 ranks"):
        next(stream(folder).samples(0, 0, 6))


def test_s3_goes_through_the_aws_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "aws"
    fake.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3 $4" = "s3 cp s3://my bucket/0.tar -" ] && cat {folder}/0.tar'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(over_fsspec, "is_installed", lambda scheme: False)
    assert len(list(Stream("s3://my bucket/0.tar").samples(0))) == EACH


# ---------------------------------------------------------------------------------- read ahead


def test_reads_ahead_so_far_and_no_further() -> None:
    given: list[int] = []

    def endless() -> Generator[int]:
        for number in itertools.count():
            given.append(number)
            yield number

    items = read_ahead(endless(), 3)
    assert next(items) == 0
    _wait_for(lambda: len(given) == 5)  # one used, three waiting, one in hand
    time.sleep(0.05)
    assert len(given) == 5
    items.close()  # type: ignore[attr-defined]
    assert not _threads()


def test_leaving_a_stream_ends_its_thread_and_its_command(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    samples = Stream(f"pipe:cat {folder}/0.tar; exec sleep 0.1", window=2).samples(0)
    next(samples)
    samples.close()  # type: ignore[attr-defined]
    _wait_for(lambda: not _threads() and len(os.listdir("/proc/self/fd")) == before)
    assert not _threads()
    assert len(os.listdir("/proc/self/fd")) == before


def test_errors_come_where_they_belong() -> None:
    def failing() -> Generator[int]:
        yield 1
        raise MillError("the second cannot be had")

    items = read_ahead(failing(), 10)
    assert next(items) == 1
    with pytest.raises(MillError, match="second"):
        next(items)


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "patchmill-ahead"]


def _wait_for(condition: object) -> None:
    for _ in range(500):
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def test_a_stream_that_is_open_is_taken_as_it_is(folder: Path) -> None:
    """Training opens its data once, and gives them to the loader."""
    opened = open_data(f"file://{folder}/{{0..1}}.tar")
    assert open_data(opened) is opened
