"""The throughput benchmark counts what it should, reports it, and explains what is wrong."""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from patchmill.benchmarks import contenders, throughput
from patchmill.benchmarks.contenders import Batches, Contender
from patchmill.benchmarks.sample import Sample
from patchmill.kernels.views import cpu
from patchmill.loaders import plan, recipe
from patchmill.loaders.decode import decode
from patchmill.loaders.errors import MillError
from patchmill.loaders.sources import open_source

SMALL = "dino(local_crops=1, global_size=32, local_size=16)"
SCENES = "scenes(count=5, size=64)"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    torch_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(torch_threads)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["throughput.py", *arguments])
    throughput.main()


# ------------------------------------------------------------------------------------ the whole run


def test_it_reports_stages_ratios_and_the_bottleneck(tmp_path, monkeypatch, capsys):
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "2", "--workers", "1"]
    out = tmp_path / "out.json"
    before = set(threading.enumerate())
    run(monkeypatch, *small, "--seconds", "0.1", "--peers", "torchvision", "--json", str(out))
    assert set(threading.enumerate()) <= before and not multiprocessing.active_children()
    assert not list(tmp_path.glob("patchmill-*"))

    found = json.loads(out.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    stages = ["read", "decode", "plan", "render"]
    whole = ["bare decode", "decode + views", "loader", "torchvision"]
    assert list(rows) == whole + [f"loader: {stage}" for stage in stages]
    assert [row["stage"] for row in rows.values()] == [
        "decode",
        "decode + views",
        "loader",
        "loader",
        *stages,
    ]
    for row in rows.values():
        assert row["images_per_s"] > 0 and row["spread"] >= 0 and row["workers"] == 1
    assert set(found["ratios"]) == {f"loader / {x}" for x in whole if x != "loader"}
    assert found["bottleneck"] in stages and found["machine"]["cores"] >= 1
    assert found["images"]["count"] == found["images"]["jpegs"] == 5
    assert found["command"].startswith("python throughput.py --data")

    printed = capsys.readouterr().out
    for words in ("5 real JPEGs", "2 x 32 + 1 x 16", "bottleneck: ", "loader / torchvision"):
        assert words in printed


def test_it_draws_a_chart(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "bars.png"
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "2", "--workers", "2"]
    run(monkeypatch, *small, "--seconds", "0.01", "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peers", "torchvison"], "no peer 'torchvison'; did you mean 'torchvision'"),
        (["--workers", "0"], "--workers must be above 0"),
        (["--workers", "many"], "--workers"),
        (["--seconds", "nan"], "--seconds must be above 0"),
        (["--batch-size", "-1"], "--batch-size must be above 0"),
        (["--recipe", "dinno"], "did you mean 'dino'"),
        (["--data", "no/such/folder"], "no folder 'no/such/folder'"),
        (["--json", "no/such/folder/out.json"], "cannot write"),
        (["--rounds", "3"], "--rounds"),
        (["--data", SCENES, "--pipeline", "magic"], "pipeline must be one of"),
        (["--data", SCENES, "--device", "tpu"], "device must be"),
    ],
)
def test_a_mistake_is_one_sentence(monkeypatch, arguments, words):
    with pytest.raises(MillError) as caught:
        run(monkeypatch, *arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_chart_without_matplotlib_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MillError, match=r"pip install 'patchmill\[plot\]'"):
        run(monkeypatch, "--plot", str(tmp_path / "bars.png"))


# ----------------------------------------------------------------------------------------- counting


class Clock:
    """A loader in whose world only batches take time: those that lie ready take none."""

    def __init__(self, ready: int, at_once: int) -> None:
        self.now, self.ready, self.at_once, self.given = 0.0, ready, at_once, 0

    def perf_counter(self) -> float:
        return self.now

    def batches(self):
        while True:
            if self.given >= self.ready and (self.given - self.ready) % self.at_once == 0:
                self.now += 1.0
            self.given += 1
            yield None


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.5])
def test_only_what_was_made_in_the_turn_counts(monkeypatch, workers, seconds):
    clock = Clock(ready=1 + 2 * workers, at_once=workers)  # one to open, two for each worker
    monkeypatch.setattr(contenders, "time", clock)
    loader = Batches("x", clock.batches, 10, workers, ahead=2 * workers, together=workers)
    loader.open()
    assert loader.measure(seconds) == 10 * workers
    clock.ready = clock.given + 2 * workers  # the others had their turns meanwhile
    assert loader.measure(seconds) == 10 * workers
    loader.close()


class Fake:
    stage, workers = "loader", 1

    def __init__(self, name: str, log: list[str], error: Exception | None = None) -> None:
        self.name, self._log, self._error = name, log, error

    def open(self) -> None:
        self._log.append(f"open {self.name}")
        if self._error:
            raise self._error

    def measure(self, seconds: float) -> float:
        self._log.append(self.name)
        return 1.0

    def close(self) -> None:
        self._log.append(f"close {self.name}")


def test_all_take_turns_and_are_closed(monkeypatch):
    monkeypatch.setattr(contenders.timing, "wait_until_quiet", lambda: log.append("quiet"))
    log: list[str] = []
    ours, theirs = [Fake("a", log), Fake("b", log)], [Fake("c", log)]
    rates, failed = contenders.race(ours, theirs, rounds=3, seconds=1.0)
    assert rates == {name: [1.0] * 3 for name in "abc"} and not failed
    assert log[:3] == ["open c", "open a", "open b"]
    assert [entry for entry in log if len(entry) == 1] == list("abcbcacab")
    assert all(log[i - 1] == "quiet" for i, entry in enumerate(log) if len(entry) == 1)
    assert sorted(log[-3:]) == ["close a", "close b", "close c"]


def test_a_peer_that_cannot_start_is_left_out_and_we_are_not(monkeypatch):
    monkeypatch.setattr(contenders.timing, "wait_until_quiet", lambda: None)
    good, broken = Fake("good", []), Fake("broken", [], RuntimeError("no shm\nmore lines"))
    rates, failed = contenders.race([good], [broken], 1, 1.0)
    assert set(rates) == {"good"} and failed == {"broken": "no shm"}
    with pytest.raises(RuntimeError):
        contenders.race([broken], [good], 1, 1.0)


def test_a_peer_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr(contenders.peers.load("torchvision"), "available", lambda: "get it first")
    with pytest.raises(MillError, match="get it first"):
        contenders.their_loader("torchvision", [], recipe.load(SMALL), 1, 1).open()


# -------------------------------------------------------------------------------------- what is run


def test_views_are_made_for_real():
    images, law = Sample(open_source(SCENES), 5), recipe.load(SMALL)
    work = contenders.Views(law)
    for data in images.encoded:
        work(data)
    pixels = list(map(decode, images.encoded))
    rows = plan.draw(law, 0, 0, range(5), [image.shape[:2] for image in pixels]).rows
    targets, first = plan.targets(law), 0
    for group, views in zip(targets, cpu.render(pixels, rows, targets).values(), strict=True):
        for view in views.unbind(1):  # [5, 3, S, S], where the benchmark keeps 8
            part = work.out[first : first + view.numel()]
            assert np.array_equal(part, view.flatten().numpy())
            first += 8 * 3 * group.size**2


def test_threads_share_the_images_out():
    done: list[bytes] = []
    threads = contenders.Threads("x", "decode", lambda: done.append, [b"a", b"b", b"c"], workers=3)
    threads.open()
    assert done == [b"a"] * 3
    assert threads.measure(0.01) > 0
    assert set(done) == {b"a", b"b", b"c"}
    threads.close()


def test_contenders_have_what_the_race_needs():
    everybody: list[Contender] = [
        contenders.their_loader(name, [], recipe.load(SMALL), 4, 3)
        for name in throughput._peers("all")
    ]
    assert [x.name for x in everybody] == ["torchvision", "dali", "ffcv"]
    assert all(x.stage == "loader" and x.workers == 3 for x in everybody)
    assert throughput._peers(" dali,torchvision") == ["torchvision", "dali"]
