"""Checkpoints are complete or absent; read and write errors are one sentence."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import helpers_ranks
import pytest
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import checkpoint
from patchmill.training.runtime.checkpoint import Writer


def state(step: int, size: int = 1000) -> dict:
    return {"version": checkpoint.VERSION, "step": step, "method": {"w": torch.full((size,), step)}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = Writer(tmp_path, keep=3)
    for step in (1, 2, 3):
        writer.save(state(step))
    writer.wait()
    return tmp_path


def test_the_last_few_and_the_best_are_kept(tmp_path: Path):
    writer = Writer(tmp_path, keep=2)
    for step in (5, 10, 15, 20):
        writer.save(state(step))
        if step == 10:
            writer.mark_best(10)
    writer.wait()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.pt", "step-00000015.pt", "step-00000020.pt"]
    assert checkpoint.load(tmp_path / "checkpoints" / "best.pt")["step"] == 10
    assert checkpoint.newest(tmp_path) == checkpoint.path_at(tmp_path, 20)


def test_no_checkpoint_to_resume_from(tmp_path: Path):
    assert checkpoint.newest(tmp_path) is None
    with pytest.raises(MillError, match=r"there is no checkpoint .*x\.pt"):
        checkpoint.load(tmp_path / "x.pt")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip one bit of a weight, which torch.load does not notice."""
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((9,), 3).numpy().tobytes())] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(folder, damage, caplog):
    newest = checkpoint.path_at(folder, 3)
    damage(newest)
    assert checkpoint.newest(folder) == checkpoint.path_at(folder, 2)
    assert f"{newest} is damaged: going on from {checkpoint.path_at(folder, 2)}" in caplog.text
    with pytest.raises(MillError, match=r"step-00000003.pt is damaged, or not a checkpoint"):
        checkpoint.load(newest)


def test_a_run_with_only_damaged_checkpoints_does_not_start_over(folder):
    for path in checkpoint.find_all(folder):
        cut(path)
    with pytest.raises(MillError, match=r"no checkpoint in .* can be read.*to begin anew"):
        checkpoint.newest(folder)


def test_no_code_is_loaded(tmp_path: Path):
    path = tmp_path / "bad.pt"
    torch.save({"version": checkpoint.VERSION, "step": Path("/")}, path)
    with pytest.raises(MillError, match=r"cannot read .*bad.pt"):
        checkpoint.load(path)
    torch.save({"version": 99}, path)
    with pytest.raises(MillError, match=r"not a checkpoint of this version"):
        checkpoint.load(path)


def test_a_full_disk_is_an_error_and_keeps_older_checkpoints(folder, monkeypatch):
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = Writer(folder, keep=3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        writer.save(state(4))
        with pytest.raises(
            MillError, match=r"cannot write .*04\.pt \(No space left on device\): m"
        ):
            writer.wait()
    assert [path.name[-4:-3] for path in checkpoint.find_all(folder)] == ["1", "2", "3"]
    assert not list((folder / "checkpoints").glob(".*"))
    writer.check()  # it is said once
    writer.save(state(4))
    writer.wait()
    assert checkpoint.newest(folder) == checkpoint.path_at(folder, 4)


WRITES = """
from pathlib import Path
writer = checkpoint.Writer(Path({folder!r}), 3)
writer.save(dict(version=1, step=4, method=dict(w=torch.zeros(100_000))))
writer.wait()
"""


def test_a_disk_that_fills_while_it_is_written_to(folder: Path):
    """Set a real limit on file sizes, in a separate process."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    (ended,) = helpers_ranks.run(limit + WRITES.format(folder=str(folder)), folder, size=1)
    assert "MillError: cannot write checkpoint" in ended.err
    assert "it goes on from step-00000003.pt" in ended.err
    assert checkpoint.newest(folder) == checkpoint.path_at(folder, 3)
    assert not list((folder / "checkpoints").glob(".*"))


def test_a_process_that_dies_while_it_writes_leaves_the_last_one(folder: Path):
    dies = "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
    (ended,) = helpers_ranks.run(dies + WRITES.format(folder=str(folder)), folder, size=1)
    assert ended.code == -signal.SIGKILL
    assert list((folder / "checkpoints").glob(".*.part"))
    assert checkpoint.newest(folder) == checkpoint.path_at(folder, 3)
    Writer(folder, keep=3)
    assert not list((folder / "checkpoints").glob(".*.part"))


def test_disks_without_links_get_a_copy(folder, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    writer = Writer(folder, keep=1)
    writer.mark_best(2)
    writer.save(state(9))
    writer.wait()
    assert checkpoint.load(folder / "checkpoints" / "best.pt")["step"] == 2


def test_later_checkpoints_are_set_aside(folder: Path):
    checkpoint.set_aside(folder, 1)
    assert checkpoint.find_all(folder) == [checkpoint.path_at(folder, 1)]
    assert len(list((folder / "checkpoints").glob("*.aside"))) == 2
