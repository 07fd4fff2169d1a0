"""The throughput benchmark: measurements, reports, errors."""

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

from patchmill.benchmarks import peers, throughput
from patchmill.benchmarks.lib import report, timing
from patchmill.benchmarks.lib.sample import Sample
from patchmill.benchmarks.lib.throughput import batches, contenders, digest, results
from patchmill.benchmarks.lib.throughput.batches import BatchContender, Making
from patchmill.benchmarks.lib.throughput.contenders import Contender, Measurements
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
def temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    torch_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(torch_threads)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["throughput.py", *arguments])
    throughput.main()


# ------------------------------------------------------------------------------------ the whole run


def test_stages_ratios_and_bottleneck_are_reported(tmp_path, monkeypatch, capsys):
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "2", "--workers", "1"]
    out = tmp_path / "out.json"
    before = set(threading.enumerate())
    monkeypatch.setattr(throughput, "CACHED_SAMPLES", 16)
    more = ["--peers", "torchvision", "--cache", "ram:1MB", "--json", str(out)]
    run(monkeypatch, *small, "--seconds", "0.1", *more)
    assert set(threading.enumerate()) <= before and not multiprocessing.active_children()
    assert not list(tmp_path.glob("patchmill-*"))

    content = json.loads(out.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    stages = ["read", "decode", "plan", "render"]
    everybody = ["bare decode", "decode + views", "loader", contenders.CACHED, "torchvision"]
    assert list(rows) == everybody + [f"loader: {stage}" for stage in stages]
    assert [row["stage"] for row in rows.values()] == [
        "decode",
        "decode + views",
        "loader",
        "loader",
        "loader",
        *stages,
    ]
    for row in rows.values():
        assert row["images_per_s"] > 0 and row["spread"] >= 0 and row["workers"] == 1
    assert all(0 < rows[name]["cores_busy"] for name in everybody)
    assert not any("gpu_mib" in row for row in rows.values()) and "gpu_mib" not in content
    assert content["pipeline"] == "threads" and content["bare_decode"] == "bare decode"
    first = content["first_batches"]
    assert first["batches"] == 4 and first["batch_size"] == 2
    others = [x for x in everybody if not x.startswith("loader")]
    cached = [f"{contenders.CACHED} / {x}" for x in ("bare decode", "loader")]
    assert set(content["ratios"]) == {*(f"loader / {x}" for x in others), *cached}
    assert [rows[x]["decoder"] for x in everybody] == [*["simplejpeg"] * 3, "none", "Pillow"]
    assert "antialiased" not in rows["bare decode"] and rows["torchvision"]["antialiased"]
    assert rows["torchvision"]["loader_ratio"] == content["ratios"]["loader / torchvision"]
    assert content["cache"] == "ram:1MB"
    assert content["bottleneck"] in stages and content["machine"]["cores"] >= 1
    assert content["images"]["count"] == content["images"]["jpegs"] == 5
    assert content["command"].startswith("python throughput.py --data")

    printed = capsys.readouterr().out
    for message in (
        "5 real JPEGs",
        "2 x 32 + 1 x 16",
        "bottleneck: ",
        "what helps: ",
        "loader / torchvision",
    ):
        assert message in printed
    assert "antialiased" in printed and "Pillow" in printed
    assert f"first views: ids {first['ids']}, views {first['views']} (4 batches of 2)" in printed


def test_both_pipelines_make_the_same_batches(tmp_path, monkeypatch):
    pytest.importorskip("nvidia.dali")
    pytest.importorskip("nvidia.nvimgcodec")
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "3", "--seconds", "0.1"]
    contents = {}
    for pipeline in ("threads", "dali"):
        out = tmp_path / f"{pipeline}.json"
        run(monkeypatch, *small, "--pipeline", pipeline, "--workers", "2", "--json", str(out))
        contents[pipeline] = json.loads(out.read_text())
        assert contents[pipeline]["pipeline"] == pipeline
    assert contents["threads"]["first_batches"] == contents["dali"]["first_batches"]
    names = [[row["name"] for row in contents[name]["rows"]] for name in ("threads", "dali")]
    assert names[1][:4] == ["bare decode", "decode by dali", "decode + views", "loader"]
    assert names[0][:3] == ["bare decode", "decode + views", "loader"]


def test_dali_decodes_what_it_can_of_mixed_images(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nvidia.dali")
    pytest.importorskip("nvidia.nvimgcodec")
    (tmp_path / "mixed").mkdir()
    for number, (mode, ending) in enumerate([("RGB", "jpg"), ("RGB", "png"), ("CMYK", "jpg")]):
        Image.new(mode, (64, 48)).save(tmp_path / "mixed" / f"{number}.{ending}")
    arguments = ["--data", str(tmp_path / "mixed"), "--recipe", SMALL, "--batch-size", "2"]
    run(monkeypatch, *arguments, "--pipeline", "dali", "--workers", "1", "--seconds", "0.01")
    printed = capsys.readouterr().out
    assert "\ndecode by dali " in printed and "skipped" not in printed


def test_a_chart_is_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    chart = tmp_path / "bars.png"
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "2", "--workers", "2"]
    run(monkeypatch, *small, "--seconds", "0.01", "--plot", str(chart))
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
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
        (["--data", SCENES, "--cache", "ram:lots"], "is not a size"),
        (["--data", SCENES, "--pipeline", "magic"], "no pipeline 'magic'"),
        (["--data", SCENES, "--device", "tpu"], "device must be"),
    ],
)
def test_a_mistake_is_one_sentence(monkeypatch, arguments, message):
    with pytest.raises(MillError) as caught:
        run(monkeypatch, *arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_chart_without_matplotlib_is_refused_immediately(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MillError, match=r"pip install 'patchmill\[plot\]'"):
        run(monkeypatch, "--plot", str(tmp_path / "bars.png"))


# ----------------------------------------------------------------------------------------- counting


class Clock:
    """A clock that a fake loader advances: batches already queued take no time."""

    def __init__(self, queued: int, together: int) -> None:
        self.now, self.queued, self.together, self.taken = 0.0, queued, together, 0

    def perf_counter(self) -> float:
        return self.now

    def batches(self):
        while True:
            if self.taken >= self.queued and (self.taken - self.queued) % self.together == 0:
                self.now += 1.0
            self.taken += 1
            yield None


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.5])
def test_only_batches_made_in_the_turn_count(monkeypatch, workers, seconds):
    clock = Clock(queued=1 + 2 * workers, together=workers)  # one to open, two for each worker
    monkeypatch.setattr(batches, "time", clock)
    loader = BatchContender("x", clock.batches, 10, workers, ahead=2 * workers, together=workers)
    loader.open()
    assert loader.measure(seconds) == 10 * workers
    clock.queued = clock.taken + 2 * workers  # queued during the others' turns
    assert loader.measure(seconds) == 10 * workers
    loader.close()


@pytest.mark.parametrize("seconds", [0.5, 7.5])
def test_the_gpu_is_synchronised_before_a_turn_and_at_its_end(monkeypatch, seconds):
    clock = Clock(queued=1, together=1)
    waits: list[int] = []
    monkeypatch.setattr(batches, "time", clock)
    monkeypatch.setattr(batches.timing, "synchronize_gpu", lambda: waits.append(clock.taken))
    loader = BatchContender("x", clock.batches, 10, 1, ahead=0)
    loader.open()
    loader.measure(seconds)
    assert waits == [2, clock.taken]
    loader.close()


class Fake:
    stage, workers, making = "loader", 1, Making()

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
    monkeypatch.setattr(contenders.timing, "wait_until_idle", lambda: log.append("idle"))
    log: list[str] = []
    required, optional = [Fake("a", log), Fake("b", log)], [Fake("c", log)]
    measured = contenders.measure_in_turns(required, optional, rounds=3, seconds=1.0)
    assert measured.rates == {name: [1.0] * 3 for name in "abc"} and not measured.failures
    assert all(len(measured.cores[name]) == 3 for name in "abc")
    assert measured.gpu_bytes == {"a": 0, "b": 0, "c": 0}
    assert log[:3] == ["open c", "open a", "open b"]
    assert [entry for entry in log if len(entry) == 1] == list("abcbcacab")
    assert all(log[i - 1] == "idle" for i, entry in enumerate(log) if len(entry) == 1)
    assert sorted(log[-3:]) == ["close a", "close b", "close c"]


def test_only_optional_contenders_may_fail_to_start(monkeypatch):
    monkeypatch.setattr(contenders.timing, "wait_until_idle", lambda: None)
    good, broken = Fake("good", []), Fake("broken", [], RuntimeError("no shm\nmore lines"))
    measured = contenders.measure_in_turns([good], [broken], 1, 1.0)
    assert set(measured.rates) == {"good"} and measured.failures == {"broken": "no shm"}
    with pytest.raises(RuntimeError):
        contenders.measure_in_turns([broken], [good], 1, 1.0)


def test_a_peer_that_is_not_installed_is_reported(monkeypatch):
    monkeypatch.setattr(peers.load("torchvision"), "available", lambda: "get it first")
    with pytest.raises(MillError, match="get it first"):
        batches.peer_contender("torchvision", [], load_recipe(SMALL), 1, 1).open()


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [("kornia", "cpu", "for GPUs"), ("ffcv", "cuda:1", "--device cpu")],
)
def test_a_peer_is_skipped_on_devices_it_is_not_used_on(name, device, message):
    with pytest.raises(MillError, match=message):
        batches.peer_contender(name, [], load_recipe(SMALL), 1, 1, device).open()


class Greedy(Fake):
    """Uses CPU time in each turn, and allocates GPU memory at its start and in each turn."""

    used: ClassVar[dict[str, float]] = {}

    def open(self) -> None:
        self.used["gpu"] += 100

    def measure(self, seconds: float) -> float:
        self.used["gpu"] += 1
        self.used["seconds"] += 2.0
        self.used["cores"] += 3.0
        return 1.0


def test_cores_and_memory_are_counted_per_contender(monkeypatch):
    Greedy.used.update(gpu=1000, seconds=0.0, cores=0.0)
    monkeypatch.setattr(contenders.timing, "wait_until_idle", lambda: None)
    monkeypatch.setattr(contenders.timing, "cpu_seconds", lambda: Greedy.used["cores"])
    monkeypatch.setattr(contenders.time, "perf_counter", lambda: Greedy.used["seconds"])
    monkeypatch.setattr(contenders.machine, "gpu_memory_used", lambda: Greedy.used["gpu"])
    measured = contenders.measure_in_turns([Greedy("a", []), Greedy("b", [])], [], 2, 1.0)
    assert measured.cores["a"] == [1.5, 1.5]
    assert measured.gpu_bytes == {"a": 102, "b": 102} and measured.gpu_bytes_total == 1204


# --------------------------------------------------------------------------------- what is reported


class Half:
    """The attributes of a contender that a report reads."""

    stage, workers, making = "decode", 3, Making("a decoder")

    def __init__(self, name: str) -> None:
        self.name = name


def test_the_best_decoder_is_the_bare_one():
    rates = {"a": [2.0, 2.0], "b": [5.0, 5.0], "views alone": [50.0, 50.0]}
    measurements = Measurements(rates, failures={"c": "it is missing"})
    assert results._fastest(measurements, ["a", "b", "c"]) == "b"
    with pytest.raises(MillError, match="decodes these images on the GPU: c: it is missing"):
        results._fastest(measurements, ["c"])


def test_views_alone_as_a_share_of_decoding():
    recipe = load_recipe(SMALL)  # three views
    alone = results._views_alone({"bare decode": [5.0], "views alone": [50.0]}, recipe)
    assert alone == {"views_per_s": 150, "share_of_decode_time": 0.1}
    assert results._views_alone({"bare decode": [5.0]}, recipe) is None


def test_the_bottleneck_is_the_longest_stage_of_the_busiest_crew():
    def row(name: str, crew: str, share: float) -> report.Row:
        return report.Row(name, name, timing.summary([1.0]), 1, share, crew=crew)

    shares = [("read", "threads", 0.3), ("plan", "threads", 0.5), ("render", "gpu", 0.7)]
    rows = [row(*stage) for stage in shares]
    first = digest.Digest(1, 1, "", "")
    assert results.ThroughputResult([], rows, {}, [], first, "", "").bottleneck.stage == "plan"
    assert (
        results.ThroughputResult([], rows[1:], {}, [], first, "", "").bottleneck.stage == "render"
    )


def test_equal_batches_have_equal_digests():
    def first(**different) -> digest.Digest:
        settings = {"seed": 0, "workers": 1} | different
        return digest.first_batches(build(SCENES, SMALL, 2, **settings), count=2)

    expected = first()
    assert (expected.batches, expected.batch_size) == (2, 2) and first(workers=2) == expected
    other = first(seed=1)
    assert other.ids != expected.ids and other.views != expected.views


def test_ids_and_views_are_digested_separately():
    plain = digest.first_batches(build(SCENES, SMALL, 5))
    flipped = digest.first_batches(
        build(SCENES, "dino(local_crops=1, global_size=32, local_size=17)", 5)
    )
    assert plain.ids == flipped.ids and plain.views != flipped.views and plain.batches == 1


# -------------------------------------------------------------------------------------- what is run


def test_decode_and_render_makes_the_views_of_the_recipe():
    images, recipe = Sample(open_source(SCENES), 5), load_recipe(SMALL)
    decode_and_render = contenders.DecodeAndRender(recipe)
    for data in images.encoded:
        decode_and_render(data)
    pixels = list(map(decode, images.encoded))
    rows = draw.draw(recipe, 0, 0, range(5), [image.shape[:2] for image in pixels]).rows
    targets, first = draw.targets(recipe), 0
    for group, views in zip(targets, render.render(pixels, rows, targets).values(), strict=True):
        for view in views.unbind(1):  # [5, 3, S, S], where the benchmark keeps 8
            part = decode_and_render.out[first : first + view.numel()]
            assert np.array_equal(part, view.flatten().numpy())
            first += 8 * 3 * group.size**2


def test_threads_start_at_different_images():
    done: list[bytes] = []
    images = [b"a", b"b", b"c"]
    threads = contenders.ThreadedContender("x", "decode", lambda: done.append, images, workers=3)
    threads.open()
    assert done == [b"a"] * 3
    assert threads.measure(0.01) > 0
    assert set(done) == {b"a", b"b", b"c"}
    threads.close()


def test_every_peer_is_a_contender():
    everybody: list[Contender] = [
        batches.peer_contender(name, [], load_recipe(SMALL), 4, 3)
        for name in throughput._peers("all")
    ]
    assert [x.name for x in everybody] == list(peers.NAMES)
    assert all(x.stage == "loader" and x.workers == 3 for x in everybody)
    assert throughput._peers(" dali,torchvision") == ["torchvision", "dali"]
    assert throughput._peers("all") == throughput._peers("dali,all") == list(peers.NAMES)


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "4", "--workers", "2"]
    on_gpu = ["--device", "cuda", "--peers", "all", "--json", str(out)]
    run(monkeypatch, *small, *on_gpu, "--seconds", "0.3")
    content = json.loads(out.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert {"bare decode", "decode + views", "views alone", "loader"} <= set(rows)
    assert content["bare_decode"] in rows and rows["loader"]["cores_busy"] > 0
    assert rows[content["bare_decode"]]["images_per_s"] == rows["bare decode"]["images_per_s"]
    assert (
        content["views_alone"]["views_per_s"] > 0 and content["gpu_mib"]["taken_on_the_device"] > 0
    )
    assert content["machine"]["gpu"]["cuda"]
    assert "GPU memory" in capsys.readouterr().out
