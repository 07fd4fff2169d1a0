"""Resolve `data.root` and the names of a data set's train, test and bank splits to paths."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError

SPLITS = ("train", "test", "bank")
ALL = "."  # alternative for the training images: all images of the root
TRAINING = "train"  # last alternative for others: the training images
_REQUIRED = ""  # a root that the user has to set
_OWN = "folder"  # data with this name are named after their root instead
_PATTERNS = (  # files of a split, besides a folder of its name
    *("{}.beton", "{}-*.tar", "{}.tar", "{}.zip", "{}.lmdb", "{}_lmdb"),
    *("{}-*.parquet", "data/{}-*.parquet", "{}.parquet"),
    *("{}.csv", "{}.tsv", "{}.jsonl"),
)


def resolve(data: dict[str, Any], set_keys: Collection[str]) -> dict[str, Any]:
    """Return the `data` settings with each split as a path that loaders.build accepts.

    A split may have alternative names, as in `val|test`: the first that exists is used.
    `set_keys` are the keys that the user set: with data.train among them, no root is needed.
    """
    if data["root"] == _REQUIRED and "data.train" in set_keys:
        defaults = {split for split in SPLITS if f"data.{split}" not in set_keys}
        data = {key: None if key in defaults else value for key, value in data.items()}
        data["root"] = None
    if data["root"] == _REQUIRED:
        raise MillError(
            f"data={data['name']} needs data.root=DIR, the folder that holds "
            + " and ".join(data[split].split("|")[0] for split in SPLITS if data[split])
            + (", or the images themselves" if ALL in str(data["train"]).split("|") else "")
        )
    if not data["train"]:
        raise MillError(f"data={data['name']} needs data.train=..., the training images")
    if data["root"] is None:
        return data
    root = os.path.expanduser(str(data["root"]))
    train = _find(root, data["train"], "train", None)
    splits = {split: _find(root, data[split], split, train) for split in ("test", "bank")}
    name = _name(root) if data["name"] == _OWN and "data.name" not in set_keys else data["name"]
    return data | splits | {"train": train, "name": name or data["name"]}


def _find(root: str, names: str | None, split: str, train: str | None) -> str | None:
    if names is None:
        return None
    alternatives = names.split("|")
    for name in alternatives:
        if name == ALL:
            return _whole(root)
        if split != "train" and name == TRAINING and len(alternatives) > 1:
            return train
        if (path := _inside(root, name)) is not None:
            return path
    if os.path.isfile(root):
        raise MillError(f"data.root={root} holds no {_shown(names)}: set data.{split}=PATH")
    first = alternatives[0]
    raise MillError(
        f"data.root={root} holds no {_shown(names)}: a folder, {first}.beton, {first}-*.tar, "
        f"{first}.zip, {first}-*.parquet or a list such as {first}.csv"
    )


def _inside(root: str, name: str) -> str | None:
    """Find the path of a split in a folder or a zip; None if there is none."""
    if os.path.isfile(root):
        return _in_zip(root, name) if root.lower().endswith(".zip") else None
    folder = Path(root)
    for pattern in (name, *(pattern.format(name) for pattern in _PATTERNS)):
        if any(folder.glob(pattern)) if "*" in pattern else (folder / pattern).exists():
            return str(folder / pattern)
    return None


def _in_zip(root: str, name: str) -> str | None:
    """Find a folder in a zip, next to other folders of images."""
    from patchmill.loaders.sources.archives.zip_file import Zip

    archive = Zip(root)
    return f"{root}/{archive.root}{name}" if name in archive.classes else None


def _whole(root: str) -> str:
    """Return the root as the data itself; raise a MillError if the folder or file is missing."""
    is_pattern = glob.has_magic(root) or any(sign in root for sign in ("{", "(", ":"))
    if not os.path.lexists(root) and not is_pattern:
        raise MillError(f"there is no data.root={root}: name a folder or an archive of images")
    return root


def _shown(names: str) -> str:
    """Format the alternatives `val|test|train` as `val or test`."""
    shown = [name for name in names.split("|") if name != ALL]
    return " or ".join(shown[:-1] if len(shown) > 1 and shown[-1] == TRAINING else shown)


def _name(root: str) -> str:
    """Return a name for the data in a root, valid as a folder name: that of its folder or file."""
    base = os.path.basename(root.rstrip("/"))
    stem = re.sub(r"(\.(zip|tar|gz|tgz|beton|lmdb|parquet|csv|tsv|jsonl))+$", "", base)
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")
