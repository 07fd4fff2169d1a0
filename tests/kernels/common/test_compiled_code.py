"""Compiled code is loaded only from the user's own files, in folders no other user can write to."""

from __future__ import annotations

import logging
import os
import pickle
import stat
from pathlib import Path

import pytest

from patchmill.kernels import compiled_code
from patchmill.kernels.common import jit

SOURCE = Path(jit.__file__)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "own"))
    compiled_code.folder.cache_clear()
    yield tmp_path / "own"
    compiled_code.folder.cache_clear()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757, 0o707])
def test_a_folder_that_others_can_write_to_is_not_used(
    mode: int, tmp_path: Path, own: Path, caplog: pytest.LogCaptureFixture
):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    used = compiled_code.folder(shared, SOURCE)
    assert used is not None and used.parent.parent == own
    assert [stat.S_IMODE(path.stat().st_mode) for path in (own, used.parent, used)] == [0o700] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{shared} can be written to by others, and code in it is executed" in record.message


def test_own_folders_and_the_one_next_to_the_source_are_used(tmp_path: Path):
    safe, beside = tmp_path / "safe", SOURCE.parent / "__pycache__"
    safe.mkdir(mode=0o755)
    assert compiled_code.folder(safe, SOURCE) == safe
    assert compiled_code.folder(tmp_path / "missing", SOURCE) == tmp_path / "missing"
    assert compiled_code.folder(beside, SOURCE) == beside


def test_files_of_other_users_or_writable_by_a_group_are_reported(tmp_path: Path):
    status = tmp_path.stat()
    theirs = os.stat_result((*status[:4], os.geteuid() + 54_321, *status[5:]))
    assert compiled_code.problem(theirs) == f"belongs to user {os.geteuid() + 54_321}"
    assert compiled_code.problem(os.stat_result((*status[:4], 0, *status[5:]))) is None
    group = os.stat_result((0o40775, *status[1:5], 2**20, *status[6:]))
    assert compiled_code.problem(group) == "can be written to by others"


@pytest.mark.parametrize("how", ["open to others", "link", "pipe"])
def test_a_file_that_others_may_own_or_write_is_not_unpickled(how: str, tmp_path: Path):
    files = jit._VariantFiles(tmp_path, "kernel", "0" * 16, beside_source=False)
    path, evil = files._path("key"), pickle.dumps(Evil(tmp_path / "evil"))
    if how == "open to others":
        path.write_bytes(evil)
        path.chmod(0o666)
    elif how == "link":
        (tmp_path / "elsewhere").write_bytes(evil)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    assert files.load("key") is None
    assert not (tmp_path / "evil").exists()


def test_saved_code_is_private_and_loads_again(tmp_path: Path):
    files = jit._VariantFiles(tmp_path, "kernel", "0" * 16, beside_source=False)
    files._path("key").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("precious")
    files.save("key", ["machine code"])
    assert files.load("key") == ["machine code"]
    assert stat.S_IMODE(files._path("key").stat().st_mode) == 0o600
    assert (tmp_path / "precious").read_text() == "precious"


def test_triton_and_a_job_keep_compiled_code_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shared, made = tmp_path / "shared", tmp_path / "job" / "1"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(shared))
    compiled_code.keep_private("TRITON_CACHE_DIR", compiled_code.triton_default())
    assert Path(os.environ["TRITON_CACHE_DIR"]).parent == tmp_path / "own" / "compiled"
    compiled_code.keep_private("TRITON_CACHE_DIR", compiled_code.triton_default())
    monkeypatch.setenv("JOB", str(made))
    compiled_code.keep_private("JOB", tmp_path, make=True)
    assert os.environ["JOB"] == str(made) and stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o777)
    compiled_code.keep_private("JOB", tmp_path, make=True)
    assert os.environ["JOB"] != str(made)
