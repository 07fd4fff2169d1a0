"""Expected hours from made-up runs and results, and none without a measurement."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from patchmill.loaders.common.errors import MillError
from patchmill.training import expected_hours, measurements, run
from patchmill.training.config import compose
from patchmill.training.config.settings import Config
from patchmill.training.runtime import device

CPU, GPU = "AMD EPYC, 2 cores", "NVIDIA H200"
OVERRIDES = [
    *("method=moco", "data=scenes", "data.train=scenes(count=1000, size=64)"),
    "train.epochs=40",
]
EPOCHS, BATCH = 40, 128
IMAGES = 1000 // BATCH * BATCH * EPOCHS


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of results, empty; and a known machine."""
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(measurements, "RESULTS", folder)
    monkeypatch.setattr(device, "describe", lambda world: {"machine": CPU})
    return folder


def config(out: Path, *overrides: str) -> Config:
    return compose.compose([*OVERRIDES, f"out={out}", "name=now", *overrides])


def write_run(
    out: Path, name: str, *overrides: str, machine: str = CPU, speeds: str = "90 100 110 100", age=0
) -> Path:
    """A run that logged `speeds` images/s."""
    folder = out / name
    folder.mkdir(parents=True)
    compose.save(compose.compose([*OVERRIDES, *overrides]), folder)
    rows = [f"{10 * i},1.5,{speed}" for i, speed in enumerate(speeds.split(), 1)]
    (folder / "log.csv").write_text("\n".join(["step,loss,images_per_s", *rows, ""]))
    (folder / "status.json").write_text(json.dumps({"machine": machine}))
    os.utime(folder / "log.csv", (1e9 - age, 1e9 - age))
    return folder


def write_result(folder: Path, speed: float, *overrides: str, on: str = CPU, **more: Any) -> None:
    rows = [{"name": "cached batches", "images_per_s": 9e9}]
    content = {
        "machine": {"date": "2026-11-21"},
        "conditions": measurements.conditions(compose.compose([*OVERRIDES, *overrides]), on),
        "rows": [*rows, {"name": "patchmill", "images_per_s": speed}],
    }
    (folder / "training-made-up.json").write_text(json.dumps(content | more))


def test_a_run_of_the_same_network_gives_the_median_of_its_log(tmp_path: Path):
    assert (
        compose.compose(OVERRIDES).train.epochs,
        compose.compose(OVERRIDES).train.batch_size,
    ) == (
        EPOCHS,
        BATCH,
    )
    write_run(tmp_path, "before", speeds="3 90 100 110 100")
    expected = expected_hours.expect(config(tmp_path), 1, CPU)
    assert expected.hours == pytest.approx(IMAGES / 100 / 3600)
    assert str(expected) == (
        f"6 minutes: {IMAGES:,} images at 100 a second on {CPU}, as in {tmp_path}/before (median "
        "of the last 5 rows of its log.csv); evaluations and checkpoints take extra time"
    )


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ([], ["size=64"]),
        ([], ["model=resnet18"]),
        ([], ["model.drop_path=0.1"]),
        ([], ["train.precision=bf16"]),
        ([], ["train.compile=true"]),
        ([], ["method.hidden=1024"]),
        ([], ["method.views=moco_v2(size=32, blur=0.0)"]),
        (["method=dilo"], []),
    ],
)
def test_another_network_is_no_measurement(then, now, tmp_path: Path):
    write_run(tmp_path, "before", *then)
    assert expected_hours.expect(config(tmp_path, *now), 1, CPU).hours is None


@pytest.mark.parametrize(
    "now", ["optim.lr=0.5", "method.temperature=0.5", "seed=3", "train.precision=fp32",
            "evaluate=never"],
)  # fmt: skip
def test_settings_that_cost_no_time_may_differ(now, tmp_path: Path):
    write_run(tmp_path, "before")
    assert expected_hours.expect(config(tmp_path, now), 1, CPU).hours


def test_another_device_is_no_measurement(tmp_path: Path):
    write_run(tmp_path, "before")
    for other in (GPU, "AMD EPYC, 4 cores", measurements.A_GPU):
        assert expected_hours.expect(config(tmp_path), 1, other).hours is None
    assert expected_hours.expect(config(tmp_path), 1, measurements.A_CPU).hours
    write_run(tmp_path, "gpu", machine=GPU, speeds="1000 1000 1000")
    for name in (GPU, measurements.A_GPU):
        expected = expected_hours.expect(config(tmp_path), 1, name)
        assert expected.hours == pytest.approx(IMAGES / 1000 / 3600)
        assert f"on {GPU}, as in" in expected.why
    # precision=auto is bf16 on a GPU
    bf16 = config(tmp_path, "train.precision=bf16")
    assert expected_hours.expect(bf16, 1, GPU).hours
    assert not expected_hours.expect(bf16, 1, CPU).hours


def test_other_numbers_of_ranks_are_an_assumption_that_is_said(tmp_path: Path):
    write_run(tmp_path, "two", machine=f"2 x {GPU}", speeds="800 800 800")
    expected = expected_hours.expect(config(tmp_path), 8, GPU)
    assert expected.hours == pytest.approx(IMAGES / 3200 / 3600)
    assert "assumed that 8 ranks and its 2 are equally fast each" in expected.why
    assert "with 64 images of a rank in a step, not 16" in expected.why
    write_run(tmp_path, "eight", machine=f"8 x {GPU}", speeds="3000 3000 3000", age=9)
    expected = expected_hours.expect(config(tmp_path), 8, GPU)
    assert expected.hours == pytest.approx(IMAGES / 3000 / 3600) and "assumed" not in expected.why
    assert (
        "assumed that 1 rank and its 2 are" in expected_hours.expect(config(tmp_path), 1, GPU).why
    )


def test_the_runs_own_log_counts_most_then_the_newest(tmp_path: Path):
    write_run(tmp_path, "old", speeds="1 1 1", age=100)
    write_run(tmp_path, "new", speeds="2 2 2", age=10)
    assert f"{tmp_path}/new" in expected_hours.expect(config(tmp_path), 1, CPU).why
    write_run(tmp_path, "now", speeds="3 3 3", age=1000)
    assert f"{tmp_path}/now" in expected_hours.expect(config(tmp_path), 1, CPU).why


@pytest.mark.parametrize("damage", ["short", "config.yaml", "log.csv", "status.json"])
def test_runs_that_say_too_little_are_left_out(damage, tmp_path: Path):
    folder = write_run(tmp_path, "before", speeds="100 100")
    if damage != "short":
        folder = write_run(tmp_path, "damaged")
        text = (folder / damage).read_text()
        (folder / damage).write_text(f"{text}seed: [" if damage == "config.yaml" else "a\nb\n")
    assert expected_hours.expect(config(tmp_path), 1, CPU).hours is None


def test_results_of_the_benchmark_come_after_runs(results: Path, tmp_path: Path):
    write_result(results, 50, "data.name=photos", "train.batch_size=64")
    expected = expected_hours.expect(config(tmp_path), 1, CPU)
    assert expected.hours == pytest.approx(IMAGES / 50 / 3600)
    for reason in (
        "as in benchmarks/results/training-made-up.json of 2026-11-21;",
        "measured with 64 images of a rank in a step, not 128",
        "measured on photos, which may load faster or slower",
    ):
        assert reason in expected.why
    write_run(tmp_path, "before")
    assert expected_hours.expect(config(tmp_path), 1, CPU).hours == pytest.approx(
        IMAGES / 100 / 3600
    )


@pytest.mark.parametrize("more", [{"conditions": None}, {"rows": []}, {"machine": {}}])
def test_results_that_do_not_say_what_they_measured_are_left_out(more, results, tmp_path):
    write_result(results, 50, **more)
    assert expected_hours.expect(config(tmp_path), 1, CPU).hours is None


def test_without_a_measurement_the_command_for_one(tmp_path: Path):
    overrides = [*OVERRIDES, "name=now", f"out={tmp_path}"]
    assert str(expected_hours.expect(config(tmp_path), 4, GPU, overrides)) == (
        f"unknown: nothing like it was measured on {GPU}; to measure it, in minutes: python "
        "benchmarks/training.py method=moco data=scenes 'data.train=scenes(count=1000, size=64)' "
        "train.epochs=40 train.batch_size=32 --peers '' "
        "--json benchmarks/results/training-moco-scenes.json"
    )


def test_streams_have_the_length_that_is_set(tmp_path: Path):
    write_run(tmp_path, "before")
    stream = ["data=shards", "scale=demo", "data.train=https://example.org/a-{0..3}.tar"]
    expected = expected_hours.expect(config(tmp_path, *stream), 1, CPU)
    assert str(expected).startswith("unknown: streamed shards have no known length: set")
    expected = expected_hours.expect(config(tmp_path, *stream, "data.steps=50"), 1, CPU)
    assert expected.hours == pytest.approx(50 * BATCH * EPOCHS / 100 / 3600)
    with pytest.raises(MillError, match="less than one step of train"):
        expected_hours.steps_per_epoch(
            config(tmp_path, *stream, "data.steps=50", "train.accumulate=64"), None
        )


def test_show_ends_with_the_hours_as_a_comment(tmp_path: Path, capsys):
    overrides = [*OVERRIDES, f"out={tmp_path}", "train.device=cpu"]
    for begin in ("# expected: unknown: nothing like it", "# expected: 6 minutes: "):
        run.main(["--show", *overrides])
        shown = capsys.readouterr().out
        assert yaml.safe_load(shown) == compose.plain(compose.compose(overrides))
        assert shown.splitlines()[-1].startswith(begin)
        write_run(tmp_path, "before") if "unknown" in begin else None


def test_data_that_is_not_there_is_said(tmp_path: Path):
    write_run(tmp_path, "before")
    expected = expected_hours.expect(config(tmp_path, "data.train=nowhere"), 1, CPU)
    assert expected.hours is None and "nowhere" in expected.why


@pytest.mark.parametrize(
    ("hours", "text"),
    [(1234.56, "1,234.6 hours"), (3.24, "3.2 hours"), (0.5, "30 minutes"), (1 / 60, "1 minute"),
     (0.001, "less than a minute")],
)  # fmt: skip
def test_durations_are_read_easily(hours, text):
    assert expected_hours.duration(hours) == text


def test_machines_are_read_back():
    for machine, parts in {
        CPU: (CPU, 1), f"{CPU}, 4 ranks": (CPU, 4), GPU: (GPU, 1), f"8 x {GPU}": (GPU, 8),
    }.items():  # fmt: skip
        assert device.parse_machine(machine) == parts
    assert measurements.is_gpu(GPU) and not measurements.is_gpu(CPU)
    assert not measurements.is_gpu("Intel Xeon, 1 core")
