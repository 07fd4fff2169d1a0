"""The benchmarks of memory and start-up time."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from patchmill.benchmarks import memory, startup
from patchmill.loaders.common.errors import MillError


@pytest.fixture(autouse=True)
def temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_memory_beyond_the_queue(tmp_path, monkeypatch, capsys):
    recipe = "dino(local_crops=1, global_size=32, local_size=16)"
    arguments = ["--data", "scenes(count=4, size=64)", "--recipe", recipe, "--batch-size", "128"]
    command = ["memory.py", *arguments, "--workers", "1", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", command)
    memory.main()
    used = json.loads((tmp_path / "out.json").read_text())["mebibytes"]
    assert used["batch"] == round(128 * 3 * (2 * 32**2 + 16**2) * 4 / 2**20, 1)
    assert used["peak"] >= used["libraries"] > 0
    assert used["over_the_queue"] == pytest.approx(used["peak"] - used["queue"], abs=0.2)
    assert "over the queue" in capsys.readouterr().out


def test_start_up_times(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "ROUNDS", 1)
    monkeypatch.setattr(startup, "IMPORTS", ("import patchmill.loaders",))
    load = "from patchmill.loaders.order import permutation; permutation.substitute(0, 0, 0, 0, 1)"
    monkeypatch.setattr(startup, "PROGRAMS", {"a program": f"-c|{load}"})
    command = ["startup.py", "--files", "7", "--folders", "3", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", command)
    startup.main()
    content = json.loads((tmp_path / "out.json").read_text())
    seconds, starts = content["seconds"], content["starts"]
    assert list(seconds) == [
        "import patchmill.loaders",
        "first start on 7 files",
        "later start on 7 files",
    ]
    assert list(starts) == ["a program, first start", "a program, later start"]
    assert all(set(cost) == {"wall", "cpu"} for cost in starts.values())
    assert not list(tmp_path.glob("patchmill-*"))


def test_files_are_distributed_over_all_folders(tmp_path):
    startup._make_files(tmp_path / "images", files=7, folders=3)
    counts = [len(list(folder.iterdir())) for folder in sorted((tmp_path / "images").iterdir())]
    assert counts == [3, 2, 2]


def test_a_program_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(startup, "PROGRAMS", {"a program": "-c|raise SystemExit('no such thing')"})
    with pytest.raises(MillError, match="no such thing"):
        startup.compilation()


@pytest.mark.parametrize("arguments", [["--folders", "0"], ["--files", "2", "--folders", "3"]])
def test_a_mistake_is_one_sentence(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["startup.py", *arguments])
    with pytest.raises(MillError, match="--folders must be at least 1"):
        startup.main()
