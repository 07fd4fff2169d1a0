"""The throughput benchmark counts what it should, reports it, and explains what is wrong."""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from patchmill.benchmarks import throughput
from patchmill.benchmarks.lib import contenders, digest, report, results, timing
from patchmill.benchmarks.lib.contenders import Batches, Contender, Raced
from patchmill.benchmarks.lib.sample import Sample
from patchmill.kernels.views.cpu import render
from patchmill.loaders import build
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe_load import load_recipe
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
    assert all(0 < rows[name]["cores_busy"] for name in whole)
    assert not any("gpu_mib" in row for row in rows.values()) and "gpu_mib" not in found
    assert found["pipeline"] == "threads" and found["bare_decode"] == "bare decode"
    first = found["first_batches"]
    assert first["batches"] == 4 and first["batch_size"] == 2
    assert set(found["ratios"]) == {f"loader / {x}" for x in whole if x != "loader"}
    assert found["bottleneck"] in stages and found["machine"]["cores"] >= 1
    assert found["images"]["count"] == found["images"]["jpegs"] == 5
    assert found["command"].startswith("python throughput.py --data")

    printed = capsys.readouterr().out
    for words in ("5 real JPEGs", "2 x 32 + 1 x 16", "bottleneck: ", "loader / torchvision"):
        assert words in printed
    assert f"first views: ids {first['ids']}, views {first['views']} (4 batches of 2)" in printed


def test_both_pipelines_give_the_same(tmp_path, monkeypatch):
    pytest.importorskip("nvidia.dali")
    pytest.importorskip("nvidia.nvimgcodec")
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "3", "--seconds", "0.1"]
    found = {}
    for pipeline in ("threads", "dali"):
        out = tmp_path / f"{pipeline}.json"
        run(monkeypatch, *small, "--pipeline", pipeline, "--workers", "2", "--json", str(out))
        found[pipeline] = json.loads(out.read_text())
        assert found[pipeline]["pipeline"] == pipeline
    assert found["threads"]["first_batches"] == found["dali"]["first_batches"]
    names = [[row["name"] for row in found[name]["rows"]] for name in ("threads", "dali")]
    assert names[1][:4] == ["bare decode", "decode by dali", "decode + views", "loader"]
    assert names[0][:3] == ["bare decode", "decode + views", "loader"]


def test_dali_decodes_what_it_can_of_mixed_images(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nvidia.dali")
    pytest.importorskip("nvidia.nvimgcodec")
    (tmp_path / "mixed").mkdir()
    for number, (mode, ending) in enumerate([("RGB", "jpg"), ("RGB", "png"), ("CMYK", "jpg")]):
        Image.new(mode, (64, 48)).save(tmp_path / "mixed" / f"{number}.{ending}")
    asked = ["--data", str(tmp_path / "mixed"), "--recipe", SMALL, "--batch-size", "2"]
    run(monkeypatch, *asked, "--pipeline", "dali", "--workers", "1", "--seconds", "0.01")
    printed = capsys.readouterr().out
    assert "\ndecode by dali " in printed and "left out" not in printed


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
        (["--data", SCENES, "--pipeline", "magic"], "no pipeline 'magic'"),
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


@pytest.mark.parametrize("seconds", [0.5, 7.5])
def test_the_gpu_is_waited_for_before_a_turn_and_at_its_end(monkeypatch, seconds):
    clock = Clock(ready=1, at_once=1)
    waits: list[int] = []
    monkeypatch.setattr(contenders, "time", clock)
    monkeypatch.setattr(contenders.timing, "finish_gpu", lambda: waits.append(clock.given))
    loader = Batches("x", clock.batches, 10, 1, ahead=0)
    loader.open()
    loader.measure(seconds)
    assert waits == [2, clock.given]
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
    raced = contenders.race(ours, theirs, rounds=3, seconds=1.0)
    assert raced.rates == {name: [1.0] * 3 for name in "abc"} and not raced.failed
    assert all(len(raced.cores[name]) == 3 for name in "abc")
    assert raced.gpu == {"a": 0, "b": 0, "c": 0}
    assert log[:3] == ["open c", "open a", "open b"]
    assert [entry for entry in log if len(entry) == 1] == list("abcbcacab")
    assert all(log[i - 1] == "quiet" for i, entry in enumerate(log) if len(entry) == 1)
    assert sorted(log[-3:]) == ["close a", "close b", "close c"]


def test_a_peer_that_cannot_start_is_left_out_and_we_are_not(monkeypatch):
    monkeypatch.setattr(contenders.timing, "wait_until_quiet", lambda: None)
    good, broken = Fake("good", []), Fake("broken", [], RuntimeError("no shm\nmore lines"))
    raced = contenders.race([good], [broken], 1, 1.0)
    assert set(raced.rates) == {"good"} and raced.failed == {"broken": "no shm"}
    with pytest.raises(RuntimeError):
        contenders.race([broken], [good], 1, 1.0)


def test_a_peer_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setattr(contenders.peers.load("torchvision"), "available", lambda: "get it first")
    with pytest.raises(MillError, match="get it first"):
        contenders.their_loader("torchvision", [], load_recipe(SMALL), 1, 1).open()


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [("kornia", "cpu", "for GPUs"), ("ffcv", "cuda:1", "--device cpu")],
)
def test_a_peer_is_left_out_where_nobody_would_use_it(name, device, words):
    with pytest.raises(MillError, match=words):
        contenders.their_loader(name, [], load_recipe(SMALL), 1, 1, device).open()


class Greedy(Fake):
    """Keeps one core busy, and takes memory of a GPU when it starts and in each turn."""

    used: ClassVar[dict[str, float]] = {}

    def open(self) -> None:
        self.used["gpu"] += 100

    def measure(self, seconds: float) -> float:
        self.used["gpu"] += 1
        self.used["seconds"] += 2.0
        self.used["cores"] += 3.0
        return 1.0


def test_what_a_contender_uses_is_its_own(monkeypatch):
    Greedy.used.update(gpu=1000, seconds=0.0, cores=0.0)
    monkeypatch.setattr(contenders.timing, "wait_until_quiet", lambda: None)
    monkeypatch.setattr(contenders.timing, "processor_seconds", lambda: Greedy.used["cores"])
    monkeypatch.setattr(contenders.time, "perf_counter", lambda: Greedy.used["seconds"])
    monkeypatch.setattr(contenders.machine, "gpu_taken", lambda: Greedy.used["gpu"])
    raced = contenders.race([Greedy("a", []), Greedy("b", [])], [], 2, 1.0)
    assert raced.cores["a"] == [1.5, 1.5]
    assert raced.gpu == {"a": 102, "b": 102} and raced.taken == 1204


# --------------------------------------------------------------------------------- what is reported


class Half:
    """As much of a contender as a report needs."""

    stage, workers = "decode", 3

    def __init__(self, name: str) -> None:
        self.name = name


def test_the_best_decoder_is_the_bare_one():
    rates = {"a": [2.0, 2.0], "b": [5.0, 5.0], "views alone": [50.0, 50.0]}
    raced = Raced(rates, failed={"c": "it is not there"})
    assert results._best(raced, ["a", "b", "c"]) == "b"
    with pytest.raises(MillError, match="decodes these images on the GPU: c: it is not there"):
        results._best(raced, ["c"])


def test_views_alone_as_a_share_of_decoding():
    law = load_recipe(SMALL)  # three views
    found = results._views({"bare decode": [5.0], "views alone": [50.0]}, law)
    assert found == {"views_per_s": 150, "share_of_decode_time": 0.1}
    assert results._views({"bare decode": [5.0]}, law) is None


def test_the_bottleneck_is_the_longest_stage_of_the_busiest_crew():
    def row(name: str, crew: str, share: float) -> report.Row:
        return report.Row(name, name, timing.summary([1.0]), 1, share, crew=crew)

    shares = [("read", "threads", 0.3), ("plan", "threads", 0.5), ("render", "gpu", 0.7)]
    rows = [row(*stage) for stage in shares]
    first = digest.Digest(1, 1, "", "")
    assert report.Result([], rows, {}, [], first, "", "").bottleneck.stage == "plan"
    assert report.Result([], rows[1:], {}, [], first, "", "").bottleneck.stage == "render"


def test_equal_batches_have_equal_digests():
    def first(**different) -> digest.Digest:
        settings = {"seed": 0, "workers": 1} | different
        return digest.of(build(SCENES, SMALL, 2, **settings), steps=2)

    whole = first()
    assert (whole.batches, whole.batch_size) == (2, 2) and first(workers=2) == whole
    other = first(seed=1)
    assert other.ids != whole.ids and other.views != whole.views


def test_a_digest_tells_ids_and_views_apart():
    plain = digest.of(build(SCENES, SMALL, 5))
    flipped = digest.of(build(SCENES, "dino(local_crops=1, global_size=32, local_size=17)", 5))
    assert plain.ids == flipped.ids and plain.views != flipped.views and plain.batches == 1


# -------------------------------------------------------------------------------------- what is run


def test_views_are_made_for_real():
    images, law = Sample(open_source(SCENES), 5), load_recipe(SMALL)
    work = contenders.Views(law)
    for data in images.encoded:
        work(data)
    pixels = list(map(decode, images.encoded))
    rows = draw.draw(law, 0, 0, range(5), [image.shape[:2] for image in pixels]).rows
    targets, first = draw.targets(law), 0
    for group, views in zip(targets, render.render(pixels, rows, targets).values(), strict=True):
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
        contenders.their_loader(name, [], load_recipe(SMALL), 4, 3)
        for name in throughput._peers("all")
    ]
    assert [x.name for x in everybody] == list(contenders.peers.NAMES)
    assert all(x.stage == "loader" and x.workers == 3 for x in everybody)
    assert throughput._peers(" dali,torchvision") == ["torchvision", "dali"]


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "4", "--workers", "2"]
    asked = ["--device", "cuda", "--peers", "all", "--json", str(out)]
    run(monkeypatch, *small, *asked, "--seconds", "0.3")
    found = json.loads(out.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {"bare decode", "decode + views", "views alone", "loader"} <= set(rows)
    assert found["bare_decode"] in rows and rows["loader"]["cores_busy"] > 0
    assert rows[found["bare_decode"]]["images_per_s"] == rows["bare decode"]["images_per_s"]
    assert found["views_alone"]["views_per_s"] > 0 and found["gpu_mib"]["taken_on_the_device"] > 0
    assert found["machine"]["gpu"]["cuda"]
    assert "GPU memory" in capsys.readouterr().out
