"""Resolve `data.root` and the names of a data set's train, test and bank images to paths."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError

SPLITS = ("train", "test", "bank")
_PATTERNS = (
    *("{}.beton", "{}-*.tar", "{}.tar"),
    *("{}-*.parquet", "data/{}-*.parquet", "{}.parquet"),
    *("{}.csv", "{}.tsv", "{}.jsonl"),
)
_REQUIRED = ""  # a root that the user has to set


def resolve(data: dict[str, Any], set_keys: Collection[str]) -> dict[str, Any]:
    """The `data` settings with each split as a path that loaders.build takes.

    A split may have alternative names, as in `val|test`: the first that exists is taken.
    `set_keys` are the keys that the user set: with data.train among them, no root is needed.
    """
    if data["root"] == _REQUIRED and "data.train" in set_keys:
        defaults = {split for split in SPLITS if f"data.{split}" not in set_keys}
        data = {key: None if key in defaults else value for key, value in data.items()}
        data["root"] = None
    if data["root"] == _REQUIRED:
        names = " and ".join(str(data[split]) for split in SPLITS if data[split])
        names = names.replace("|", " or ")
        raise MillError(f"data={data['name']} needs data.root=DIR, the folder that holds {names}")
    if not data["train"]:
        raise MillError(f"data={data['name']} needs data.train=..., what to train on")
    if data["root"] is None:
        return data
    return data | {split: _find(Path(data["root"]), data[split], split) for split in SPLITS}


def _find(root: Path, names: str | None, split: str) -> str | None:
    if names is None:
        return None
    for name in names.split("|"):
        for pattern in (name, *(pattern.format(name) for pattern in _PATTERNS)):
            if any(root.glob(pattern)) if "*" in pattern else (root / pattern).exists():
                return str(root / pattern)
    if split != "train" and "|" in names:  # a default, which the user did not ask for
        return None
    raise MillError(
        f"data.root={root} holds no {names.replace('|', ' or ')}: a folder, {names}.beton, "
        f"{names}-*.tar, {names}-*.parquet or a list such as {names}.csv"
    )
