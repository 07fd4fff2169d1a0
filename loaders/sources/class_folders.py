"""Classes from the folders inside an archive: the same as those of the unpacked folder.

Parent folders that all images share are ignored, so that `train/cat/1.jpg`, `./cat/1.jpg` and
`cat/1.jpg` are equivalent. The folders below, sorted, are the classes of all images in them. If
some images lie outside those folders, or if there is only one folder, images have no labels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

log = logging.getLogger("patchmill")


class ClassFolders(NamedTuple):
    """Classes from the folders of an archive, numbered as they were passed to `find`."""

    root: bytes  # the folder that all images share
    names: list[bytes]  # of the classes; empty if there are none
    labels: np.ndarray  # int64: the class of each folder
    unclassed: int | None = None  # number of a folder whose images are in no class


def folder_of(name: bytes) -> bytes:
    """The folder of an archive's member, without `./`, `/` and the like."""
    if b"/" not in name:
        return b""
    parts = name.split(b"/")[:-1]
    return b"/".join(part for part in parts if part not in (b"", b"."))


def find(folders: Sequence[bytes]) -> ClassFolders:
    """Classes from the folders that hold images, as `folder_of` names them."""
    parts = [folder.split(b"/") if folder else [] for folder in folders]
    depth = _shared_depth(parts)
    root = b"/".join(parts[0][:depth]) if parts else b""
    unclassed = [number for number, path in enumerate(parts) if len(path) == depth]
    nothing = np.full(len(parts), -1, np.int64)
    if unclassed:
        return ClassFolders(root, [], nothing, unclassed[0] if len(parts) > 1 else None)
    names = sorted({path[depth] for path in parts})
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[path[depth]] for path in parts], np.int64)
    return ClassFolders(root, names, labels)


def warn_of_unclassed(name: str, folders: Sequence[bytes], tree: ClassFolders) -> None:
    """Log why an archive with folders has no labels, if some images lie outside them."""
    if tree.unclassed is not None:
        place = os.fsdecode(folders[tree.unclassed])
        log.warning(
            "the images of %s have no labels: some lie in class folders, and others outside, %s",
            name,
            f"in {place!r}" if place else "in none",
        )


def _shared_depth(parts: Sequence[list[bytes]]) -> int:
    """Number of folders that all paths begin with."""
    if not parts:
        return 0
    least, most = min(parts), max(parts)  # all others share the prefix that these two share
    depth = 0
    while depth < min(len(least), len(most)) and least[depth] == most[depth]:
        depth += 1
    return depth
