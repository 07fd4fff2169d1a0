"""Folders of compiled code. It is executed as found, so no other user may write to them.

Numba, Triton and torch.compile keep what they compiled for this machine in folders, as pickles and
libraries. A folder that another user owns or can write to is not used: one of this user's own, in
the cache folder, replaces it.
"""

from __future__ import annotations

import atexit
import functools
import getpass
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("patchmill")

TRITON = "TRITON_CACHE_DIR"
INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
ANYBODY = stat.S_IWOTH


def root() -> Path:
    """The cache folder: `$PATCHMILL_CACHE`, else `patchmill` in the user's cache folder."""
    if chosen := os.environ.get("PATCHMILL_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "patchmill"
    return Path("~/.cache/patchmill").expanduser()


def problem(status: os.stat_result) -> str | None:
    """Describe who else can write to a file or folder, or None if only its owner and root can."""
    if not hasattr(os, "geteuid"):
        return None
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to {_user(status.st_uid)}"
    if status.st_mode & ANYBODY or (status.st_mode & stat.S_IWGRP and not _is_alone(status)):
        return "can be written to by others"
    return None


@functools.cache
def folder(path: Path, source: Path) -> Path | None:
    """Numba's cache folder `path` for code compiled from `source`, or this user's own instead.

    None if neither can be used. Python's own `__pycache__` next to the source is as safe as the
    modules in it.
    """
    if path == source.parent / "__pycache__":
        return path
    if (why := _folder_problem(path)) is None:
        return path
    own = _own_folder(path)
    place = f"in {own}" if own else "only in memory"
    log.warning("compiled kernels are kept %s: %s %s, and code in it is executed", place, path, why)
    return own


def read(path: Path, problem_of: Callable[[os.stat_result], object] = lambda status: None) -> bytes:
    """Read a regular file; OSError if `problem_of` reports a problem with it."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or problem_of(status):
            raise OSError(f"{path} is not this user's own file")
        return opened.read()


def write_new(path: Path, content: bytes) -> None:
    """Write a file that only this user can read; OSError if it exists."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as opened:
        opened.write(content)


def keep_private(variable: str, default: Path, make: bool = False) -> None:
    """Redirect a library's compiled code if other users can write to its default folder.

    `make` creates the folder if it is missing, so that no other user can create it first.
    """
    path = Path(os.environ.get(variable) or default)
    with suppress(OSError):
        if make:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (why := _folder_problem(path)) is None:
        return
    own = _own_folder(path) or _temporary_folder()
    os.environ[variable] = str(own)
    log.warning("compiled code is kept in %s: %s %s, and code in it is executed", own, path, why)


def triton_default() -> Path:
    home = os.environ.get("TRITON_HOME") or Path("~").expanduser()
    return Path(home, ".triton", "cache")


def inductor_default() -> Path:
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):
        user = f"uid_{os.getuid()}"
    return Path(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))


def _folder_problem(path: Path) -> str | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    return problem(status) if stat.S_ISDIR(status.st_mode) else "is not a folder"


def _own_folder(instead_of: Path) -> Path | None:
    """This user's own replacement for another folder; None if it cannot be created safely."""
    name = hashlib.sha256(str(instead_of).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    parent = root() / "compiled"
    own = parent / name
    try:
        root().mkdir(mode=0o700, parents=True, exist_ok=True)
        parent.mkdir(mode=0o700, exist_ok=True)
        own.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return None if _folder_problem(parent) or _folder_problem(own) else own


def _temporary_folder() -> Path:
    made = tempfile.mkdtemp(prefix="patchmill-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _user(uid: int) -> str:
    with suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def _is_alone(status: os.stat_result) -> bool:
    """True if the file's group is its owner's private group, with no other member."""
    with suppress(ImportError, KeyError):
        import grp
        import pwd

        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
        others = set(group.gr_mem) - {owner.pw_name}
        return owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and not others
    return False
