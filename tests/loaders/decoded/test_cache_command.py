"""`patchmill cache` lists stores with their users, and removes those without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers_decoded import Noise, fill, only_file

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import places
from patchmill.loaders.decoded.command import main
from patchmill.loaders.decoded.opening import open_store, stores_in


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(places, "SHARED_MEMORY", tmp_path)


def filled(cache: str, count: int) -> Any:
    store = open_store(cache, Noise(count))
    assert store is not None
    fill(store, range(count))
    return store


def test_stores_their_data_and_their_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([])
    assert f"no decoded images are kept in {places.ram_folder()}" in capsys.readouterr().out
    in_ram = filled("ram:1MB", 3)
    on_disk = filled(f"disk:{tmp_path}/disk:1MB", 4)
    path = on_disk.path
    del on_disk
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(in_ram.path) and lines[2] == str(path)
    assert lines[1].startswith("  noise: 3 of 3 images, ")
    assert lines[1].endswith(f"used by {os.getpid()}")
    assert lines[3].startswith("  noise: 4 of 4 images, ") and lines[3].endswith(", not in use")
    assert lines[4].startswith("1 without users, ")
    main(["--clean"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{in_ram.path} is in use" and lines[1].startswith(f"removed {path}, ")
    assert not path.exists() and in_ram.path.exists()
    fill(in_ram, range(3))
    main([str(tmp_path / "disk")])
    assert "no decoded images are kept in" in capsys.readouterr().out


def test_a_damaged_store_and_a_lock_alone_are_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(f"disk:{tmp_path}/disk:1MB", 4)
    folder = tmp_path / "disk"
    only_file(folder).write_bytes(b"something else")
    (folder / "left.lock").write_text("")
    main([str(folder)])
    assert "a store of another version of patchmill: 0 of 0 images" in capsys.readouterr().out
    main([str(folder), "--clean"])
    assert stores_in(folder) == [] and list(folder.iterdir()) == []


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MillError, match="there is no folder"):
        main([str(tmp_path / "none")])
