"""Staging: what is copied to a node's disk, when it is not, and the log."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from patchmill.cluster.job import stage
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare.command import main as prepare
from patchmill.loaders.sources import open_data


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "shards"
    prepare(["scenes(count=60, size=256)", str(out), "--format", "shards", "--shard-size", "1MB"])
    assert len(list(out.glob("*.tar"))) > 1
    return out


def copied(folder: Path) -> list[str]:
    (staged,) = (folder / stage.FOLDER).iterdir()
    return sorted(path.name for path in staged.iterdir())


def test_shards_are_copied_once_and_are_the_same_data(shards: Path, tmp_path: Path) -> None:
    said: list[str] = []
    copy = stage.stage(str(shards), str(tmp_path), True, said.append)
    assert Path(copy).is_relative_to(tmp_path)
    original, staged = open_data(str(shards)), open_data(copy)
    assert staged.fingerprint == original.fingerprint
    assert [staged.read(i) for i in range(60)] == [original.read(i) for i in range(60)]
    assert "staged" in said[0]
    # The next job, and other processes of the node, use the existing copy.
    assert stage.stage(str(shards), str(tmp_path), True, said.append) == copy
    assert stage.stage(str(shards), str(tmp_path), False, said.append) == copy
    assert len(said) == 1


def test_one_file_keeps_its_kind(shards: Path, tmp_path: Path) -> None:
    one = sorted(shards.glob("*.tar"))[0]
    copy = stage.stage(str(one), str(tmp_path), True)
    assert Path(copy).name == one.name
    assert open_data(copy).fingerprint == open_data(str(one)).fingerprint


def test_an_interrupted_copy_goes_on(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tars, copy = sorted(shards.glob("*.tar")), shutil.copyfile

    def interrupted(source: Path, target: Path) -> None:
        if source == tars[1]:
            Path(target).write_bytes(b"half")
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(stage.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.stage(str(shards), str(tmp_path), True)
    assert stage.COMPLETE not in copied(tmp_path)
    again: list[Path] = []
    monkeypatch.setattr(stage.shutil, "copyfile", lambda a, b: (again.append(a), copy(a, b)))
    staged = stage.stage(str(shards), str(tmp_path), True)
    assert tars[0] not in again and tars[1] in again
    assert open_data(staged).fingerprint == open_data(str(shards)).fingerprint


def test_data_that_changed_are_copied_again(shards: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shards, data)
    first = stage.stage(str(data), str(tmp_path), True)
    tar = sorted(data.glob("*.tar"))[0]
    tar.touch()
    assert stage.stage(str(data), str(tmp_path), True) != first


def test_without_room_the_originals_are_read(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SPARE", 2**60)
    said: list[str] = []
    assert stage.stage(str(shards), str(tmp_path), True, said.append) == str(shards)
    assert stage.stage(str(shards), str(tmp_path), False, said.append) == str(shards)
    assert len(said) == 1 and "do not fit" in said[0] and "reading them where they are" in said[0]


def test_other_processes_wait_for_the_copy(shards: Path, tmp_path: Path) -> None:
    staged: list[str] = []
    waiting = threading.Thread(
        target=lambda: staged.append(stage.stage(str(shards), str(tmp_path), False))
    )
    waiting.start()
    time.sleep(0.1)
    assert not staged
    copy = stage.stage(str(shards), str(tmp_path), True)
    waiting.join(60)
    assert staged == [copy]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("https://host/train-{0..3}.tar", "is streamed: omit stage"),
        ("scenes:100", "make shards of it"),
        (".", "make shards of it"),
    ],
)
def test_other_data_are_refused(data: str, said: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MillError, match=said):
        stage.files(data)
