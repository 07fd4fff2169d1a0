"""Checkpoints are complete or absent; read and write errors are one sentence."""

from __future__ import annotations

import errno
import os
import signal
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import helpers_ranks
import pytest
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import checkpoint, checkpoint_file
from patchmill.training.runtime.checkpoint import Writer


def state(step: int, size: int = 1000) -> dict:
    method = {"w": torch.full((size,), step)}
    return {"version": checkpoint.VERSION, "step": step, "epoch": step / 10, "method": method}


def newest(folder: Path) -> Path | None:
    found = checkpoint.load_newest(folder)
    return found.path if found else None


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
    assert newest(tmp_path) == checkpoint.path_at(tmp_path, 20)


def test_a_thread_that_cannot_be_started_leaves_the_writer_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_memory(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = Writer(tmp_path, keep=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_memory)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            writer.save(state(5))
    writer.wait()
    writer.save(state(6))
    writer.wait()
    assert newest(tmp_path) == checkpoint.path_at(tmp_path, 6)


def test_no_checkpoint_to_resume_from(tmp_path: Path):
    assert newest(tmp_path) is None
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
def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(folder, damage, caplog):
    last = checkpoint.path_at(folder, 3)
    damage(last)
    assert newest(folder) == checkpoint.path_at(folder, 2)
    assert f"{last} is damaged" in caplog.text
    assert f": resuming from {checkpoint.path_at(folder, 2)}" in caplog.text
    with pytest.raises(MillError, match=r"step-00000003.pt is damaged.*: use another"):
        checkpoint.load(last)


def damaged_copies(data: bytes) -> Iterator[bytes]:
    """The file with each byte of its last part, the zip's directory, changed; and cut off there."""
    for place in range(len(data) - 700, len(data), 9):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        yield bytes(changed)
    for place in range(len(data) - 700, len(data), 70):
        yield data[:place]


@pytest.mark.parametrize("summed", [True, False], ids=["summed", "as before"])
def test_damage_anywhere_is_found_and_the_previous_checkpoint_is_used(summed, folder, caplog):
    """Older checkpoints have no checksum of their own: damage without effect may pass."""
    last, before = checkpoint.path_at(folder, 3), checkpoint.path_at(folder, 2)
    if not summed:
        torch.save(state(3), last)
    passed = 0
    for data in damaged_copies(last.read_bytes()):
        last.write_bytes(data)
        caplog.clear()
        found = checkpoint.load_newest(folder)
        assert found is not None
        if found.path == last:
            passed += 1
            assert torch.equal(found.saved["method"]["w"], state(3)["method"]["w"])
            continue
        assert found.path == before and f": resuming from {before}" in caplog.text
        with pytest.raises(MillError) as caught:
            checkpoint.load(last)
        for text in (caplog.text, str(caught.value)):
            assert "\n" not in text.strip() and "weights_only" not in text
    # A changed mark of the checksum leaves a checkpoint of before, which is whole.
    assert passed <= (3 if summed else 80)


def test_a_tensor_that_is_marked_as_a_folder_is_damage(folder):
    """torch reads none of such a member's bytes, and returns uninitialised memory."""
    last = checkpoint.path_at(folder, 3)
    torch.save(state(3), last)
    data = bytearray(last.read_bytes())
    name = data.rindex(b"/data/0")  # in the archive's directory
    data[data.rindex(b"PK\x01\x02", 0, name) + 38] |= 0x10  # its attribute as MS-DOS knows it
    last.write_bytes(data)
    assert newest(folder) == checkpoint.path_at(folder, 2)


def test_a_checkpoint_is_an_archive_that_any_torch_reads(folder):
    path = checkpoint.path_at(folder, 3)
    assert torch.load(path, weights_only=True)["step"] == 3
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and archive.comment.startswith(b"patchmill crc32 ")


def test_checkpoints_that_are_not_regular_files(folder, caplog):
    """A pipe would keep the reader waiting."""
    os.mkfifo(checkpoint.path_at(folder, 4))
    checkpoint.path_at(folder, 5).mkdir()
    assert newest(folder) == checkpoint.path_at(folder, 3)
    assert "(it is a folder, not a file)" in caplog.text
    assert "(it is a pipe, not a file)" in caplog.text


@pytest.mark.parametrize(
    "content", [[1], {"version": 1}, state(4) | {"method": {"w": 1}}, state(4) | {"step": "4"}]
)
def test_contents_of_a_wrong_type(content, folder, caplog):
    with open(checkpoint.path_at(folder, 4), "wb") as file:
        checkpoint_file.write(content, file)
    assert newest(folder) == checkpoint.path_at(folder, 3)
    assert "step-00000004.pt is not a checkpoint" in caplog.text


def test_a_run_with_only_damaged_checkpoints_does_not_start_over(folder):
    for path in checkpoint.find_all(folder):
        cut(path)
    with pytest.raises(MillError, match=r"no checkpoint in .* can be read.*to start from scratch"):
        newest(folder)


def test_no_code_is_loaded(tmp_path: Path):
    path = tmp_path / "bad.pt"
    torch.save({"version": checkpoint.VERSION, "step": Path("/")}, path)
    with pytest.raises(MillError, match=r"bad.pt is not a checkpoint .it holds objects") as caught:
        checkpoint.load(path)
    assert "weights_only" not in str(caught.value)  # torch's advice is to run that code
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
        with pytest.raises(MillError, match=r"cannot write .*04\.pt: the disk is full .*free some"):
            writer.wait()
    assert [path.name[-4:-3] for path in checkpoint.find_all(folder)] == ["1", "2", "3"]
    assert not list((folder / "checkpoints").glob(".*"))
    writer.check()  # it is said once
    writer.save(state(4))
    writer.wait()
    assert newest(folder) == checkpoint.path_at(folder, 4)


WRITES = """
from pathlib import Path
writer = checkpoint.Writer(Path({folder!r}), 3)
writer.save(dict(version=1, step=4, epoch=1, method=dict(w=torch.zeros(100_000))))
writer.wait()
"""


def test_a_disk_that_fills_while_it_is_written_to(folder: Path):
    """Set a real limit on file sizes, in a separate process."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    (ended,) = helpers_ranks.run(limit + WRITES.format(folder=str(folder)), folder, size=1)
    assert "MillError: cannot write checkpoint" in ended.err
    assert "to resume from step-00000003.pt" in ended.err
    assert newest(folder) == checkpoint.path_at(folder, 3)
    assert not list((folder / "checkpoints").glob(".*"))


def test_a_process_that_dies_while_it_writes_leaves_the_last_one(folder: Path):
    dies = "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
    (ended,) = helpers_ranks.run(dies + WRITES.format(folder=str(folder)), folder, size=1)
    assert ended.code == -signal.SIGKILL
    assert list((folder / "checkpoints").glob(".*.part"))
    assert newest(folder) == checkpoint.path_at(folder, 3)
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


def test_any_other_error_is_raised_by_the_next_call(folder):
    writer = Writer(folder, keep=3)
    writer.save({"step": 4, "method": {"w": lambda: 0}})
    with pytest.raises(Exception, match=r"(?i)pickle"):
        writer.wait()
    assert newest(folder) == checkpoint.path_at(folder, 3)


def test_leftovers_of_a_killed_run_are_removed_by_the_next_start(tmp_path: Path):
    for step in (5, 10, 15):
        path = checkpoint.path_at(tmp_path, step)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    Writer(tmp_path, keep=2, start=10)  # the newest could not be read: all are kept
    assert len(checkpoint.find_all(tmp_path)) == 3
    Writer(tmp_path, keep=2, start=15)
    assert [path.stem for path in checkpoint.find_all(tmp_path)] == [
        "step-00000010",
        "step-00000015",
    ]
