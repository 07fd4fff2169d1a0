"""Expand names of shards: a tar, a brace range, a glob, a list, a folder of tars, URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.folder_listing import EXTENSIONS
from patchmill.loaders.sources.stream.redact import redact

ShardPaths = str | Path | Sequence[str | Path]

_TAR = re.compile(r"\.(tar|tgz)\b")
_IMAGENET = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
_URL = re.compile(r"(pipe:|[a-z][a-z0-9+.-]+://)")


def are_shard_urls(data: Any) -> bool:
    """True for shards that are streamed rather than read from a file system."""
    names = data if isinstance(data, list | tuple) else [data]
    is_url = [isinstance(name, str) and bool(_URL.match(name)) for name in names]
    if any(is_url) and not all(is_url):
        raise MillError(
            "some shards of the list are URLs and some are files: "
            "give all as files, or all as URLs (file:///its/path for a file)"
        )
    return any(is_url)


def are_shard_paths(data: Any) -> bool:
    """True if the data names tar files, or a list or folder of them."""
    if isinstance(data, list | tuple):
        return True
    if os.path.isdir(folder := os.path.expanduser(data)):
        return _holds_only_tars(folder)
    return bool(_TAR.search(str(data)))


def expand_paths(data: ShardPaths) -> list[str]:
    """Paths of the shards: brace ranges in their order, globs and folders sorted."""
    names = list(data) if isinstance(data, list | tuple) else [data]
    if not names:
        raise MillError("the list of shards is empty")
    for name in names:
        if not isinstance(name, str | Path):
            raise MillError(f"a list of shards holds paths, not {name!r}")
    return [path for name in names for path in _expand_name(os.path.expanduser(str(name)))]


def expand_urls(data: str | Sequence[str]) -> list[str]:
    """URLs of the shards, with brace ranges expanded."""
    names = [data] if isinstance(data, str) else data
    if not names:
        raise MillError("the list of shards is empty")
    urls = [url for name in names for url in _expand_braces(name)]
    for url in urls:
        if is_image(url) and not url.startswith("pipe:"):
            raise MillError(
                f"{redact(url)} is an image, and only shards can be streamed: give tars of many "
                "images, or a folder of downloaded ones"
            )
    return urls


def _expand_name(name: str) -> list[str]:
    if os.path.isdir(name):
        tars = sorted(file for file in os.listdir(name) if _is_tar(file))
        if set(_IMAGENET) <= set(tars):
            raise MillError(
                f"{name} holds ImageNet's images for training and for validation: name one of "
                f"the tars, such as {os.path.join(name, _IMAGENET[0])}"
            )
        return [os.path.join(name, file) for file in tars]
    if os.path.lexists(name):
        return [name]
    return [path for pattern in _expand_braces(name) for path in _expand_glob(pattern)]


def _expand_braces(name: str) -> list[str]:
    if "{" not in name:
        return [name]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(name))
    except ValueError:
        raise MillError(
            f"the braces in {redact(name)!r} do not match: write data-{{000000..000146}}.tar"
        ) from None


def _expand_glob(pattern: str) -> list[str]:
    if not glob.has_magic(pattern) or os.path.lexists(pattern):
        return [pattern]
    matches = sorted(glob.glob(pattern))
    if not matches:
        raise MillError(f"no file matches {pattern!r}: check the pattern")
    return matches


def _holds_only_tars(folder: str) -> bool:
    """True if the folder holds tars, and neither images nor sub-folders."""
    tars = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if is_image(entry.name) or entry.is_dir():
                    return False
                tars += _is_tar(entry.name)
    except OSError:
        return False  # listing it as an image folder will raise the error
    return tars > 0


def _is_tar(name: str) -> bool:
    return name.endswith(".tar") and not name.startswith(".")


def is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in EXTENSIONS
