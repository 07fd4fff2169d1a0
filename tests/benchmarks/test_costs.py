"""What a loader costs beside time to make images: memory, and the wait before the first one."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from patchmill.benchmarks import memory, startup
from patchmill.loaders.common.errors import MillError


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_memory_beyond_the_queue(tmp_path, monkeypatch, capsys):
    recipe = "dino(local_crops=1, global_size=32, local_size=16)"
    asked = ["--data", "scenes(count=4, size=64)", "--recipe", recipe, "--batch-size", "128"]
    command = ["memory.py", *asked, "--workers", "1", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", command)
    memory.main()
    found = json.loads((tmp_path / "out.json").read_text())["mebibytes"]
    assert found["batch"] == round(128 * 3 * (2 * 32**2 + 16**2) * 4 / 2**20, 1)
    assert found["peak"] >= found["libraries"] > 0
    assert found["over_the_queue"] == pytest.approx(found["peak"] - found["queue"], abs=0.2)
    assert "over the queue" in capsys.readouterr().out


def test_the_wait_before_loading(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "ROUNDS", 1)
    monkeypatch.setattr(startup, "IMPORTS", ("import patchmill.loaders",))
    command = ["startup.py", "--files", "7", "--folders", "3", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", command)
    startup.main()
    seconds = json.loads((tmp_path / "out.json").read_text())["seconds"]
    assert list(seconds) == [
        "import patchmill.loaders",
        "first start on 7 files",
        "later start on 7 files",
    ]
    assert not list(tmp_path.glob("patchmill-*"))


def test_its_files_are_spread_over_all_folders(tmp_path):
    startup._make_files(tmp_path / "images", files=7, folders=3)
    found = [len(list(folder.iterdir())) for folder in sorted((tmp_path / "images").iterdir())]
    assert found == [3, 2, 2]


@pytest.mark.parametrize("arguments", [["--folders", "0"], ["--files", "2", "--folders", "3"]])
def test_a_mistake_is_one_sentence(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["startup.py", *arguments])
    with pytest.raises(MillError, match="--folders must be at least 1"):
        startup.main()
