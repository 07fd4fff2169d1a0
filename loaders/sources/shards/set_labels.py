"""Labels and classes of a shard set: from `.cls` and `.json`, class folders, or a list.

Labels in the shards come first. Without any, the folders of the images in the tars are their
classes, as in the unpacked folder. So are tars named after ImageNet's classes, `n01440764.tar`. A
single tar without folders takes its labels from a list next to it (`label_list`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import columns
from patchmill.loaders.files.columns import Parts
from patchmill.loaders.sources import class_folders
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import label_list
from patchmill.loaders.sources.shards.summary import ShardSummary

log = logging.getLogger("patchmill")

_MAX_CLASSES = 1 << 20
_DTYPES = [np.dtype(name) for name in ("<i2", "<i4", "<i8")]
_IMAGENET_CLASS = re.compile(r"n\d{8}")

Labelled = tuple[list[str], Parts | None]  # classes, and labels shard by shard


def of_set(shards: Sequence[ShardSummary], listed: Path | None) -> Labelled:
    """Classes and labels of a set; MillError if only part of it is labelled."""
    nonempty = [shard for shard in shards if shard.count]
    without = [shard for shard in nonempty if "labels" not in shard.columns]
    if without and len(without) < len(nonempty):
        raise MillError(
            f"the samples of {len(without)} of {len(nonempty)} shards have no labels, first those "
            f"of {without[0].path}: label all samples, or none"
        )
    if not without:
        pieces = (shard.load("labels") for shard in nonempty)
        least = min(shard.labels[0] for shard in nonempty)
        most = max(shard.labels[1] for shard in nonempty)
        return _classes(nonempty), _parts(_count(nonempty), pieces, least, most)
    labelled = _by_folders(nonempty)
    if labelled[1] is None and listed:
        return _by_list(nonempty[0], listed)
    if labelled[1] is None:
        label_list.warn_of_missing(nonempty[0].path)
    return labelled


def _parts(count: int, pieces: Iterable[np.ndarray], least: int, most: int) -> Parts:
    """Labels in the smallest type that holds them: there may be a hundred million."""
    dtype = next(d for d in _DTYPES if np.iinfo(d).min <= least and most <= np.iinfo(d).max)
    return Parts(dtype, count, (piece.astype(dtype) for piece in pieces))


def _count(shards: Sequence[ShardSummary]) -> int:
    return sum(shard.count for shard in shards)


def _classes(shards: Sequence[ShardSummary]) -> list[str]:
    """Class names from the indexes, or else the class numbers if they are plausible."""
    least = min(shard.labels[0] for shard in shards)
    most = max(shard.labels[1] for shard in shards)
    named = {tuple(shard.meta["classes"]) for shard in shards} - {()}
    if len(named) > 1:
        raise MillError(
            f"the shards {shards[0].path} ... were made with different lists of classes"
        )
    for names in named:
        if least >= 0 and most < len(names):
            return list(names)
    return [str(number) for number in range(most + 1)] if 0 <= most < _MAX_CLASSES else []


# ----------------------------------------------------------------------------------- class folders


def _by_folders(shards: Sequence[ShardSummary]) -> Labelled:
    if not all("folders" in shard.columns for shard in shards):  # written by an older version
        return [], None
    tops = [_imagenet_class(shard.path) for shard in shards]
    by_tar = len(tops) > 1 and all(tops)
    folders = [
        b"/".join(filter(None, (top if by_tar else b"", folder)))
        for shard, top in zip(shards, tops, strict=True)
        for folder in _folders(shard)
    ]
    tree = class_folders.find(folders)
    class_folders.warn_of_unclassed(_named(shards), folders, tree)
    if not tree.names:
        return [], None
    log.info(
        "the %d %s in %s are the classes of the images, which have no labels of their own",
        len(tree.names),
        "tars" if by_tar else "class folders",
        _named(shards),
    )
    classes = [os.fsdecode(name) for name in tree.names]
    labels = _folder_labels(shards, tree.labels)
    return classes, _parts(_count(shards), labels, -1, len(classes))


def _folder_labels(shards: Sequence[ShardSummary], labels: np.ndarray) -> Iterator[np.ndarray]:
    first = 0
    for shard in shards:
        yield labels[first + shard.load("folders").astype(np.int64)]
        first += len(shard.load("folder_starts")) - 1


def _folders(shard: ShardSummary) -> list[bytes]:
    names, starts = shard.load("folder_names"), shard.load("folder_starts")
    return [columns.item(names, starts, number) for number in range(len(starts) - 1)]


def _imagenet_class(path: str) -> bytes:
    """`n01440764` of `n01440764.tar`; empty for other names."""
    stem = Path(path).stem
    return os.fsencode(stem) if _IMAGENET_CLASS.fullmatch(stem) else b""


# ------------------------------------------------------------------------------------------ a list


def _by_list(shard: ShardSummary, listed: Path) -> Labelled:
    samples = shard_index.scan_shard(shard.path).samples
    names = [sample.name for sample in sorted(samples, key=lambda sample: sample.offset)]
    labelled = label_list.labels_of(names, listed, shard.path)
    if labelled is None:
        return [], None
    classes, labels = labelled
    log.info("the labels of %s are those of the list %s", shard.path, listed)
    return classes, _parts(len(labels), [labels], int(labels.min()), int(labels.max()))


def _named(shards: Sequence[ShardSummary]) -> str:
    return shards[0].path + (f" and {len(shards) - 1} more tars" if shards[1:] else "")
