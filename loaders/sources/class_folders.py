"""Classes from the folders inside an archive: those of the unpacked folder.

Folders that all images share are passed over, so that `train/cat/1.jpg`, `./cat/1.jpg` and
`cat/1.jpg` are alike. The folders below, sorted, are the classes of all images in them. If some
images lie beside those folders, or if there is only one folder, images have no labels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

log = logging.getLogger("patchmill")


class ClassFolders(NamedTuple):
    """Classes by the folders of an archive, as numbered for `find`."""

    root: bytes  # the folder that all images share
    names: list[bytes]  # of the classes; empty without any
    labels: np.ndarray  # int64: the class of each folder
    beside: int | None = None  # number of a folder with images that are in no class


def folder_of(name: bytes) -> bytes:
    """The folder of an archive's member, without `./`, `/` and the like."""
    if b"/" not in name:
        return b""
    parts = name.split(b"/")[:-1]
    return b"/".join(part for part in parts if part not in (b"", b"."))


def find(folders: Sequence[bytes]) -> ClassFolders:
    """Classes by the folders that hold images, as `folder_of` names them."""
    parts = [folder.split(b"/") if folder else [] for folder in folders]
    depth = _shared_depth(parts)
    root = b"/".join(parts[0][:depth]) if parts else b""
    beside = [number for number, path in enumerate(parts) if len(path) == depth]
    nothing = np.full(len(parts), -1, np.int64)
    if beside:
        return ClassFolders(root, [], nothing, beside[0] if len(parts) > 1 else None)
    names = sorted({path[depth] for path in parts})
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[path[depth]] for path in parts], np.int64)
    return ClassFolders(root, names, labels)


def warn_of_images_beside(name: str, folders: Sequence[bytes], tree: ClassFolders) -> None:
    """Say why an archive with folders has no labels, if it has images beside them."""
    if tree.beside is not None:
        place = os.fsdecode(folders[tree.beside])
        log.warning(
            "the images of %s have no labels: some lie in folders, and others beside these, %s",
            name,
            f"in {place!r}" if place else "in none",
        )


def _shared_depth(parts: Sequence[list[bytes]]) -> int:
    """Number of folders that all paths begin with."""
    if not parts:
        return 0
    least, most = min(parts), max(parts)  # all others share what these two share
    depth = 0
    while depth < min(len(least), len(most)) and least[depth] == most[depth]:
        depth += 1
    return depth
