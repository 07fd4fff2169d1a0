"""Lists a folder of images: which files are its images, and which folders are their classes."""

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
    directories: dict[bytes, int]  # every directory listed, with its modification time
    left_out: list[str] = field(default_factory=list)  # what is not read, in words


def list_images(root: bytes, advance: Callable[[int], None]) -> Listing:
    """List a data set, whose sub-folders are classes if they hold images; MillError if it fails."""
    directories = {b"": os.stat(root).st_mtime_ns}
    names, subfolders, left_out = _entries(root, b"")
    images = [name for name in names if _is_image(name)]
    classes = sorted(subfolders)
    trees = list(map_in_threads(lambda name: _list_tree(root, name, advance), classes, _THREADS))
    for tree in trees:
        directories |= tree.directories
        left_out += tree.left_out
    if not any(tree.paths for tree in trees):
        return Listing(sorted(images), [], [], directories, left_out)

    left_out += [
        f"the class folder {os.fsdecode(os.path.join(root, name))} holds no images"
        for name, tree in zip(classes, trees, strict=True)
        if not tree.paths
    ]
    if images:
        left_out += [
            f"{len(images)} images directly in {os.fsdecode(root)} are left out: its sub-folders "
            "hold the classes"
        ]
    labelled = sorted((path, label) for label, tree in enumerate(trees) for path in tree.paths)
    paths, labels = map(list, zip(*labelled, strict=True))
    return Listing(paths, labels, classes, directories, left_out)


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
        names, subfolders, left_out = _entries(path, directory + b"/")
        listing.left_out += left_out
        images = [name for name in names if _is_image(name)]
        listing.paths += images
        pending += sorted(subfolders)
        advance(len(images))
    return listing


def _entries(directory: bytes, prefix: bytes) -> tuple[list[bytes], list[bytes], list[str]]:
    """(files, sub-folders) that are not hidden, with `prefix` before each name; what is left out.

    A link that leads nowhere counts as a file if it is named like an image.
    """
    files: list[bytes] = []
    folders: list[bytes] = []
    left_out: list[str] = []
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
                        left_out.append(f"{os.fsdecode(entry.path)} is left out: {error.strerror}")
                (folders if is_folder else files).append(prefix + entry.name)
    except OSError as error:
        raise _unreadable(directory, error) from None
    return files, folders, sorted(left_out)


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
