"""Which shards the user means: a tar, a brace range, a pattern, a list, a folder of tars, URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.folder import EXTENSIONS

ShardPaths = str | Path | Sequence[str | Path]

_TAR = re.compile(r"\.(tar|tgz)\b")
_URL = re.compile(r"(pipe:|[a-z][a-z0-9+.-]+://)")


def are_shard_urls(data: Any) -> bool:
    """Whether these shards are streamed, not read from a disk of this machine."""
    names = data if isinstance(data, list | tuple) else [data]
    found = [isinstance(name, str) and bool(_URL.match(name)) for name in names]
    if any(found) and not all(found):
        raise MillError(
            "some shards of the list are URLs and some are files: "
            "give all as files, or all as URLs (a file's is file:///its/path)"
        )
    return any(found)


def are_shard_paths(data: Any) -> bool:
    """Whether this names tars, rather than anything else that can be read."""
    if isinstance(data, list | tuple):
        return True
    if os.path.isdir(folder := os.path.expanduser(data)):
        return _holds_only_tars(folder)
    return bool(_TAR.search(str(data)))


def expand_paths(data: ShardPaths) -> list[str]:
    """The shards' paths: brace ranges in their own order, patterns and folders sorted."""
    names = list(data) if isinstance(data, list | tuple) else [data]
    if not names:
        raise MillError("the list of shards is empty")
    for name in names:
        if not isinstance(name, str | Path):
            raise MillError(f"a list of shards holds paths, not {name!r}")
    return [path for name in names for path in _expand(os.path.expanduser(str(name)))]


def expand_urls(data: str | Sequence[str]) -> list[str]:
    """The shards' URLs, with brace ranges written out."""
    return [url for name in ([data] if isinstance(data, str) else data) for url in _braces(name)]


def _expand(name: str) -> list[str]:
    if os.path.isdir(name):
        return sorted(os.path.join(name, file) for file in os.listdir(name) if _is_tar(file))
    if os.path.lexists(name):
        return [name]
    return [path for pattern in _braces(name) for path in _glob(pattern)]


def _braces(name: str) -> list[str]:
    if "{" not in name:
        return [name]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(name))
    except ValueError:
        raise MillError(
            f"the braces in {name!r} do not match: write data-{{000000..000146}}.tar"
        ) from None


def _glob(pattern: str) -> list[str]:
    if not glob.has_magic(pattern) or os.path.lexists(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern))
    if not found:
        raise MillError(f"no file matches {pattern!r}: check the pattern")
    return found


def _holds_only_tars(folder: str) -> bool:
    """Some, and neither images nor sub-folders."""
    tars = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_image(entry.name) or entry.is_dir():
                    return False
                tars += _is_tar(entry.name)
    except OSError:
        return False  # what lists folders says what is wrong
    return tars > 0


def _is_tar(name: str) -> bool:
    return name.endswith(".tar") and not name.startswith(".")


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in EXTENSIONS
