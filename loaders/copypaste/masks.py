"""Foreground masks of a data set: stored with the data, or in a mask file that `prepare` wrote.

    from patchmill.loaders.copypaste import masks

    opened = masks.open_masks(source)  # None if there are no masks
    opened.plane(3)  # uint8 [height, width] of any size; None: leave the image unpasted
    opened.foreground(3)  # share of foreground pixels, which ranks background candidates
    opened.stats()  # lookups by outcome

`patchmill masks DATA` writes the mask file. It is looked up as `DATA.masks` next to a folder, a
.beton, a tar or a list, then in the cache under the data's fingerprint. Without one, masks stored
in the data are used: .mask.png in shards, the field "mask" in betons, and those of scenes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_meta
from patchmill.loaders.copypaste.mask_places import MaskPlaces, Shares
from patchmill.loaders.files import cache
from patchmill.loaders.files.regular_files import read_file

if TYPE_CHECKING:
    from patchmill.loaders.copypaste.mask_file import MaskFile
    from patchmill.loaders.sources import MaskedSource, Source

log = logging.getLogger("patchmill")

SUFFIX = ".masks"
USED, MISSING, DEGENERATE, UNREADABLE = "used", "missing", "degenerate", "unreadable"
FOREGROUND_LEVEL = 128  # a pixel of at least this grey level is foreground

_STREAM_CACHE = 4096  # samples of a stream whose share of foreground is cached: a few batches


@dataclass(frozen=True)
class MaskLookup:
    """One sample's mask, and whether training may use it."""

    state: str  # USED ... UNREADABLE
    plane: np.ndarray | None  # uint8 [height, width]; set for degenerate masks too
    why: str = ""  # the reason it is not used

    @property
    def foreground(self) -> float:
        """Share of foreground pixels."""
        return 0.0 if self.plane is None else float((self.plane >= FOREGROUND_LEVEL).mean())


@dataclass(frozen=True)
class MaskStats:
    """Number of mask lookups by outcome."""

    used: int = 0
    missing: int = 0
    degenerate: int = 0
    unreadable: int = 0

    @property
    def without(self) -> int:
        """Images that were not pasted because they had no usable mask."""
        return self.missing + self.degenerate + self.unreadable


class Masks:
    """The masks of a data set; thread-safe."""

    def __init__(
        self,
        name: str,
        fingerprint: str,
        store: MaskedSource | MaskFile,
        estimator: Mapping[str, Any] | None = None,
    ) -> None:
        from patchmill.loaders.copypaste.mask_file import MaskFile

        self.name = name  # for messages
        self.fingerprint = fingerprint  # equal for equal masks of equal data
        self.estimator = estimator  # metadata of the estimator that made them, if known
        self.file = store if isinstance(store, MaskFile) else None
        self._store = store
        self._foreground, self._shares = (
            (self.file.foreground, None)
            if self.file
            else _cached_foreground(self._decode_share, store)
        )
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def plane(self, index: int) -> np.ndarray | None:
        """The usable mask as uint8 [height, width], 0 background to 255 foreground, or None.

        Each call is counted in `stats`. A mask with colours raises MillError.
        """
        found = self.lookup(index)
        with self._lock:
            self._counts[found.state] += 1
            first = found.state == UNREADABLE and self._counts[UNREADABLE] == 1
        if first:
            log.warning("mask %d of %s cannot be used: %s", index, self.name, found.why)
        return found.plane if found.state == USED else None

    def lookup(self, index: int) -> MaskLookup:
        """Look up a mask, its state and the reason for it, without counting it in `stats`."""
        from patchmill.loaders.decode.decoder import BadImage

        try:
            plane = self._store.mask(index)
        except (BadImage, OSError) as error:
            return MaskLookup(UNREADABLE, None, getattr(error, "strerror", None) or str(error))
        why = self.file.why(index) if self.file else ""
        if plane is None:
            return MaskLookup(MISSING, None, why or "there is none")
        if not why:
            why = degenerate_reason(plane)
        return MaskLookup(DEGENERATE if why else USED, plane, why)

    def foreground(self, index: int) -> float | None:
        """Share of foreground pixels; None if the mask cannot be used.

        Read from the table of a mask file; other masks are decoded, once per sample and run.
        """
        return self._foreground(index)

    def places(self) -> MaskPlaces | None:
        """Places of the masks, for compiled code that reads them; None if they are not PNGs."""
        find = getattr(self._store, "mask_places", None)
        return find() if find else None

    def shares(self) -> Shares:
        """`foreground` of all masks of `places`, as far as known."""
        if self.file is not None:
            return self.file.shares()
        assert self._shares is not None
        return Shares(self._shares, 1.0)

    def count(self, outcomes: Mapping[str, int]) -> None:
        """Add lookups that compiled code made in `places` to `stats`, as numbers by outcome."""
        with self._lock:
            self._counts.update(outcomes)

    def _decode_share(self, index: int) -> float | None:
        found = self.lookup(index)
        return found.foreground if found.state == USED else None

    def stats(self) -> MaskStats:
        with self._lock:
            return MaskStats(**self._counts)


def _cached_foreground(
    compute: Callable[[int], float | None], store: MaskedSource | MaskFile
) -> tuple[Callable[[int], float | None], np.ndarray | None]:
    """Memoise `compute`, in a table of 4 bytes per sample; for a stream, only the latest ones.

    Returns the function, and the table or None.
    """
    if not hasattr(store, "__len__"):
        return functools.lru_cache(_STREAM_CACHE)(compute), None
    memo = np.zeros(len(store), np.float32)  # 0: not computed; -1: no usable mask; else 1 + share

    def foreground(index: int) -> float | None:
        if not memo[index]:
            share = compute(index)
            memo[index] = -1 if share is None else 1 + share
        return None if memo[index] < 0 else float(memo[index]) - 1

    return foreground, memo


def degenerate_reason(plane: np.ndarray) -> str:
    """The reason why a mask separates nothing; empty if it separates something."""
    if not plane.size or plane.max() < FOREGROUND_LEVEL:
        return "all of it is background"
    return "all of it is foreground" if plane.min() >= FOREGROUND_LEVEL else ""


# ----------------------------------------------------------------------------------------- opening


def open_masks(
    source: Source, path: str | Path | None = None, method: str | None = None
) -> Masks | None:
    """Open masks from `path`, the data's mask file, or the data itself; None if there are none."""
    file = Path(path) if path is not None else find_mask_file(source)
    if file is not None:
        return open_mask_file(file, source, method)
    return source_masks(source, method)


def source_masks(source: Source, method: str | None = None) -> Masks | None:
    """Masks stored in the data itself."""
    if not getattr(source, "masked", False):
        return None
    masked: MaskedSource = source  # type: ignore[assignment]  # by its attribute `masked`
    masks = Masks(source.name, source.fingerprint, masked, _recorded_estimator(source))
    _warn_of_other_estimator(masks, method)
    return masks


def open_mask_file(path: str | Path, source: Source, method: str | None = None) -> Masks:
    """Open a mask file; MillError if its masks belong to other data.

    Warns if they were made by a method other than `method`, or by another version of it.
    """
    from patchmill.loaders.copypaste.mask_file import MaskFile

    file = MaskFile(Path(path))
    if file.meta["source"] != source.fingerprint:
        raise MillError(
            f"{path} holds masks of other data ({file.meta['samples']:,} images) than "
            f"{source.name} ({len(source):,}): make them again with "
            f"patchmill masks {source.name} --overwrite"
        )
    digest = hashlib.sha256(file.states.data)
    digest.update(file.checksums.data)
    masks = Masks(str(path), digest.hexdigest()[:16], file, file.meta["estimator"])
    _warn_of_other_estimator(masks, method)
    return masks


# --------------------------------------------------------------------------------------- mask files


def find_mask_file(source: Source) -> Path | None:
    """Find the data's mask file, next to the data or in the cache."""
    paths = (_adjacent_path(source), _cache_path(source))
    return next((path for path in paths if path is not None and path.exists()), None)


def default_mask_path(source: Source) -> Path:
    """The first writable path that `find_mask_file` checks."""
    path = _adjacent_path(source)
    if path is not None and (path.exists() or os.access(path.parent, os.W_OK)):
        return path
    cache.folder("masks")
    return _cache_path(source)


def _adjacent_path(source: Source) -> Path | None:
    """`DATA.masks`; None for data that is not one file or folder."""
    path = os.path.realpath(os.path.expanduser(source.name))
    return Path(path + SUFFIX) if os.path.exists(path) else None


def _cache_path(source: Source) -> Path:
    name = re.sub(r"[^\w.-]", "_", source.fingerprint)
    return cache.root() / "masks" / f"{name}{SUFFIX}"


# --------------------------------------------------------------------------------------- estimators


def expected_estimator(method: str) -> dict[str, Any]:
    """Metadata that masks of this method would have, without the weights of a learned one."""
    from patchmill.loaders.common import calls
    from patchmill.loaders.saliency import METHODS, VERSION, Learned
    from patchmill.loaders.saliency.settings import fingerprint

    name, arguments = calls.parse(method)
    metadata: dict[str, Any] = {"method": name, "version": VERSION}
    if METHODS.get(name) is Learned and not arguments:
        return metadata
    constants = calls.call(method, METHODS, "saliency method")
    if isinstance(constants, Learned):
        return metadata
    return metadata | {"fingerprint": fingerprint(constants)}


def describe_estimator(estimator: Mapping[str, Any]) -> str:
    """Describe an estimator: `rbd, version 1 (constants 1a2b3c4d)`."""
    text = f"{estimator['method']}, version {estimator['version']}"
    constants = estimator.get("fingerprint")
    return f"{text} (constants {constants[:8]})" if constants else text


def _recorded_estimator(source: Source) -> dict[str, Any] | None:
    """The estimator that `prepare` recorded next to its shards or .beton; None without a record."""
    path = os.path.realpath(os.path.expanduser(source.name))
    record = os.path.join(path, "dataset.json") if os.path.isdir(path) else f"{path}.json"
    try:
        found = json.loads(read_file(record))["masks"]["estimator"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if mask_meta.is_estimator(found) else None


def _warn_of_other_estimator(masks: Masks, method: str | None) -> None:
    actual = masks.estimator
    if actual is None:
        return
    expected = expected_estimator(method) if method else _same_estimator_now(actual)
    keys = expected if method else ("version",)
    if any(actual.get(key) != expected[key] for key in keys):
        log.warning(
            "the masks of %s were made by %s, not by %s",
            masks.name,
            describe_estimator(actual),
            describe_estimator(expected),
        )


def _same_estimator_now(estimator: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of the same method in this version of patchmill, which may lack the method."""
    from patchmill.loaders.saliency import VERSION

    try:
        return expected_estimator(estimator["method"])
    except MillError:
        return {"method": estimator["method"], "version": VERSION}
