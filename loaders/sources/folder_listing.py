"""List a folder of images: the image files in it, and the folders that are their classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import map_in_threads

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm")

_EXTENSIONS = frozenset(extension.encode() for extension in EXTENSIONS)
_THREADS = 16  # directories are listed concurrently: on network disks each costs a round trip


@dataclass
class Listing:
    """The contents of a directory tree; paths are relative to the data set's root."""

    paths: list[bytes]
    labels: list[int]
    classes: list[bytes]
    directories: dict[bytes, int]  # modification time of every listed directory
    skipped: list[str] = field(default_factory=list)  # a message for each thing that is not read


def list_images(root: bytes, advance: Callable[[int], None]) -> Listing:
    """List a data set, whose sub-folders are classes if they hold images; MillError if it fails."""
    directories = {b"": os.stat(root).st_mtime_ns}
    names, subfolders, skipped = _entries(root, b"")
    images = [name for name in names if _is_image(name)]
    classes = sorted(subfolders)
    trees = list(map_in_threads(lambda name: _list_tree(root, name, advance), classes, _THREADS))
    for tree in trees:
        directories |= tree.directories
        skipped += tree.skipped
    if not any(tree.paths for tree in trees):
        return Listing(sorted(images), [], [], directories, skipped)

    skipped += [
        f"the class folder {os.fsdecode(os.path.join(root, name))} holds no images"
        for name, tree in zip(classes, trees, strict=True)
        if not tree.paths
    ]
    if images:
        skipped += [
            f"{len(images)} images directly in {os.fsdecode(root)} are skipped: its sub-folders "
            "are the classes"
        ]
    labelled = sorted((path, label) for label, tree in enumerate(trees) for path in tree.paths)
    paths, labels = map(list, zip(*labelled, strict=True))
    return Listing(paths, labels, classes, directories, skipped)


def _list_tree(root: bytes, top: bytes, advance: Callable[[int], None]) -> Listing:
    """List everything below `root/top`, each real directory once so that cycles of links end."""
    listing = Listing([], [], [], {})
    seen = {_identity(os.stat(root))}
    pending = [top]
    for directory in pending:
        path = os.path.join(root, directory)
        try:
            status = os.stat(path)
        except OSError as error:
            raise _unreadable(path, error) from None
        if _identity(status) in seen:
            continue
        seen.add(_identity(status))
        listing.directories[directory] = status.st_mtime_ns
        names, subfolders, skipped = _entries(path, directory + b"/")
        listing.skipped += skipped
        images = [name for name in names if _is_image(name)]
        listing.paths += images
        pending += sorted(subfolders)
        advance(len(images))
    return listing


def _entries(directory: bytes, prefix: bytes) -> tuple[list[bytes], list[bytes], list[str]]:
    """(files, sub-folders, messages on what is skipped), hidden ones ignored.

    Each name gets `prefix`. A broken link counts as a file if it is named like an image.
    """
    files: list[bytes] = []
    folders: list[bytes] = []
    skipped: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                try:
                    is_folder = entry.is_dir()
                except OSError as error:  # of a link
                    is_folder = False
                    if not _is_image(entry.name):
                        skipped.append(f"{os.fsdecode(entry.path)} is skipped: {error.strerror}")
                (folders if is_folder else files).append(prefix + entry.name)
    except OSError as error:
        raise _unreadable(directory, error) from None
    return files, folders, sorted(skipped)


def _is_image(path: bytes) -> bool:
    _, dot, extension = path.rpartition(b".")
    return bool(dot) and extension.lower() in _EXTENSIONS


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _unreadable(directory: bytes, error: OSError) -> MillError:
    return MillError(
        f"cannot list the folder {os.fsdecode(directory)!r}: {error.strerror}; "
        "make it readable or move it out of the data set"
    )
