"""Stores by any file system of fsspec's, and what is said where none is installed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from helpers_shards import image, write_samples

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.stream import opening, over_fsspec, patience
from patchmill.loaders.sources.stream.redact import redact
from patchmill.loaders.sources.stream.stream import Stream

EACH = 30

pytest.importorskip("webdataset")  # it writes the shards


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(patience, "_FIRST_DELAY_S", 0.0)
    monkeypatch.setattr(over_fsspec, "_BLOCK", 5000)
    system = fsspec.filesystem("memory")
    for number in range(2):
        path = write_samples(tmp_path / f"{number}.tar", range(number * 100, number * 100 + EACH))
        system.pipe_file(f"/photos/{number}.tar", path.read_bytes())
    yield system
    system.store.clear()


def read(url: str, **options: Any) -> list[bytes]:
    return [
        sample.data for sample in Stream(url, **{"window": 1, "retries": 2, **options}).samples(0)
    ]


ALL = [image(number) for number in (*range(EACH), *range(100, 100 + EACH))]


@pytest.mark.parametrize("block", [512, 5000, 30 * 2048, 8 << 20])
def test_blocks_make_up_a_shard(memory: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_fsspec, "_BLOCK", block)
    assert sorted(read("memory://photos/*.tar")) == sorted(ALL)


def test_a_resume_reads_no_earlier_block(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream("memory://photos/{0..1}.tar", window=4)
    whole = list(stream.samples(0))
    starts, cat_file = [], type(memory).cat_file

    def counted(self: Any, path: str, start: int, end: int) -> bytes:
        starts.append(start)
        return cat_file(self, path, start, end)

    monkeypatch.setattr(type(memory), "cat_file", counted)
    assert list(stream.samples(0, start=whole[20].after)) == whole[21:]
    assert starts[0] == 20 * 2048


def test_faults_that_pass(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [
        TimeoutError(),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        Answer(503),
        Answer(429),
    ]
    cat_file = type(memory).cat_file

    def failing(self: Any, path: str, start: int, end: int) -> bytes:
        if start and errors:
            raise errors.pop()
        return cat_file(self, path, start, end)

    monkeypatch.setattr(type(memory), "cat_file", failing)
    assert read("memory://photos/0.tar", retries=4) == ALL[:EACH]
    assert not errors


class Answer(Exception):
    """An error with a status, such as the libraries of stores raise."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


class DefaultCredentialsError(Exception):
    """An error with the name of one of google.auth."""


@pytest.mark.parametrize(
    ("error", "reason", "remedy", "retry"),
    [
        (FileNotFoundError("a/b"), "the store answers 404 Not Found (a/b)", "check the URL", False),
        (FileNotFoundError(2, "No such file or directory"), "404 Not Found", "URL", False),
        (Answer(404), "the store answers 404 Not Found", "check the URL", False),
        (Answer(403, "no"), "the store answers 403 Forbidden (no)", "check the cred", False),
        (Answer(500, "x\n y"), "answers 500 Internal Server Error (x y)", "network", True),
        (PermissionError("no"), "the store refuses access (no)", "check the cred", False),
        (DefaultCredentialsError("none"), "the store refuses access (none)", "check", False),
        (ConnectionRefusedError("no"), "the store cannot be read (no)", "network", True),
        (ValueError("what?"), "the store cannot be read (what?)", "credentials", False),
        (
            Answer(400, "at https://a:b@c/d?sig=e"),
            "400 Bad Request (at https://c/d?...",
            "URL",
            False,
        ),
    ],
)
def test_faults_of_stores(error: Exception, reason: str, remedy: str, retry: bool) -> None:
    fault = over_fsspec.fault_of(error, 1.0)
    assert reason in str(fault) and remedy in fault.remedy and fault.retry == retry


@pytest.mark.parametrize(
    ("url", "package"),
    [("s3://b/0.tar", "s3fs"), ("gs://b/0.tar", "gcsfs"), ("az://b/0.tar", "adlfs")],
)
def test_what_to_install(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_fsspec, "is_installed", lambda scheme: False)
    monkeypatch.setattr(opening.shutil, "which", lambda command: None)
    with pytest.raises(
        MillError, match=f"needs the package {package}: pip install fsspec {package}"
    ):
        Stream(url)
    monkeypatch.setattr(opening.shutil, "which", lambda command: "/bin/it")
    if package != "adlfs":
        with pytest.raises(MillError, match=f"is a pattern, which needs {package}: pip install"):
            Stream(url.replace("0", "*"))


def test_patterns_where_nothing_lists_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_fsspec, "is_installed", lambda scheme: False)
    with pytest.raises(MillError, match="is a pattern, and scp:// lists no files: write a range"):
        Stream("scp://host/train-*.tar")


def test_patterns_of_files(tmp_path: Path) -> None:
    for number in range(2):
        write_samples(tmp_path / f"{number}.tar", range(number * 100, number * 100 + EACH))
    for url in (f"file://{tmp_path}/*.tar", f"file://{tmp_path}/"):
        assert sorted(read(url)) == sorted(ALL)
    with pytest.raises(MillError, match=r"no shard matches file:.*/x\*.tar: check the pattern"):
        Stream(f"file://{tmp_path}/x*.tar")
    with pytest.raises(MillError, match="the list of shards is empty"):
        Stream([])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a.tar", "https://host/a.tar"),
        ("https://me:secret@host/a.tar", "https://host/a.tar"),
        ("https://me:se/cret@host/a.tar", None),
        ("https://me:p@secret@host:1/a.tar", "https://host:1/a.tar"),
        ("https://host/a.tar?X-Amz-Signature=secret&y=secret", "https://host/a.tar?..."),
        ("https://host/get?file=a/0.tar&token=secret", "https://host/get?file=a/0.tar&..."),
        ("abfs://box@account.host/a.tar", "abfs://box@account.host/a.tar"),
        ("pipe:curl -u me:secret http://h/a.tar", "pipe:curl -u ... http://h/a.tar"),
        ("pipe:curl --user=me:secret http://h/a", "pipe:curl --user=... http://h/a"),
        ("pipe:curl -H 'Authorization: Bearer secret' h", "pipe:curl -H 'Authorization: ...' h"),
        ("pipe:TOKEN=secret get a.tar", "pipe:TOKEN=... get a.tar"),
        ("pipe:curl 'http://h/a?sig=secret' | cat", "pipe:curl 'http://h/a?...' | cat"),
        ("(of https://h/b?c=secret)x)", "(of https://h/b?...)"),
        ("could not reach 'http://a:secret@h/b?c=secret'", "could not reach 'http://h/b?...'"),
        ("pipe:cat a.tar | zstd -dc", "pipe:cat a.tar | zstd -dc"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str | None) -> None:
    assert shown is None or redact(text) == shown
    assert shown is None or "secret" not in redact(text)
