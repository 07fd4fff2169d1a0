"""The share of the hardware decoder: the best wins, is kept, and damaged notes are not believed."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("nvidia.dali", reason="needs DALI")

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.dali import hardware_share as dali_split
from patchmill.loaders.pipelines.dali.hardware_share import SHARES, best_share, hardware_share

CPU = torch.device("cpu")


def jpeg(seed: int) -> np.ndarray:
    picture = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


SAMPLES = [jpeg(seed) for seed in range(4)]


class Machine:
    """Fastest with `best`; remembers what it was asked."""

    def __init__(self, best: float) -> None:
        self.best, self.asked = best, list[float]()

    def __call__(self, share: float) -> float:
        self.asked.append(share)
        return 9000 - 1000 * abs(share - self.best)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A GPU with a name that no file can have, and a cache of its own."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X/100 (80 GB)")
    return tmp_path / "dali"


def the_note(folder: Path) -> Path:
    (note,) = folder.glob("*.json")
    return note


@pytest.mark.parametrize("best", SHARES)
def test_the_fastest_share_wins(best: float) -> None:
    machine = Machine(best)
    assert best_share(machine) == best
    assert machine.asked == list(SHARES)


def test_of_equals_the_smallest_wins() -> None:
    assert best_share(lambda share: 5000.0) == 0


def test_one_line_says_what_was_measured(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "patchmill"):
        best_share(Machine(0.75))
    (line,) = caplog.messages
    assert "75 %" in line and "9,000 with 75 %" in line and "8,250 with 0 %" in line


def test_a_machine_is_measured_once() -> None:
    machine = Machine(0.25)
    assert hardware_share(CPU, 4, SAMPLES, machine) == 0.25
    machine.best = 1.0
    assert hardware_share(CPU, 4, SAMPLES, machine) == 0.25
    assert len(machine.asked) == len(SHARES)


def test_other_threads_and_other_gpus_are_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware_share(CPU, 4, SAMPLES, Machine(0.25)) == 0.25
    assert hardware_share(CPU, 5, SAMPLES, Machine(0.5)) == 0.5
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Y")
    assert hardware_share(CPU, 4, SAMPLES, Machine(0.75)) == 0.75


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
def test_a_damaged_note_is_measured_anew(gpu: Path, damage: str | bytes | dict) -> None:
    assert hardware_share(CPU, 4, SAMPLES, Machine(0.25)) == 0.25
    note = the_note(gpu)
    if isinstance(damage, dict):
        damage = json.dumps({**json.loads(note.read_text()), **damage})
    note.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    machine = Machine(1.0)
    assert hardware_share(CPU, 4, SAMPLES, machine) == 1.0
    assert hardware_share(CPU, 4, SAMPLES, machine) == 1.0
    assert len(machine.asked) == len(SHARES)


def test_nothing_half_written_is_left(gpu: Path) -> None:
    hardware_share(CPU, 4, SAMPLES, Machine(0.25))
    assert sorted(path.suffix for path in gpu.iterdir()) == [".json", ".lock"]


def test_a_cache_that_cannot_be_written_is_one_sentence(gpu: Path) -> None:
    gpu.write_text("a file where the folder should be")
    with pytest.raises(MillError, match="PATCHMILL_CACHE"):
        hardware_share(CPU, 4, SAMPLES, Machine(0.25))


def test_what_is_really_measured_are_images_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where the share means nothing; a bad sample is left out."""
    monkeypatch.setattr(dali_split, "_SECONDS", 0.01)
    monkeypatch.setattr(dali_split, "_BATCH", 8)
    samples = [SAMPLES[0], SAMPLES[1][:700], np.zeros(50, np.uint8), SAMPLES[2]]
    assert hardware_share(CPU, 1, samples) in SHARES


def test_samples_that_cannot_be_decoded_decide_nothing(gpu: Path) -> None:
    machine = Machine(0.5)
    assert hardware_share(CPU, 1, [np.zeros(50, np.uint8)], machine) == 0
    assert machine.asked == [] and not list(gpu.glob("*.json"))


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    share = hardware_share(torch.device("cuda"), 2, SAMPLES)
    assert share in SHARES
    assert hardware_share(torch.device("cuda"), 2, SAMPLES, Machine(0.5)) == share
