"""The listing of an archive: its images in the order of an unpacked folder, cached as columns.

Columns: `names` and `starts` (of the images, as `columns.join` writes them), `labels` (i8, if the
archive has class folders), and those that the kind of archive adds. Metadata: `state` of the
archive when it was listed, `classes`, `root` (the folder above them) and `fingerprint`, the same
as that of the unpacked folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import cache, columns
from patchmill.loaders.files.column_checks import are_starts, has_columns, has_meta
from patchmill.loaders.files.columns import Columns
from patchmill.loaders.sources import class_folders
from patchmill.loaders.sources.folder_listing import EXTENSIONS

log = logging.getLogger("patchmill")

_ENDINGS = tuple(f".{extension}".encode() for extension in EXTENSIONS)

_DTYPES, _LABELS = {"names": "|u1", "starts": "<i8"}, {"labels": "<i8"}
_META = {"classes": list, "root": str, "fingerprint": str}
UNSURE = [-1]  # state of an archive so new that a further change may go unnoticed


class Listing(NamedTuple):
    """Images of an archive, with further columns."""

    names: Sequence[bytes]
    columns: Mapping[str, np.ndarray]
    labelled: tuple[list[str], np.ndarray] | None = None  # classes and labels, if not from folders


def open_listing(
    name: str,
    kind: str,
    key: str,
    state: list[int],
    build: Callable[[], Listing],
    sure: bool,
    dtypes: Mapping[str, str],
) -> Columns:
    """Read the cached listing of an archive in this state, or build and cache it.

    `dtypes` are those of the columns that this kind of archive adds. The cached listing is not
    reused unless `sure`: any change of the archive would change its state.
    """
    file = cache.root() / "archives" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.index"
    cached = columns.find(file, kind, valid=partial(_is_valid, dtypes))
    if cached is not None and cached.meta.get("state") == state:
        return cached
    made = _index(name, build(), state if sure else UNSURE)
    try:
        cache.folder("archives")
        columns.write(file, kind, made.columns, made.meta)
        return columns.read(file, kind)
    except (OSError, MillError) as error:
        log.warning("cannot cache the listing of %s: %s", name, error)
        return made


def _is_valid(dtypes: Mapping[str, str], found: Columns) -> bool:
    if not has_columns(found, {**_DTYPES, **dtypes}, _LABELS) or not has_meta(found, _META):
        return False
    count = len(found["starts"]) - 1
    rows = [found[name] for name in (*dtypes, *_LABELS) if name in found.columns]
    return (
        count > 0
        and are_starts(found["starts"], count, len(found["names"]))
        and all(len(column) == count for column in rows)
    )


def is_image(name: bytes) -> bool:
    """True for the name of an image that is neither hidden nor a macOS resource fork."""
    if not name.lower().endswith(_ENDINGS):
        return False
    return not any(part.startswith(b".") and part not in (b".", b"..") for part in name.split(b"/"))


def _index(name: str, listing: Listing, state: list[int]) -> Columns:
    folders = [class_folders.folder_of(image) for image in listing.names]
    numbers = {folder: number for number, folder in enumerate(dict.fromkeys(folders))}
    tree = class_folders.find(list(numbers))
    skipped = len(tree.root) + 1 if tree.root else 0
    paths = [
        (folder + b"/" if folder else b"")[skipped:] + image.rpartition(b"/")[2]
        for folder, image in zip(folders, listing.names, strict=True)
    ]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    names, starts = columns.join([listing.names[i] for i in order])
    content = {"names": names, "starts": starts}
    content |= {key: column[order] for key, column in listing.columns.items()}
    classes = [os.fsdecode(folder) for folder in tree.names]
    if listing.labelled:
        classes, labels = listing.labelled
        content["labels"] = labels[order]
    elif classes:
        content["labels"] = tree.labels[[numbers[folders[i]] for i in order]]
    else:
        class_folders.warn_of_unclassed(name, list(numbers), tree)
    meta = {
        "state": state,
        "classes": classes,
        "root": os.fsdecode(tree.root + b"/" if tree.root else b""),
        "fingerprint": hashlib.sha256(b"\0".join(paths[i] for i in order)).hexdigest()[:16],
    }
    return Columns(meta, content)
