"""Copy the code for a job, so that edits after submission do not affect it."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import patchmill
from patchmill.loaders.common.errors import MillError

ROOT = Path(patchmill.__file__).resolve().parents[1]
PACKAGES = ("patchmill", "loaders", "kernels", "training", "cluster", "benchmarks")


def take(folder: Path) -> str:
    """Copy the working tree to `folder`; return its commit, with a `+` if files differ from it.

    Compiled kernels are copied too: they are named after the contents of their sources, and ranks
    that find them do not compile.
    """
    try:
        if not (ROOT / "setup.cfg").is_file():  # an installed package
            shutil.copytree(ROOT / "patchmill", folder / "patchmill")
            return patchmill.__version__
        for path in _files():
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a temporary file, or a kernel being recompiled
                shutil.copy2(path, target)
    except OSError as error:
        raise MillError(
            f"cannot copy the code to {folder}: {error.strerror}; free some space, or choose "
            "another folder with --dir DIR"
        ) from None
    return commit()


def commit() -> str:
    """The commit's short hash, with a `+` if files differ from it."""
    head = _git("rev-parse", "--short", "HEAD").strip()
    changed = _git("status", "--porcelain", "--", *PACKAGES)
    return (head or patchmill.__version__) + ("+" if changed else "")


def changes() -> str:
    """Uncommitted changes as a patch."""
    return _git("diff", "HEAD", "--", *PACKAGES)


def _files() -> list[Path]:
    """Files of the packages that git does not ignore, and the kernels compiled from them."""
    listed = _git("ls-files", "-co", "--exclude-standard", "-z", "--", *PACKAGES)
    files = [ROOT / name for name in listed.split("\0") if name]
    if not files:  # a copy without .git
        files = [p for name in PACKAGES for p in (ROOT / name).rglob("*") if p.suffix != ".pyc"]
    compiled = [path for name in PACKAGES for path in (ROOT / name).rglob("*.nbc")]
    return [path for path in {*files, *compiled, ROOT / "setup.cfg"} if path.is_file()]


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except OSError:  # git is not installed
        return ""
    return done.stdout if done.returncode == 0 else ""
