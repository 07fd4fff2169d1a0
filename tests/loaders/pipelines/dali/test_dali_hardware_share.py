"""Share of the hardware decoder: the fastest wins and is cached; damaged files are ignored."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("nvidia.dali", reason="needs DALI")

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode import jpeg_engines
from patchmill.loaders.pipelines.dali import feeder
from patchmill.loaders.pipelines.dali import hardware_share as share_module
from patchmill.loaders.pipelines.dali.hardware_share import SHARES, best_share, hardware_share
from patchmill.loaders.stats import Counters

CPU = torch.device("cpu")


def jpeg(seed: int) -> np.ndarray:
    picture = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


SAMPLES = [jpeg(seed) for seed in range(4)]


class FakeMeasurement:
    """A fake measurement, fastest with `best`; records the shares it was called with."""

    def __init__(self, best: float) -> None:
        self.best, self.shares = best, list[float]()

    def __call__(self, share: float) -> float:
        self.shares.append(share)
        return 9000 - 1000 * abs(share - self.best)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A GPU with a name that no file can have, and a cache of its own."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X/100 (80 GB)")
    monkeypatch.setattr(jpeg_engines, "unreachable", lambda: None)
    return tmp_path / "dali"


def cache_file(folder: Path) -> Path:
    (file,) = folder.glob("*.json")
    return file


@pytest.mark.parametrize("best", SHARES)
def test_the_fastest_share_wins(best: float) -> None:
    measure = FakeMeasurement(best)
    assert best_share(measure) == best
    assert measure.shares == list(SHARES)


def test_of_equals_the_smallest_wins() -> None:
    assert best_share(lambda share: 5000.0) == 0


def test_one_line_says_what_was_measured(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "patchmill"):
        best_share(FakeMeasurement(0.75))
    (line,) = caplog.messages
    assert "75 %" in line and "9,000 with 75 %" in line and "8,250 with 0 %" in line


def test_a_machine_is_measured_once() -> None:
    measure = FakeMeasurement(0.25)
    assert hardware_share(CPU, 4, SAMPLES, measure) == 0.25
    measure.best = 1.0
    assert hardware_share(CPU, 4, SAMPLES, measure) == 0.25
    assert len(measure.shares) == len(SHARES)


def test_other_threads_and_other_gpus_are_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware_share(CPU, 4, SAMPLES, FakeMeasurement(0.25)) == 0.25
    assert hardware_share(CPU, 5, SAMPLES, FakeMeasurement(0.5)) == 0.5
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Y")
    assert hardware_share(CPU, 4, SAMPLES, FakeMeasurement(0.75)) == 0.75


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        "0.5",
        '{"share": 0.5}',
        b"\xff\xfe\x00",
        {"share": 7.0},
        {"share": -0.5},
        {"share": "0.5"},
        {"share": None},
        {"share": float("nan")},
        {"gpu": "another"},
        {"dali": "0.1"},
    ],
)
def test_a_damaged_cache_file_is_measured_anew(gpu: Path, damage: str | bytes | dict) -> None:
    assert hardware_share(CPU, 4, SAMPLES, FakeMeasurement(0.25)) == 0.25
    file = cache_file(gpu)
    if isinstance(damage, dict):
        damage = json.dumps({**json.loads(file.read_text()), **damage})
    file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    measure = FakeMeasurement(1.0)
    assert hardware_share(CPU, 4, SAMPLES, measure) == 1.0
    assert hardware_share(CPU, 4, SAMPLES, measure) == 1.0
    assert len(measure.shares) == len(SHARES)


def test_nothing_half_written_is_left(gpu: Path) -> None:
    hardware_share(CPU, 4, SAMPLES, FakeMeasurement(0.25))
    assert sorted(path.suffix for path in gpu.iterdir()) == [".json", ".lock"]


def test_a_cache_that_cannot_be_written_is_a_mill_error(gpu: Path) -> None:
    gpu.write_text("a file where the folder should be")
    with pytest.raises(MillError, match="PATCHMILL_CACHE"):
        hardware_share(CPU, 4, SAMPLES, FakeMeasurement(0.25))


def test_images_per_second_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where all shares are equal; bad samples are left out."""
    monkeypatch.setattr(share_module, "_SECONDS", 0.01)
    monkeypatch.setattr(share_module, "_BATCH", 8)
    samples = [SAMPLES[0], SAMPLES[1][:700], np.zeros(50, np.uint8), SAMPLES[2]]
    assert hardware_share(CPU, 1, samples) in SHARES


def test_undecodable_samples_are_not_cached(gpu: Path) -> None:
    measure = FakeMeasurement(0.5)
    assert hardware_share(CPU, 1, [np.zeros(50, np.uint8)], measure) == 0
    assert measure.shares == [] and not list(gpu.glob("*.json"))


# ---------------------------------------------------------------- engines that cannot be reached


class Built(Exception):
    """A decoder would be built now."""


@pytest.mark.parametrize("wanted", [None, 0.0, 0.75])
@pytest.mark.parametrize("missing", [False, True])
def test_without_the_video_library_nothing_is_left_to_the_engines(
    wanted: float | None,
    missing: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both where a share is given and where none could be measured, as of a stream."""
    shares = []

    def build(*_: object, hardware: float | None, **__: object) -> None:
        shares.append(hardware)
        raise Built

    monkeypatch.setattr(jpeg_engines, "unreachable", lambda: "missing" if missing else None)
    monkeypatch.setattr(feeder, "BatchDecoder", build)
    config: Any = SimpleNamespace(
        device=torch.device("cuda"),
        source=SimpleNamespace(sample_count=None),
        max_batch=4,
        workers=1,
    )
    with caplog.at_level(logging.INFO, "patchmill"), pytest.raises(Built):
        feeder.DaliFeeder(config, Counters(()), wanted, lambda *_: None, None)
    assert shares == [0.0 if missing else wanted]
    said = [line for line in caplog.messages if line.startswith("libnvcuvid.so.1 is missing: ")]
    assert len(said) == (missing and wanted != 0)
    assert all("NVIDIA_DRIVER_CAPABILITIES" in line for line in said)


def test_without_the_video_library_nothing_is_measured_or_kept(
    gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that has it later measures then."""
    measure = FakeMeasurement(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(jpeg_engines, "unreachable", lambda: "missing")
        assert hardware_share(CPU, 4, SAMPLES, measure) == 0
    assert measure.shares == [] and not list(gpu.glob("*.json"))
    assert hardware_share(CPU, 4, SAMPLES, measure) == 1


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    share = hardware_share(torch.device("cuda"), 2, SAMPLES)
    assert share in SHARES
    assert hardware_share(torch.device("cuda"), 2, SAMPLES, FakeMeasurement(0.5)) == share
