"""The ledger's file: complete after any number of bad samples, whatever happens to it."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from patchmill.loaders import ledger as ledgers
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.training.watch import run_files

ACCOUNT = Path("/proc/self/io")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ledger-rank0.jsonl"


def fill(ledger: Ledger, ids: range) -> None:
    ledger.limit = 1 << 30
    for id in ids:
        ledger.record(id, f"photos/{id}.jpg", "not an image of a known type")


def listed(path: Path) -> list[int]:
    """Ids in the file, as the live page reads it."""
    return [entry["id"] for entry in run_files.ledger(path.parent)]


@pytest.mark.skipif(not ACCOUNT.exists(), reason="Linux counts what a process writes")
def test_a_bad_sample_costs_its_own_line_however_many_there_are(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "patchmill")  # its lines would count, too
    before, ledger = written(), Ledger(path, 1)
    fill(ledger, range(400))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == list(range(400))
    assert written() - before < 2 * path.stat().st_size


def written() -> int:
    """Bytes that this process has passed to write."""
    return int(ACCOUNT.read_text().split("wchar:")[1].split()[0])


def test_the_first_bad_sample_of_a_run_replaces_the_list_of_an_earlier_one(path: Path) -> None:
    fill(Ledger(path, 1), range(5))
    ledger = Ledger(path, 1)
    assert listed(path) == [0, 1, 2, 3, 4]
    fill(ledger, range(7, 9))
    assert listed(path) == [7, 8]
    assert os.listdir(path.parent) == [path.name]


def test_a_truncated_line_spoils_no_other(path: Path) -> None:
    ledger = Ledger(path, 1)
    fill(ledger, range(2))
    with path.open("a") as file:
        file.write('{"id": 77, "where": "photos/7')
    fill(ledger, range(2, 4))
    assert listed(path) == [0, 1, 2, 3]


def test_a_disk_that_is_briefly_full_loses_no_bad_sample(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes) -> int:
        os.pwrite(file, data[: len(data) // 2], 0)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ledger = Ledger(path, 1)
    fill(ledger, range(2))
    with monkeypatch.context() as patch:
        patch.setattr(ledgers.os, "write", full)
        with pytest.raises(
            MillError, match=r"cannot write the ledger of .* free some space or pass"
        ):
            fill(ledger, range(2, 3))
    fill(ledger, range(3, 5))
    assert listed(path) == [0, 1, 2, 3, 4]


def test_a_ledger_that_was_removed_is_written_again(path: Path) -> None:
    ledger = Ledger(path, 1)
    fill(ledger, range(3))
    path.unlink()
    path.parent.rmdir()
    fill(ledger, range(3, 4))
    assert listed(path) == [0, 1, 2, 3]


def test_loaders_that_share_a_path_list_the_bad_samples_of_all(path: Path) -> None:
    first, second = Ledger(path, 1), Ledger(path, 1)
    for start in range(0, 40, 2):
        fill(first, range(start, start + 1))
        fill(second, range(start + 1, start + 2))
    assert sorted(listed(path)) == list(range(40))
    assert len(path.read_text().splitlines()) == 40


def test_the_file_is_closed_with_the_ledger(path: Path) -> None:
    ledger = Ledger(path, 1)
    fill(ledger, range(2))
    file = ledger._file
    assert os.path.samestat(os.fstat(file), path.stat())
    del ledger
    with pytest.raises(OSError):
        os.fstat(file)
