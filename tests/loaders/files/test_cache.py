"""The cache folder: locks follow no links and empty nothing, and its folders are private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import locks
from patchmill.loaders.files import cache, writing
from patchmill.training.runtime import run_folder


@pytest.mark.parametrize("take", [cache.lock, locks.locked, run_folder.lock])
def test_a_lock_does_not_follow_links(take, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path = tmp_path / ".lock"
    path.symlink_to(precious)
    with pytest.raises((MillError, OSError)):
        with take(tmp_path if take is run_folder.lock else path):
            pass
    assert precious.read_text() == "precious" and path.is_symlink()


def test_a_lock_does_not_truncate_files(tmp_path: Path):
    path = tmp_path / "lock"
    path.write_text("precious")
    for _ in range(2):
        with cache.lock(path):
            pass
    assert path.read_text() == "precious"
    with pytest.raises(MillError, match=r"cannot write to the cache .*lock: Too many levels of"):
        os.symlink(path, tmp_path / "link.lock")
        with cache.lock(tmp_path / "link.lock"):
            pass


@pytest.mark.parametrize("name", [None, ".new.0123abcd.part"])
def test_writes_do_not_follow_links(name: str | None, tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / (name or ".new.part")).symlink_to(tmp_path / "precious")
    writing.write_atomic(tmp_path / "new", "new", name)
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "new").read_text() == "new" and not (tmp_path / "new").is_symlink()


def test_the_cache_folder_is_private_to_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "a" / "cache"))
    assert cache.folder("shards").is_dir()
    assert stat.S_IMODE((tmp_path / "a" / "cache").stat().st_mode) == 0o700
