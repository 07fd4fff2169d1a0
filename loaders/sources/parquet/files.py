"""The Parquet files that a user names: a file, a glob, a folder, or a data set on the hub."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.shards.paths import is_image

ENDING = ".parquet"

_SPLIT = re.compile(
    r"(?:^|[/_.-])(train|training|validation|valid|val|test|testing|dev|eval|unsupervised)"
    r"(?:[/_.-])"
)
_NUMBER = re.compile(r"\d+(-of-\d+)?(-[0-9a-f]{8,})?(?=\.parquet$)")


def are_parquet(data: str) -> bool:
    """True for a name of Parquet files, or of a folder that contains some."""
    if data.startswith("hf://"):
        return not data.endswith((".tar", ".tgz"))
    if os.path.isdir(folder := os.path.expanduser(data)):
        return bool(_in_folder(folder))
    return data.endswith(ENDING)


def expand(data: str) -> list[str]:
    """Real paths of the files, sorted; a data set on the hub is fetched first."""
    if data.startswith("hf://"):
        from patchmill.loaders.sources.parquet import hub

        return hub.fetch(data)
    if "://" in data:
        raise MillError(
            f"cannot read {data}: Parquet files are read from disks and from hf://datasets/...; "
            "copy them to a disk first"
        )
    name = os.path.expanduser(data)
    if os.path.isdir(name):
        paths = _in_folder(name)
        require_one_set(data, [os.path.relpath(path, name) for path in paths])
    elif glob.has_magic(name) and not os.path.lexists(name):
        paths = sorted(glob.glob(name, recursive=True))
        if not paths:
            raise MillError(f"no file matches {data!r}: check the pattern")
    else:
        paths = [name]
    return [os.path.realpath(path) for path in paths]


def require_one_set(data: str, names: Sequence[str]) -> None:
    """Raise a MillError for files of several splits, which must not be mixed silently."""
    splits = {name: match[1] for name in names if (match := _SPLIT.search(name))}
    if len(set(splits.values())) < 2:
        return
    patterns = sorted({_NUMBER.sub("*", name) for name in names})
    listed = ", ".join(patterns[:4]) + (", ..." if len(patterns) > 4 else "")
    first = next((one for one in patterns if "train" in one), patterns[0])
    raise MillError(
        f"{data} holds several sets of images ({listed}): name one, as in "
        f"{data.rstrip('/')}/{first}"
    )


def _in_folder(folder: str) -> list[str]:
    """Parquet files directly in a folder, or in its sub-folder `data`, as the hub's sets have."""
    for place in (folder, os.path.join(folder, "data")):
        try:
            names = sorted(name for name in os.listdir(place) if not name.startswith("."))
        except OSError:
            continue
        if any(is_image(name) for name in names):
            return []
        if found := [os.path.join(place, name) for name in names if name.endswith(ENDING)]:
            return found
    return []
