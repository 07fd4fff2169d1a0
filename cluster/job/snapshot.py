"""A copy of the code for a job, so that edits after submission do not reach it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import patchmill
from patchmill.loaders.common.errors import MillError

ROOT = Path(patchmill.__file__).resolve().parents[1]
PACKAGES = ("patchmill", "loaders", "kernels", "training", "cluster", "benchmarks")


def take(folder: Path) -> str:
    """Copies the code to `folder`, as it is now; returns the commit, `+` if it was altered since.

    Compiled kernels are copied along: they are named after their sources' contents, and ranks that
    find them need not compile.
    """
    try:
        if not (ROOT / "setup.cfg").is_file():  # installed: nobody edits that
            shutil.copytree(ROOT / "patchmill", folder / "patchmill")
            return patchmill.__version__
        for path in _files():
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    except OSError as error:
        raise MillError(
            f"cannot copy the code to {folder}: {error.strerror}; make room, or choose another "
            "place, as --dir DIR"
        ) from None
    return commit()


def commit() -> str:
    """`+` behind it where files are not as they were committed."""
    head = _git("rev-parse", "--short", "HEAD").strip()
    changed = _git("status", "--porcelain", "--", *PACKAGES)
    return (head or patchmill.__version__) + ("+" if changed else "")


def changes() -> str:
    """What is not committed, as a patch."""
    return _git("diff", "HEAD", "--", *PACKAGES)


def _files() -> list[Path]:
    """Of the packages: what git knows or would, and what is compiled of it."""
    listed = _git("ls-files", "-co", "--exclude-standard", "-z", "--", *PACKAGES)
    files = [ROOT / name for name in listed.split("\0") if name]
    if not files:  # a copy without its history
        files = [it for name in PACKAGES for it in (ROOT / name).rglob("*") if it.suffix != ".pyc"]
    compiled = [it for name in PACKAGES for it in (ROOT / name).rglob("*.nbc")]
    return [it for it in {*files, *compiled, ROOT / "setup.cfg"} if it.is_file()]


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    except OSError:  # there is no git
        return ""
    return done.stdout if done.returncode == 0 else ""
