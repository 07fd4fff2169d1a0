"""Masks are the same file, whatever interrupts or shares the work and whatever is damaged."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import helpers_prepare as making
import pytest
from helpers_prepare_masks import COUNT, make, mask_photos

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import command, make_masks, mask_log
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.folder import Folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    return mask_photos(tmp_path / "src")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 5, 30])
def test_the_file_does_not_depend_on_threads_or_ranks(
    photos: Path, tmp_path: Path, workers: int, world_size: int
) -> None:
    make(photos, tmp_path / "alone.masks")
    (tmp_path / "shared").mkdir()
    out = tmp_path / "shared" / "some.masks"
    for rank in reversed(range(world_size)):
        assert not out.exists()
        result = make(photos, out, workers, rank=rank, world_size=world_size)
        assert result is not None and result.unfinished_ranks == list(range(rank))
    assert out.read_bytes() == (tmp_path / "alone.masks").read_bytes()
    assert os.listdir(out.parent) == [out.name]
    assert make(photos, out, rank=0, world_size=world_size) is None


def test_ranks_at_once(photos: Path, tmp_path: Path) -> None:
    make(photos, tmp_path / "alone.masks")
    (tmp_path / "shared").mkdir()
    out = tmp_path / "shared" / "some.masks"
    threads = [
        threading.Thread(target=make, args=(photos, out, 1), kwargs={"rank": i, "world_size": 4})
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert out.read_bytes() == (tmp_path / "alone.masks").read_bytes()
    assert os.listdir(out.parent) == [out.name]


# A child for each run, forked before there are threads; it counts down the calls that change the
# disk, and then kills itself in the middle of one.
RUNNER = """
import os, signal, sys
from pathlib import Path
from patchmill.loaders.prepare import make_masks, mask_log
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.saliency import estimate
from patchmill.loaders.sources import open_source
import numpy as np

estimate(np.zeros((40, 60, 3), np.uint8), "gs", 24)
source = open_source(sys.argv[1])
mask_log._WRITE_BYTES = 400

def counted(call, left, half):
    def wrapped(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            if half:
                call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped

def run(out, calls=None):
    child = os.fork()
    if child == 0:
        if calls is not None:
            left = [calls]
            for name in ("fsync", "replace", "write", "unlink", "ftruncate"):
                setattr(os, name, counted(getattr(os, name), left, name == "write"))
        make_masks.make(source, Path(out), MaskOptions("gs", 24), 2)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

calls, killed = 0, True
while killed:
    out = f"{sys.argv[2]}/{calls}/some.masks"
    os.mkdir(os.path.dirname(out))
    killed = run(out, calls)
    if killed:
        assert not run(out)
    print(calls, flush=True)
    calls += 1
"""


def test_killed_at_any_write_and_run_again(photos: Path, tmp_path: Path) -> None:
    make(photos, tmp_path / "alone.masks")
    (tmp_path / "killed").mkdir()
    given = [sys.executable, "-c", RUNNER, str(photos), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        given, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    runs = told.stdout.split()
    assert len(runs) > 8
    expected = (tmp_path / "alone.masks").read_bytes()
    for calls in runs:
        assert making.content(tmp_path / "killed" / calls) == {"some.masks": expected}, calls


def test_an_interrupted_run_is_resumed(photos: Path, tmp_path: Path) -> None:
    out, read = tmp_path / "x.masks", []

    class Cut(Folder):
        def read(self, index: int) -> bytes:
            read.append(index)
            if index == 17:
                raise KeyboardInterrupt
            return super().read(index)

    with pytest.raises(KeyboardInterrupt):
        make_masks.make(Cut(photos), out, MaskOptions("gs", 24), 1)
    (log,) = tmp_path.glob(".x.masks.0000.part")
    begun = len(list(mask_log.rows(log)))
    assert 0 < begun <= 17
    result = make(photos, out)
    assert result is not None and result.images == COUNT - begun
    make(photos, tmp_path / "y.masks")
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def test_damage_in_a_log_costs_only_the_rows_after_it(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.masks"
    make(photos, out, rank=0, world_size=2)
    log = tmp_path / ".x.masks.0000.part"
    assert mask_log.is_done(log)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(bytes(data))
    kept = len(list(mask_log.rows(log)))
    assert 0 < kept < COUNT // 2
    log.write_bytes(bytes(data[:-5]))  # or else it ends as one that is done
    result = make(photos, out, rank=0, world_size=2)
    assert result is not None and result.images == COUNT // 2 - kept
    make(photos, out, rank=1, world_size=2)
    make(photos, tmp_path / "y.masks")
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def test_a_damaged_log_is_not_merged(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.masks"
    make(photos, out, rank=0, world_size=2)
    log = tmp_path / ".x.masks.0000.part"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(bytes(data))  # with the mark of one that is done
    result = make(photos, out, rank=1, world_size=2)
    assert result is not None and result.unfinished_ranks == [0] and not out.exists()
    given = MaskOptions("gs", 24, 1, 2)
    assert make_masks.unfinished_ranks(open_source(photos), out, given) == [0]
    make(photos, out, rank=0, world_size=2)
    make(photos, tmp_path / "y.masks")
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def test_a_disk_that_is_briefly_full_repeats_no_row(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(photos, tmp_path / "y.masks")
    out, write, left = tmp_path / "x.masks", os.write, [2]

    def in_part(file: int, data: memoryview) -> int:
        """Write the first row, then nothing once, then all."""
        left[0] -= 1
        if left[0] == 0:
            rows = [len(row) for row in packed(bytes(data))]
            return write(file, data[: rows[0]])
        if left[0] == -1:
            raise OSError(28, os.strerror(28))
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(mask_log, "_WRITE_BYTES", 400)
        patch.setattr(mask_log.os, "write", in_part)
        with pytest.raises(MillError, match="No space left on device"):
            make(photos, out)
    make(photos, out)
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def packed(data: bytes) -> list[bytes]:
    """The rows of a log, as bytes."""
    rows, file = [], io.BytesIO(data)
    start = 0
    for _ in mask_log._rows(file):
        rows.append(data[start : file.tell()])
        start = file.tell()
    return rows


def test_an_interruption_says_how_to_continue(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(make_masks, "_log_estimated_time", interrupted)
    with pytest.raises(MillError, match="the same command continues where it stopped"):
        command.main(["masks", str(photos), "--method", "gs"])
