"""Killed at any moment and run again, prepare writes the same bytes; ranks share the work."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import helpers_prepare as making
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import command, inspect_data, output, write_beton
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.folder import Folder

ROOT = Path(__file__).resolve().parents[3]
BAD = 3

# Runs in a process of its own, so that it may be killed: a child for each run, forked before there
# are threads. A negative number counts down the calls that change the disk, and then kills.
RUNNER = """
import os, signal, sys, time
from pathlib import Path
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources import open_source

Order(10, 0).ids(0, 0, 10)
source = open_source(sys.argv[1])

def prepare(out):
    format = "beton" if out.endswith(".beton") else "shards"
    make_data.make(source, Path(out), Options(format, shard_size=1_000_000), workers=2)

def counted(call, left):
    def wrapped(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped

def run_once(out, calls=None):
    child = os.fork()
    if child == 0:
        if calls is not None:
            left = [calls]
            for name in ("open", "fsync", "replace", "utime", "writev", "write", "unlink"):
                setattr(os, name, counted(getattr(os, name), left))
        prepare(out)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

out, step, killed, calls = sys.argv[2], int(sys.argv[3]), True, 0
while killed:
    killed = run_once(f"{out % calls}", calls)
    if killed:
        run_once(f"{out % calls}")
    print(calls, int(killed))
    calls += step
"""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four megabytes of images, and a few files that are not images."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    files = {f"c{i % 2}/{i}.jpg": making.bulky(i, 60_000 + 999 * i) for i in range(50)}
    files |= {f"c0/bad{i}.jpg": b"no image" for i in range(BAD)}
    return making.write_folder(tmp_path / "src", files)


@pytest.mark.parametrize("out", ["shards", "all.beton"])
def test_killed_at_any_write_and_run_again(photos: Path, tmp_path: Path, out: str):
    format = "beton" if "." in out else "shards"
    (tmp_path / "whole").mkdir()
    making.prepare(photos, tmp_path / "whole" / out, format, shard_size=1_000_000)
    expected = making.content(tmp_path / "whole")

    for calls in range(400):
        (tmp_path / f"{calls}").mkdir()
    given = [sys.executable, "-c", RUNNER, str(photos), f"{tmp_path}/%d/{out}", "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(given, env=environment, check=True, capture_output=True, text=True)
    runs = [tuple(map(int, line.split())) for line in told.stdout.splitlines()]
    assert len(runs) > 5  # kills, and the run that got through at last
    for calls, _ in runs:
        assert making.content(tmp_path / f"{calls}") == expected, calls


@pytest.mark.parametrize("out", ["shards", "all.beton"])
def test_killed_at_random_moments(photos: Path, tmp_path: Path, out: str):
    format = "beton" if "." in out else "shards"
    (tmp_path / "whole").mkdir()
    making.prepare(photos, tmp_path / "whole" / out, format, shard_size=1_000_000)
    (tmp_path / "killed").mkdir()
    module = ["-m", "patchmill.loaders.prepare", str(photos), str(tmp_path / "killed" / out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    moments = random.Random(out)
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, *module, "--shard-size", "1MB"],
            env=environment,
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        started = time.monotonic()
        while process.poll() is None and not list((tmp_path / "killed").rglob("*journal")):
            time.sleep(0.002)
            assert time.monotonic() - started < 60
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
    else:
        making.prepare(photos, tmp_path / "killed" / out, format, shard_size=1_000_000)
    assert making.content(tmp_path / "killed") == making.content(tmp_path / "whole")


def test_an_incomplete_output_is_reported_as_such(photos: Path, tmp_path: Path):
    interrupt(tmp_path / "out", photos, after_fsyncs=8)
    assert not (tmp_path / "out" / "dataset.json").exists()
    text, problems = inspect_data.inspect(tmp_path / "out")
    assert problems == [f"{tmp_path / 'out'} is incomplete: run its prepare command again"]
    assert "nothing differs" not in text

    interrupt(tmp_path / "x.beton", photos, after_fsyncs=6)
    assert not (tmp_path / "x.beton").exists()
    assert (tmp_path / "x.beton.part").exists()
    with pytest.raises(MillError, match="is incomplete: run its prepare command again"):
        inspect_data.inspect(tmp_path / "x.beton")


def test_an_incomplete_output_is_not_resumed_with_other_options(photos: Path, tmp_path: Path):
    interrupt(tmp_path / "out", photos, after_fsyncs=8)
    with pytest.raises(MillError, match="--seed 0, not 5"):
        making.prepare(photos, tmp_path / "out", shard_size=1_000_000, seed=5)
    making.prepare(photos, tmp_path / "out", shard_size=1_000_000, seed=5, overwrite=True)
    making.prepare(photos, tmp_path / "anew", shard_size=1_000_000, seed=5)
    assert making.content(tmp_path / "out") == making.content(tmp_path / "anew")


def test_a_deleted_shard_is_written_again(photos: Path, tmp_path: Path):
    making.prepare(photos, tmp_path / "whole", shard_size=1_000_000)
    interrupt(tmp_path / "out", photos, after_fsyncs=12)
    (tmp_path / "out" / "data-000001.tar").unlink()
    making.prepare(photos, tmp_path / "out", shard_size=1_000_000)
    assert making.content(tmp_path / "out") == making.content(tmp_path / "whole")


def interrupt(out: Path, source: Path, after_fsyncs: int) -> None:
    """Interrupt as Ctrl-C does."""
    fsync, calls = os.fsync, []

    def counted(file: int) -> None:
        calls.append(file)
        if len(calls) > after_fsyncs:
            raise KeyboardInterrupt
        fsync(file)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", counted)
        with pytest.raises(KeyboardInterrupt):
            format = "beton" if out.suffix else "shards"
            making.prepare(source, out, format, shard_size=1_000_000)


def test_a_second_process_is_refused(photos: Path, tmp_path: Path):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Folder):
        def read(self, index: int) -> bytes:
            begun.set()
            go_on.wait(60)
            return super().read(index)

    thread = threading.Thread(target=making.prepare, args=(Slow(photos), tmp_path / "out"))
    thread.start()
    try:
        assert begun.wait(60)
        with pytest.raises(MillError, match="another process is writing this output"):
            making.prepare(photos, tmp_path / "out")
    finally:
        go_on.set()
        thread.join(60)
    assert (tmp_path / "out" / "dataset.json").exists()


# ------------------------------------------------------------------------------------------ ranks


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_write_the_samples_of_one(photos: Path, tmp_path: Path, world_size: int):
    """The same samples in the same order; only where shards end is different."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    making.prepare(photos, alone, shard_size=1_000_000)
    for rank in reversed(range(world_size)):
        assert not (shared / "dataset.json").exists()
        rest = {"rank": rank, "world_size": world_size, "shard_size": 1_000_000}
        result = making.prepare(photos, shared, **rest)
        assert result is not None and result.unfinished_ranks == list(range(rank))
    assert making.samples(open_source(shared)) == making.samples(open_source(alone))
    both = [json.loads((folder / "dataset.json").read_text()) for folder in (alone, shared)]
    for name in ("samples", "bytes", "bad", "classes", "samples_per_class"):
        assert both[0][name] == both[1][name]
    assert sorted((shared / "bad.jsonl").read_text()) == sorted((alone / "bad.jsonl").read_text())
    left = {path.name for path in shared.iterdir()}
    shards = {shard["name"] for shard in both[1]["shards"]}
    assert left == {"dataset.json", "bad.jsonl"} | shards | {f"{name}.index" for name in shards}


def test_a_rank_that_starts_while_files_are_listed_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = output.choose_paths(tmp_path, "shards")
    list_files = output.OutputPaths.own_files

    def another_rank_begins(self: output.OutputPaths) -> Iterator[Path]:
        self.journal(1).touch()
        yield from list_files(self)

    monkeypatch.setattr(output.OutputPaths, "own_files", another_rank_begins)
    assert not output.is_complete(paths, None, {})


def test_concurrent_ranks_write_the_same_as_consecutive_ones(photos: Path, tmp_path: Path):
    for rank in range(4):
        making.prepare(photos, tmp_path / "turns", rank=rank, world_size=4)
    threads = [
        threading.Thread(
            target=making.prepare,
            args=(photos, tmp_path / "once"),
            kwargs={"rank": rank, "world_size": 4},
        )
        for rank in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert making.content(tmp_path / "once") == making.content(tmp_path / "turns")


def test_a_rank_may_run_again(photos: Path, tmp_path: Path):
    making.prepare(photos, tmp_path / "out", rank=0, world_size=2)
    result = making.prepare(photos, tmp_path / "out", rank=0, world_size=2)
    assert result is not None and (result.images, result.unfinished_ranks) == (0, [1])
    _, problems = inspect_data.inspect(tmp_path / "out")
    assert problems == [
        f"{tmp_path / 'out'} is incomplete: run its prepare command again by rank 1"
    ]
    making.prepare(photos, tmp_path / "out", rank=1, world_size=2)
    assert making.prepare(photos, tmp_path / "out", rank=0, world_size=2) is None


def test_ranks_with_other_options_are_refused(photos: Path, tmp_path: Path):
    making.prepare(photos, tmp_path / "out", rank=0, world_size=2)
    with pytest.raises(MillError, match="--seed 0, not 1"):
        making.prepare(photos, tmp_path / "out", rank=1, world_size=2, seed=1)
    with pytest.raises(MillError, match="--world-size 2, not 3"):
        making.prepare(photos, tmp_path / "out", rank=1, world_size=3)


def test_the_slurm_array_sets_the_rank(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for task in (4, 1, 7):
        array = {"ID": task, "COUNT": 3, "MIN": 1, "STEP": 3}
        for name, value in array.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        command.main([str(photos), str(tmp_path / "array")])
    for rank in range(3):
        making.prepare(photos, tmp_path / "ranks", rank=rank, world_size=3)
    assert making.content(tmp_path / "array") == making.content(tmp_path / "ranks")


def test_a_rank_that_is_done_writes_a_lost_shard_again(photos: Path, tmp_path: Path):
    for rank in range(2):
        making.prepare(photos, tmp_path / "whole", rank=rank, world_size=2)
    making.prepare(photos, tmp_path / "out", rank=0, world_size=2)
    (tmp_path / "out" / "data-0000-000000.tar").unlink()  # as after a power failure
    result = making.prepare(photos, tmp_path / "out", rank=1, world_size=2)
    assert result is not None and result.unfinished_ranks == [0]
    making.prepare(photos, tmp_path / "out", rank=0, world_size=2)
    assert making.content(tmp_path / "out") == making.content(tmp_path / "whole")


@pytest.mark.parametrize("moment", [3, 5])
def test_a_killed_rank_leaves_no_file_that_no_other_removes(
    photos: Path, tmp_path: Path, moment: int
):
    for rank in range(2):
        making.prepare(photos, tmp_path / "whole", rank=rank, world_size=2)
    for rank in range(2):
        killed_at_replace(tmp_path / "out", photos, moment, rank)
        making.prepare(photos, tmp_path / "out", rank=rank, world_size=2)
        making.prepare(photos, tmp_path / "out", rank=rank, world_size=2)
    assert making.content(tmp_path / "out") == making.content(tmp_path / "whole")


def killed_at_replace(out: Path, source: Path, number: int, rank: int) -> None:
    """Kill a rank in a separate process before it renames a file for the nth time."""
    replace, names = os.replace, []

    def counted(*names_: Path) -> None:
        names.append(names_)
        if len(names) > number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names_)

    child = os.fork()
    if not child:
        os.replace = counted  # type: ignore[assignment]
        making.prepare(source, out, rank=rank, world_size=2)
        os._exit(0)
    os.waitpid(child, 0)


def test_a_beton_that_is_finished_on_a_full_disk_keeps_its_samples(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "whole").mkdir()
    making.prepare(photos, tmp_path / "whole" / "x.beton", "beton")
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(write_beton._ResumableWriter, "_finish", full_disk)
        with pytest.raises(MillError, match="No space left on device"):
            making.prepare(photos, tmp_path / "out" / "x.beton", "beton")
    result = making.prepare(photos, tmp_path / "out" / "x.beton", "beton")
    assert result is not None and result.images == 0  # all are there
    assert making.content(tmp_path / "out") == making.content(tmp_path / "whole")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
