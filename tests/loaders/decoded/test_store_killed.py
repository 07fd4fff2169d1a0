"""Processes that are killed while they fill a store leave no torn image."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers_decoded import Noise, as_another_process, held
from PIL import Image
from trust.faults import small_disk

from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.decoded import places
from patchmill.loaders.decoded.opening import open_store, stores_in
from patchmill.loaders.sources import open_source

PROGRAM = Path(__file__).with_name("fill_until_killed.py")
COUNT = 500


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (120 + number % 90, 150, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=50)
        past = time.time() - 10
        os.utime(folder / f"{number:03}.jpg", (past, past))
    return folder


def start(data: Path, cache: str, home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PATCHMILL_CACHE": str(home)}
    command = [sys.executable, str(PROGRAM), str(data), cache]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def filled_and_killed(data: Path, cache: str, home: Path, after: float) -> None:
    """Two processes fill a store and are killed at the same time, after some seconds."""
    processes = [start(data, cache, home) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(after)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()


def check_all(data: Path, cache: str) -> int:
    """Number of images in a store, each of which must equal a fresh decode."""
    source = open_source(str(data))
    store = open_store(cache, source)
    assert store is not None
    there = 0
    for id in range(len(source)):
        image = store.image(id)
        if image is not None:
            np.testing.assert_array_equal(image, decode(source.read(id)))
            there += 1
    return there


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_no_torn_image(
    kills: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "home"))
    moments, seen = random.Random(), []
    for kill in range(kills):
        cache = f"disk:{tmp_path / str(kill // 3)}:100MB"  # each is killed three times
        filled_and_killed(photos, cache, tmp_path / "home", moments.uniform(0, 0.2))
        seen.append(check_all(photos, cache))
    print(f"images after each kill: {seen}")
    last = start(photos, cache, tmp_path / "home")
    assert last.communicate()[0] == "ready\n" and last.returncode == 0
    assert check_all(photos, cache) == COUNT


def test_a_store_in_ram_is_removed_with_its_last_user_or_by_the_next_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(places, "SHARED_MEMORY", tmp_path)
    source = open_source(str(photos))
    child = os.fork()
    if not child:
        store = open_store("ram:10MB", source)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = stores_in(places.ram_folder())
    other = open_source([str(path) for path in sorted(photos.glob("*.jpg"))])
    store = open_store("ram:10MB", other)
    assert store is not None and not left.exists() and stores_in(places.ram_folder()) != []
    del store
    assert list(places.ram_folder().iterdir()) == []


def test_others_may_fill_the_memory_that_a_store_is_in(tmp_path: Path) -> None:
    """Reading pages of a table that were never written would kill the process."""
    if not small_disk.allowed():
        pytest.skip("this user may not mount")

    def fill_and_read() -> str:
        source = Noise(5000)
        store = as_another_process(tmp_path, source, "64KB")
        ballast = os.open(tmp_path / "ballast", os.O_CREAT | os.O_WRONLY)
        try:
            while True:
                os.write(ballast, bytes(4096))
        except OSError:
            return f"{len(held(store, source))} images"

    assert small_disk.run(tmp_path, 100, 100, fill_and_read, lambda: "") == "0 images"
